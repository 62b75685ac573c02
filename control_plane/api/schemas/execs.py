"""Wire types of exec sessions."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

TerminalSide = Annotated[int, Field(ge=0, le=0xFFFF)]


class ExecCreate(BaseModel):
    """The body of `POST /containers/{id}/exec`, Docker's field names. Null counts as absent, as in Go."""

    model_config = ConfigDict(extra="ignore")

    Cmd: list[str] | None = None
    Env: list[str] | None = None
    User: str | None = ""
    WorkingDir: str | None = ""
    DetachKeys: str | None = ""
    Tty: bool | None = False
    Privileged: bool | None = False
    AttachStdin: bool | None = False
    AttachStdout: bool | None = False
    AttachStderr: bool | None = False
    ConsoleSize: tuple[TerminalSide, TerminalSide] | None = None
