"""Keeps the process of the embedded endpoint small: docs/performance.md has the figures."""

from __future__ import annotations

import contextlib
import ctypes
import sys

_NOT_NEEDED = ("aiohttp", "flask", "h2", "httpx._main")
"""What Google's and httpx' packages import where it happens to be installed, for uses that this process has not: other
transports of credentials, web frameworks whose requests are logged, HTTP/2, and a command line."""
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
"""From glibc's malloc.h."""
_LARGE = 1024 * 1024


def keep_small() -> None:
    """To be called before anything large is imported and before threads are there."""
    for name in _NOT_NEEDED:
        # None makes an import raise ImportError (importlib's documented way), which these packages expect.
        sys.modules.setdefault(name, None)  # type: ignore[arg-type]
    # Not glibc: its allocator has no such knobs.
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_ARENA_MAX, 1)
        mallopt(_M_MMAP_THRESHOLD, _LARGE)
        mallopt(_M_TRIM_THRESHOLD, 8 * _LARGE)  # less, and streams' buffers come and go with their pages
