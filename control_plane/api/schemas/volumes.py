"""Wire types of volume requests."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from control_plane.api.schemas.wire import WireType


class VolumeCreate(WireType):
    """Body of `POST /volumes/create`."""

    Name: str = ""
    Driver: str = ""
    DriverOpts: dict[str, str] = Field(default_factory=dict)
    Labels: dict[str, str] = Field(default_factory=dict)
    ClusterVolumeSpec: dict[str, Any] | None = None
