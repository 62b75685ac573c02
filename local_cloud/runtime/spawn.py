"""Starts the runtime's own programs, each a module of this package in a fresh interpreter."""

from __future__ import annotations

import sys
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[2]


def command(module: str, *arguments: str, site: bool = False) -> list[str]:
    """The argument list for `python -m local_cloud.runtime.<module> …`.

    The package is found wherever it was imported from, independent of the working directory and of PYTHON* variables.
    Without `site` (third-party packages) an interpreter is ready in half the time.
    """
    flags = ["-I"] if site else ["-I", "-S"]
    text = f"import os, sys; sys.path.insert(0, {str(_ROOT)!r}); from local_cloud.runtime.{module} import main; "
    text += "os._exit(main(sys.argv[1:]))"
    return [sys.executable, *flags, "-c", text, *arguments]
