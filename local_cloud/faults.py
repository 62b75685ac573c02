"""What the local cloud is told to get wrong: `PUT /_local/faults`."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from local_cloud.errors import CODES, ServiceError, invalid

_LONGEST = 3600.0
_MOST = 100
_SECONDS = ("delay", "operation_delay")
_CODE_NAMES = ("status", "operation_error")
_KEYS = (*_SECONDS, *_CODE_NAMES, "probability", "lost_response")


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens to calls of a method: a delay (seconds), then a refusal, or the loss of the answer."""

    delay: float = 0.0
    status: str = ""
    """A google.rpc.Code name, or empty for none."""
    probability: float = 1.0
    lost_response: bool = False
    """The call takes effect at once, but after the delay its caller gets `status` (UNAVAILABLE when empty)."""
    operation_delay: float = 0.0
    """Seconds more that the operation begun by the call takes."""
    operation_error: str = ""
    """A google.rpc.Code name: the operation begun by the call ends with it, its work not done."""

    @classmethod
    def parse(cls, value: Any) -> Fault:
        """Reads one fault; raises ServiceError INVALID_ARGUMENT."""
        if not isinstance(value, dict):
            invalid("a fault is an object")
        unknown = sorted(set(value) - set(_KEYS))
        if unknown:
            invalid(f"unknown key {unknown[0]!r}: a fault has {', '.join(sorted(_KEYS))}")
        lost = value.get("lost_response", False)
        if not isinstance(lost, bool):
            invalid("lost_response is true or false")
        return cls(
            delay=_number(value, "delay", 0.0, _LONGEST),
            status=_code(value, "status"),
            probability=_number(value, "probability", 1.0, 1.0),
            lost_response=lost,
            operation_delay=_number(value, "operation_delay", 0.0, _LONGEST),
            operation_error=_code(value, "operation_error"),
        )


def _number(value: dict[str, Any], key: str, default: float, most: float) -> float:
    found = value.get(key, default)
    if isinstance(found, bool) or not isinstance(found, (int, float)):
        invalid(f"{key} is a number")
    if not math.isfinite(found) or not 0 <= found <= most:
        invalid(f"{key} is a number from 0 to {most:g}")
    return float(found)


def _code(value: dict[str, Any], key: str) -> str:
    found = value.get(key) or ""
    if not isinstance(found, str) or found == "OK" or (found and found not in CODES):
        invalid(f"unknown {key} {found!r}: name a google.rpc.Code that is an error")
    return found


def parse_faults(wanted: Any) -> dict[str, tuple[Fault, ...]]:
    """Reads the body of `PUT /_local/faults`: method glob → a fault, or a list of faults that are each drawn on their
    own. Raises ServiceError INVALID_ARGUMENT, naming the entry."""
    if not isinstance(wanted, dict):
        invalid("want an object: method glob -> fault or list of faults")
    return {glob: tuple(_entry(glob, entry)) for glob, entry in wanted.items()}


def _entry(glob: str, entry: Any) -> list[Fault]:
    listed = entry if isinstance(entry, list) else [entry]
    if len(listed) > _MOST:
        invalid(f"{glob}: at most {_MOST} faults")
    found = []
    for number, value in enumerate(listed):
        try:
            found.append(Fault.parse(value))
        except ServiceError as error:
            where = f"{glob}[{number}]" if isinstance(entry, list) else glob
            raise ServiceError(error.code, f"{where}: {error.message}") from None
    return found


def drawn(faults: Mapping[str, tuple[Fault, ...]], method: str) -> list[Fault]:
    """The faults that hit one call: of the first glob that matches, each with its probability."""
    of_method = next((found for glob, found in faults.items() if fnmatchcase(method, glob)), ())
    return [fault for fault in of_method if random.random() < fault.probability]
