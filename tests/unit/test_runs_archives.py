"""Copying files: through the agent, and before the first start."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from control_plane.errors import Conflict, InvalidParameter, NotFound
from control_plane.model import Mount
from control_plane.services.decompression import decompressed
from control_plane.services.tar_index import DIRECTORY, SYMLINK, TarIndex
from tests.unit.run_world import TENANT, Program, World

PARAMS = {"no_overwrite_dir_non_dir": False, "copy_uid_gid": False}


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    world = World(tmp_path)
    yield world
    await world.close()


def tar(**files: bytes) -> bytes:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name.replace("__", "/"))
            info.size = len(content)
            info.mtime = 1_700_000_000
            archive.addfile(info, io.BytesIO(content))
    return target.getvalue()


async def pieces(data: bytes, size: int = 700) -> AsyncIterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


async def collect(chunks: AsyncIterator[bytes]) -> bytes:
    return b"".join([chunk async for chunk in chunks])


async def test_files_put_before_the_start_reach_the_agent_first(world: World) -> None:
    container = await world.create()
    archives = world.services.archives
    await archives.put(TENANT, "web", "/etc", PARAMS, pieces(tar(a=b"1")))
    await archives.put(TENANT, "web", "/", PARAMS, pieces(gzip.compress(tar(b=b"2"))))
    staged = (await world.get(container)).staged
    assert [archive.path for archive in staged] == ["/etc", "/"]
    await world.services.runs.start(TENANT, "web")
    agent = world.all_agents[0]
    assert agent.puts == [("/etc", tar(a=b"1")), ("/", tar(b=b"2"))]
    assert "prepare" not in [method for method, _ in agent.calls]
    await world.services.removal.remove(TENANT, "web", force=True)
    await world.settle()
    assert world.blobs.kept == {}


async def test_mounts_are_prepared_before_files_are_delivered(world: World) -> None:
    container = await world.create()
    await world.change(container, mounts=[Mount(type="volume", name="v", destination="/data")])
    await world.services.archives.put(TENANT, "web", "/data", PARAMS, pieces(tar(a=b"1")))
    await world.services.runs.start(TENANT, "web")
    assert [method for method, _ in world.all_agents[0].calls] == ["prepare"]


async def test_stat_before_the_start(world: World) -> None:
    container = await world.create(config={"WorkingDir": "/work/dir"})
    await world.change(container, mounts=[Mount(type="volume", name="v", destination="/data")])
    archives = world.services.archives
    await archives.put(TENANT, "web", "/etc", PARAMS, pieces(tar(new=b"12", sub__deep=b"x")))
    for path in ("/", "/etc", "/etc/", "/work", "/work/dir", "/data", "/etc/sub"):
        assert (await archives.stat(TENANT, "web", path))["mode"] & DIRECTORY, path
    assert (await archives.stat(TENANT, "web", "/etc/new"))["size"] == 2
    assert (await archives.stat(TENANT, "web", "/etc/new"))["mtime"] == "2023-11-14T22:13:20Z"
    with pytest.raises(NotFound, match="Could not find the file /etc/nope in container web"):
        await archives.stat(TENANT, "web", "/etc/nope")
    _, content = await archives.get(TENANT, "web", "/etc/passwd")
    assert await collect(content) == b"image:/etc/passwd"


async def test_what_was_put_before_the_start_can_be_read_back(world: World) -> None:
    await world.create()
    archives = world.services.archives
    await archives.put(TENANT, "web", "/", PARAMS, pieces(tar(tree__file=b"old", tree__sub__x=b"y" * 1000)))
    await archives.put(TENANT, "web", "/tree", PARAMS, pieces(tar(file=b"newer")))
    found, content = await archives.get(TENANT, "web", "/tree")
    assert found["mode"] & DIRECTORY
    with tarfile.open(fileobj=io.BytesIO(await collect(content))) as archive:
        assert archive.getnames() == ["tree", "tree/file", "tree/sub/x", "tree/file"]
        assert archive.extractfile("tree/file").read() == b"newer"  # type: ignore[union-attr]
        assert archive.extractfile("tree/sub/x").read() == b"y" * 1000  # type: ignore[union-attr]
    found, content = await archives.get(TENANT, "web", "/tree/sub/x")
    assert found["size"] == 1000
    with tarfile.open(fileobj=io.BytesIO(await collect(content))) as archive:
        assert archive.getnames() == ["x"]


async def test_a_large_index_is_read_again(world: World) -> None:
    container = await world.create()
    many = tar(**{f"f{number}": b"" for number in range(600)})
    await world.services.archives.put(TENANT, "web", "/etc", PARAMS, pieces(many))
    assert (await world.get(container)).staged[0].params["index"] is None
    assert (await world.services.archives.stat(TENANT, "web", "/etc/f599"))["size"] == 0


@pytest.mark.parametrize(
    ("path", "body", "refusal", "text"),
    [
        ("/nope", tar(a=b""), NotFound, "Could not find the file /nope"),
        ("/etc/passwd", tar(a=b""), InvalidParameter, "extraction point is not a directory"),
        ("/", b"x" * 512, InvalidParameter, "archive/tar: invalid tar header"),
        ("/", b"short", InvalidParameter, "unexpected EOF"),
        ("/", gzip.compress(tar(a=b"1" * 9999), mtime=0)[:-20], InvalidParameter, "the archive is damaged"),
        ("/ro", tar(a=b""), InvalidParameter, "mounted volume is marked read-only"),
    ],
)
async def test_refused_uploads_leave_nothing(
    world: World, path: str, body: bytes, refusal: type[Exception], text: str
) -> None:
    container = await world.create()
    await world.change(container, mounts=[Mount(type="volume", name="v", destination="/ro", read_only=True)])
    with pytest.raises(refusal, match=text):
        await world.services.archives.put(TENANT, "web", path, PARAMS, pieces(body))
    assert (await world.get(container)).staged == []


async def test_a_link_to_a_directory_is_followed(world: World) -> None:
    container = await world.create()
    await world.services.archives.put(TENANT, "web", "/run", PARAMS, pieces(tar(a=b"")))
    assert len((await world.get(container)).staged) == 1


async def test_a_read_only_root(world: World) -> None:
    await world.create(host={"ReadonlyRootfs": True})
    with pytest.raises(InvalidParameter, match="container rootfs is marked read-only"):
        await world.services.archives.put(TENANT, "web", "/etc", PARAMS, pieces(tar(a=b"")))


async def test_copy_while_running_and_while_the_agent_lingers(world: World) -> None:
    await world.create()
    await world.services.runs.start(TENANT, "web")
    archives = world.services.archives
    await archives.put(TENANT, "web", "/x", PARAMS, pieces(bz2.compress(tar(a=b"1"))))
    assert world.all_agents[0].puts == [("/x", tar(a=b"1"))]
    await world.services.runs.stop(TENANT, "web")
    assert (await archives.stat(TENANT, "web", "/x"))["name"] == "x"
    _, content = await archives.get(TENANT, "web", "/x")
    assert await collect(content) == b"live:archive_get"
    with pytest.raises(NotFound, match="Could not find the file /missing in container web"):
        await archives.stat(TENANT, "web", "/missing")


async def test_copy_after_the_linger_time(world: World) -> None:
    container = await world.create()
    world.program = Program(exits=0)
    await world.services.runs.start(TENANT, "web")
    await world.settle()
    agent = world.all_agents[0]
    agent.disconnect()
    with pytest.raises(Conflict, match="was released after its process ended"):
        await world.services.archives.stat(TENANT, "web", "/x")
    await world.services.links.gone(TENANT, container.id, agent.boot)
    with pytest.raises(Conflict, match="was released after its process ended"):
        await world.services.archives.put(TENANT, "web", "/x", PARAMS, pieces(tar(a=b"")))


COMPRESSORS: list[Callable[[bytes], bytes]] = [
    bytes,
    gzip.compress,
    bz2.compress,
    lzma.compress,
    lambda data: zstandard.ZstdCompressor().compress(data),
    lambda data: gzip.compress(data[:1000]) + gzip.compress(data[1000:]),
    lambda data: bz2.compress(data[:1000]) + bz2.compress(data[1000:]),
    lambda data: zstandard.compress(data[:1000]) + zstandard.compress(data[1000:]),
]


@pytest.mark.parametrize("number", range(len(COMPRESSORS)))
@pytest.mark.parametrize("size", [1, 333, 1 << 20])
async def test_decompression(number: int, size: int) -> None:
    data = tar(a=b"A" * 3_000_000, b=bytes(range(256)) * 40)
    packed = COMPRESSORS[number](data)
    if size == 1 and len(packed) > 20_000:
        size = 997
    assert await collect(decompressed(pieces(packed, size))) == data


async def test_a_bomb_comes_in_pieces() -> None:
    packed = gzip.compress(b"\0" * 50_000_000)
    largest = 0
    async for piece in decompressed(pieces(packed, 1 << 20)):
        largest = max(largest, len(piece))
    assert largest <= 256 * 1024


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress, zstandard.compress])
async def test_a_damaged_archive_is_told(pack: Callable[[bytes], bytes]) -> None:
    packed = pack(tar(a=bytes(range(256)) * 400))
    damaged = packed[:40] + b"garbage" + packed[47:]
    # zstd's frames carry no checksum unless asked to.
    for broken in (packed[:-9], *([] if pack is zstandard.compress else [damaged])):
        with pytest.raises(InvalidParameter, match="the archive is damaged"):
            await collect(decompressed(pieces(broken)))


def test_the_index_knows_long_names_links_and_modes() -> None:
    target = io.BytesIO()
    long = "d/" * 80 + "file"
    for format in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        target = io.BytesIO()
        with tarfile.open(fileobj=target, mode="w", format=format) as archive:
            for info, content in (
                (tarfile.TarInfo(long), b"abc"),
                (tarfile.TarInfo("dir"), b""),
                (tarfile.TarInfo("link"), b""),
                (tarfile.TarInfo("suid"), b""),
            ):
                info.size = len(content)
                if info.name == "dir":
                    info.type = tarfile.DIRTYPE
                if info.name == "link":
                    info.type, info.linkname = tarfile.SYMTYPE, "é" * 120
                if info.name == "suid":
                    info.mode = 0o4755
                archive.addfile(info, io.BytesIO(content))
        index = TarIndex()
        for byte in target.getvalue():
            index.feed(bytes([byte]))
        index.finish()
        assert index.entries is not None
        assert index.entries[long][1] == 3
        assert index.entries["dir"][0] & DIRECTORY
        assert index.entries["link"][0] & SYMLINK
        assert index.entries["link"][3] == "é" * 120
        assert index.entries["suid"][0] == (1 << 23 | 0o755)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=3000))
def test_hostile_bytes_are_a_tar_or_refused(data: bytes) -> None:
    index = TarIndex()
    try:
        index.feed(data)
        index.finish()
    except InvalidParameter:
        pass


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 511), st.integers(0, 255))
def test_hostile_headers_are_refused_or_read(position: int, value: int) -> None:
    data = bytearray(tar(a=b"x" * 600, b=b""))
    data[position] = value
    header = bytes(data[:512])
    data[148:156] = f"{sum(header) - sum(header[148:156]) + 256:06o}\0 ".encode()
    index = TarIndex()
    try:
        index.feed(bytes(data))
        index.finish()
    except InvalidParameter:
        pass
