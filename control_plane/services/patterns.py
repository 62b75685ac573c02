"""Go's regular expressions, as Docker's filters take them: linear time, so no tenant can stall the others."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

_MEMORY = 1 << 20
"""Of one compiled expression, in bytes; a larger one matches nothing."""


def found(pattern: str, text: str) -> bool:
    """Whether the expression is found anywhere in the text. A malformed one is found nowhere, as in moby."""
    compiled = _compiled(pattern)
    return compiled is not None and compiled.search(text) is not None


@lru_cache(maxsize=256)
def _compiled(pattern: str) -> Any:
    # Loaded with the first filter by name, not at the start.
    import re2  # type: ignore[import-untyped]

    options = re2.Options()
    options.log_errors = False
    options.max_mem = _MEMORY
    try:
        return re2.compile(pattern, options)
    except re2.error:
        return None
