"""Keeps the process of the embedded endpoint small: docs/performance.md has the figures."""

from __future__ import annotations

import contextlib
import ctypes
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from types import ModuleType

_NOT_NEEDED = ("flask", "h2", "httpx._main")
"""What Google's and httpx' packages import where it happens to be installed, for uses that this process has not: web
frameworks whose requests are logged, HTTP/2, and a command line."""
_NOT_FOR_GOOGLE = "aiohttp"
"""Google's packages import it for another transport of credentials; Azure's speak HTTP by it."""
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
"""From glibc's malloc.h."""
_LARGE = 1024 * 1024


class _NotForGoogle(MetaPathFinder):
    """Hides a package from Google's, which do without it, until somebody else has imported it."""

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None) -> None:
        """Raises ImportError where one of Google's modules asks; else other finders are asked."""
        if fullname != _NOT_FOR_GOOGLE:
            return
        frame = sys._getframe(1)
        while frame.f_back is not None and "importlib" in frame.f_code.co_filename:
            frame = frame.f_back
        if str(frame.f_globals.get("__name__")).startswith("google."):
            raise ImportError(f"{fullname} is kept out of this process")


def keep_small() -> None:
    """To be called before anything large is imported and before threads are there."""
    sys.meta_path.insert(0, _NotForGoogle())
    for name in _NOT_NEEDED:
        # None makes an import raise ImportError (importlib's documented way), which these packages expect.
        sys.modules.setdefault(name, None)  # type: ignore[arg-type]
    # Not glibc: its allocator has no such knobs.
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_ARENA_MAX, 1)
        mallopt(_M_MMAP_THRESHOLD, _LARGE)
        mallopt(_M_TRIM_THRESHOLD, 8 * _LARGE)  # less, and streams' buffers come and go with their pages
