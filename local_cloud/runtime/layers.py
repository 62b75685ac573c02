"""Unpacked image layers, each once, shared by all containers that have it below them."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import json
import os
import re
import secrets
from collections.abc import Iterator
from pathlib import Path

from local_cloud.runtime.findings import RuntimeRefused
from local_cloud.runtime.spawn import command

_ZSTD = b"\x28\xb5\x2f\xfd"
_EXISTS = (errno.EEXIST, errno.ENOTEMPTY)
_DIGEST = re.compile(r"(sha256):([0-9a-f]{64})|(sha512):([0-9a-f]{128})")
_MEDIA_TYPE = re.compile(
    r"application/vnd\.(oci|docker)\.image\.(layer|rootfs)\.[a-z0-9.]*tar([.+](gzip|zstd))?|application/x-tar|"
)


class LayerStore:
    """`layers/<algorithm>/<hex>/fs` under the data directory; `layers/tmp` holds what is being made or removed.

    The tar may set owner and mode of `fs` itself; the directory around it stays the caller's, to be renamed and
    removed.
    """

    def __init__(self, data_dir: Path) -> None:
        self._root = data_dir.absolute() / "layers"
        self._temporary = self._root / "tmp"
        self._running: dict[str, asyncio.Task[Path]] = {}
        self._slots = asyncio.Semaphore(max(2, os.cpu_count() or 2))
        self._swept = False

    async def unpack(self, digest: str, blob: Path, media_type: str) -> Path:
        """The directory of a layer, unpacked from `blob` (tar, gzip or zstd) unless it is there already.

        `digest` is the key the caller knows the content by, and has checked. Callers of the same digest share one
        unpacking, which goes on when one of them is cancelled. Raises RuntimeRefused: `layer` for a hostile or
        damaged one, `space`.
        """
        target = self._path(digest)
        if target.is_dir():
            return target / "fs"
        if not _MEDIA_TYPE.fullmatch(media_type):
            raise RuntimeRefused(f"layer {digest}: the media type {media_type!r} is not one of a layer", "layer")
        task = self._running.get(digest)
        if task is None:
            task = asyncio.create_task(self._unpack(digest, target, blob))
            self._running[digest] = task
            task.add_done_callback(lambda done: self._ended(digest, done))
        return await asyncio.shield(task)

    async def remove_unused(self, keep: set[str]) -> None:
        """Removes all layers but these digests, those being unpacked, and what interrupted runs have left.

        A running container's layers must be among `keep`.
        """
        self._temporary.mkdir(parents=True, exist_ok=True)
        wanted = {self._path(digest) for digest in (*keep, *self._running)}
        for algorithm in ("sha256", "sha512"):
            for path in (self._root / algorithm).glob("*"):
                if path not in wanted:
                    path.rename(self._temporary / f"{path.name}.{secrets.token_hex(4)}")
        await self._sweep()

    def _ended(self, digest: str, task: asyncio.Task[Path]) -> None:
        self._running.pop(digest, None)
        if not task.cancelled():
            task.exception()  # looked at: its callers may all have been cancelled

    def _path(self, digest: str) -> Path:
        match = _DIGEST.fullmatch(digest)
        if match is None:
            raise RuntimeRefused(f"{digest!r} is not a digest", "layer")
        algorithm, _, encoded = digest.partition(":")
        return self._root / algorithm / encoded

    async def _unpack(self, digest: str, target: Path, blob: Path) -> Path:
        async with self._slots:
            if not self._swept:
                self._swept = True
                await self._sweep()
            try:
                site = _is_zstd(blob)
                made = self._make(target)
            except OSError as error:
                kind = "space" if error.errno in (28, 122) else "layer"
                where = f": {error.filename}" if error.filename else ""
                raise RuntimeRefused(f"layer {digest}: {(error.strerror or '').lower()}{where}", kind) from None
            with _locked(made):
                try:
                    await _program("unpack", str(made / "fs"), _absolute(blob), what=f"layer {digest}", site=site)
                    made.rename(target)
                except BaseException as error:
                    with contextlib.suppress(RuntimeRefused):
                        await _program("remove", str(made), what=f"layer {digest}")
                    if isinstance(error, OSError) and error.errno in _EXISTS:
                        return target / "fs"  # another process was first
                    raise
        return target / "fs"

    def _make(self, target: Path) -> Path:
        target.parent.mkdir(parents=True, exist_ok=True)
        made = self._temporary / f"{target.name}.{secrets.token_hex(4)}"
        (made / "fs").mkdir(parents=True)
        return made

    async def _sweep(self) -> None:
        """Removes temporary directories nobody has locked."""
        if not self._temporary.is_dir():
            return
        abandoned = []
        for path in self._temporary.iterdir():
            with contextlib.suppress(OSError), _locked(path):
                abandoned.append(str(path))
        if abandoned:
            await _program("remove", *abandoned, what="layers that are not used")


def _absolute(blob: Path) -> str:
    """The program works in another directory."""
    return str(blob.absolute())


def _is_zstd(blob: Path) -> bool:
    """Whether the program needs a module from site-packages."""
    with blob.open("rb") as file:
        return file.read(len(_ZSTD)) == _ZSTD


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Holds a directory against being swept; raises OSError when somebody else does."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


async def _program(*arguments: str, what: str, site: bool = False) -> None:
    """Runs the unpacking program; raises RuntimeRefused with its words. Cancelled, it ends the program."""
    process = await asyncio.create_subprocess_exec(
        *command("unpack", *arguments, site=site),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd="/",
        env={"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "LANG": "C.UTF-8"},
    )
    try:
        output, errors = await process.communicate()
    except asyncio.CancelledError:
        process.kill()
        await process.wait()
        raise
    try:
        answer = json.loads(output)
    except ValueError:
        last = errors.decode(errors="replace").strip().rpartition("\n")[2][:200]
        answer = {"kind": "layer", "text": f"the unpacking process ended with {process.returncode} {last}".rstrip()}
    if answer:
        raise RuntimeRefused(f"{what}: {answer['text']}", answer["kind"])
