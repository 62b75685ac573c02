"""How Go reads Docker's JSON: field names in any case, null as "not given", no conversion between types."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, model_validator

_INT64 = 2**63


class WireType(BaseModel):
    """A JSON object of the API. Field names are Docker's own (or an alias where pydantic keeps the name for itself, as
    `Config`); fields it does not know are ignored, as moby does."""

    model_config = ConfigDict(strict=True, extra="ignore", serialize_by_alias=True)

    @model_validator(mode="before")
    @classmethod
    def _as_go_reads(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        names = cls._by_lower_case()
        given: dict[str, Any] = {}
        for name, value in data.items():
            canonical = None if value is None else names.get(name.lower())
            if canonical == name:
                given[name] = value
            elif canonical is not None:
                given.setdefault(canonical, value)
        return given

    @classmethod
    def _by_lower_case(cls) -> dict[str, str]:
        names: dict[str, str] | None = cls.__dict__.get("__lower_case__")
        if names is None:
            names = {
                (field.alias or name).lower(): field.alias or name for name, field in cls.__pydantic_fields__.items()
            }
            type.__setattr__(cls, "__lower_case__", names)
        return names


def _words(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _int64(value: Any) -> Any:
    if isinstance(value, int) and not -_INT64 <= value < _INT64:
        raise ValueError("number out of range")
    return value


Words = Annotated[list[str], BeforeValidator(_words)]
"""Docker's "string or list of strings" (Cmd, Entrypoint, CapAdd)."""

Int = Annotated[int, BeforeValidator(_int64)]
"""Go's int64."""
