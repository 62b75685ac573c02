"""A key list in a file of the operator's, for the eyes of the process's user alone."""

from __future__ import annotations

import os
from pathlib import Path

from control_plane.store.key_list import KeyList, new_key

__all__ = ["KeyFile", "new_key", "new_key_file"]


class KeyFile(KeyList):
    """`KeyWrapper` with keys from a file, read once. Raises ValueError for a file that is not as it should be."""

    def __init__(self, path: Path) -> None:
        if path.stat().st_mode & 0o077:
            raise ValueError(f"{path} can be read by others than its owner: chmod 600 {path}")
        super().__init__(path.read_text(), str(path))


def new_key_file(path: Path, key_id: str = "1") -> None:
    """Makes a file with one new key, for its owner alone. Raises FileExistsError."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(new_key(key_id))
