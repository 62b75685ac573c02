"""Takes secrets out of what is logged: by the names of fields, and by the shape of what is in texts."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

HIDDEN = "[hidden]"

_NAMES = re.compile(
    r"authorization|cookie|password|passwd|secret|token|credential|api[-_]?key|private[-_]?key|registry[-_]auth|"
    r"^key$|^env$|^ticket$|signature",
    re.IGNORECASE,
)
_SHAPES = (
    # The id of a token of ours stays: it is no secret and tells whose it was.
    (re.compile(r"(skls_[A-Za-z0-9-]+_)[A-Za-z0-9_-]+"), rf"\1{HIDDEN}"),
    (re.compile(r"\beyJ[A-Za-z0-9_-]{6,}\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*"), HIDDEN),
    (re.compile(r"\b(Bearer|Basic)\s+[^\s\"',;]+", re.IGNORECASE), rf"\1 {HIDDEN}"),
    (re.compile(r"\bya29\.[A-Za-z0-9._-]+"), HIDDEN),
    (re.compile(r"(://)[^/\s:@]+:[^/\s@]+@"), rf"\1{HIDDEN}@"),
    (re.compile(r"(-----BEGIN [A-Z ]*PRIVATE KEY-----).*?(-----END [A-Z ]*PRIVATE KEY-----|$)", re.DOTALL), HIDDEN),
    (
        re.compile(
            r"\b([A-Za-z_]*(?:password|passwd|secret|token|api_?key|AccountKey|SharedAccessKey|sig))"
            r"(=|\":\s*\"|':\s*')[^\s&\"',;]+",
            re.IGNORECASE,
        ),
        rf"\1\2{HIDDEN}",
    ),
)
_DEEPEST = 6


def clean(text: str) -> str:
    """The text without what looks like a secret."""
    for shape, put in _SHAPES:
        text = shape.sub(put, text)
    return text


def cleaned(value: Any, depth: int = 0) -> Any:
    """The same for a value with whatever is in it."""
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, bytes):
        return clean(value.decode(errors="replace"))
    if depth >= _DEEPEST:
        return HIDDEN
    if isinstance(value, Mapping):
        return {str(name): HIDDEN if _NAMES.search(str(name)) else cleaned(v, depth + 1) for name, v in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [cleaned(item, depth + 1) for item in value]
    if value is None or isinstance(value, int | float | bool):
        return value
    return clean(str(value))
