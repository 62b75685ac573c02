"""Removes directory trees without following a link, whatever modes they were left with."""

from __future__ import annotations

import os

_DEPTH = 64
_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def remove_tree(path: str) -> None:
    """Removes what is at `path`; what is not there counts as removed. Raises OSError for the first thing that stays.

    Overlayfs leaves a directory of mode 0 behind, which an ordinary user must open up before it can be emptied.
    """
    parent = os.open(os.path.dirname(path) or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _remove(os.path.basename(path), parent)
    finally:
        os.close(parent)


def _remove(name: str, parent: int) -> None:
    try:
        os.unlink(name, dir_fd=parent)
    except FileNotFoundError:
        return
    except (IsADirectoryError, PermissionError):
        pass
    else:
        return
    descriptor = _open(name, parent)
    try:
        _empty(descriptor)
    finally:
        os.close(descriptor)
    os.rmdir(name, dir_fd=parent)


def _open(name: str, parent: int) -> int:
    try:
        return os.open(name, _FLAGS, dir_fd=parent)
    except PermissionError:
        os.chmod(name, 0o700, dir_fd=parent)
        return os.open(name, _FLAGS, dir_fd=parent)


def _empty(descriptor: int) -> None:
    """Empties a directory, its subdirectories too, however deep.

    Each level costs a descriptor, so what lies deeper than `_DEPTH` is first moved up to the top.
    """
    stack = [(descriptor, _names(descriptor))]
    moved = 0
    try:
        while stack:
            current, names = stack[-1]
            if not names:
                stack.pop()
                if stack:
                    os.close(current)
                    os.rmdir(stack[-1][1].pop(), dir_fd=stack[-1][0])
                continue
            try:
                os.unlink(names[-1], dir_fd=current)
                names.pop()
            except FileNotFoundError:
                names.pop()
            except (IsADirectoryError, PermissionError):
                if len(stack) > _DEPTH:
                    moved += 1
                    risen = f".deep-{moved}-{os.getpid()}"
                    os.rename(names.pop(), risen, src_dir_fd=current, dst_dir_fd=descriptor)
                    stack[0][1].insert(0, risen)
                    continue
                below = _open(names[-1], current)
                stack.append((below, _names(below)))
    finally:
        for current, _ in stack[1:]:
            os.close(current)


def _names(descriptor: int) -> list[str]:
    if os.fstat(descriptor).st_mode & 0o700 != 0o700:
        os.chmod(descriptor, 0o700)
    return os.listdir(descriptor)


def empty_directory(path: str) -> bool:
    """Removes everything in a directory; False if something stayed (it is tried again next time)."""
    whole = True
    try:
        names = os.listdir(path)
    except FileNotFoundError:
        return True  # the whole data directory has been removed
    for name in names:
        try:
            remove_tree(f"{path}/{name}")
        except OSError:
            whole = False
    return whole
