"""Archives in and out of the agent's container, and what they may not do."""

from __future__ import annotations

import hashlib
import io
import os
import stat
import tarfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.contract.agent_container import AgentContainer, agent, spec
from tests.contract.agent_peer import AgentPeer, CallRefused, ClientEnd


@asynccontextmanager
async def idle(tmp_path: Path) -> AsyncIterator[tuple[AgentPeer, AgentContainer]]:
    """An agent that waits: archives are served before a start."""
    async with agent(tmp_path) as (peer, container):
        peer.tell({"type": "welcome", "action": "wait", "streams": []})
        yield peer, container


def _tar(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for info, data in members:
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def _member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", **fields: object) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode = kind, link, 0o644
    for key, value in fields.items():
        setattr(info, key, value)
    return info


async def _put(peer: AgentPeer, path: str, data: bytes, *, strict: bool = True) -> ClientEnd:
    end = peer.open("archive_put", path=path, no_overwrite_dir_non_dir=strict, copy_uid_gid=False)
    await end.send(data)
    end.eof()
    return await end.end()


async def _get(peer: AgentPeer, path: str) -> tuple[ClientEnd, tarfile.TarFile]:
    end = await peer.open("archive_get", path=path).end()
    return end, tarfile.open(fileobj=io.BytesIO(bytes(end.received)))


async def test_a_tree_comes_back_as_it_went_in(tmp_path: Path) -> None:
    async with idle(tmp_path) as (peer, container):
        mtime = 1_600_000_000
        data = _tar(
            (_member("d", tarfile.DIRTYPE, mode=0o2751, uid=1000, gid=1001, mtime=mtime), b""),
            (_member("d/file", mode=0o4755, uid=7, gid=8, mtime=mtime), b"x" * 70_000),
            (_member("d/hard", tarfile.LNKTYPE, "d/file"), b""),
            (_member("d/soft", tarfile.SYMTYPE, "../elsewhere/none", uid=9, gid=9), b""),
            (_member("d/fifo", tarfile.FIFOTYPE), b""),
            (_member("d/empty"), b""),
            (_member("d/" + "long" * 60), b"long"),
            (_member("d/attr", pax_headers={"SCHILY.xattr.user.colour": "blue"}), b""),
        )
        end = await _put(peer, "/work", data)
        assert (end.error, end.result) == (None, {})
        d = container.root / "work/d"
        info = d.stat()
        assert (stat.S_IMODE(info.st_mode), info.st_uid, info.st_gid, info.st_mtime) == (0o2751, 1000, 1001, mtime)
        info = (d / "file").stat()
        assert (stat.S_IMODE(info.st_mode), info.st_uid, info.st_gid, info.st_mtime) == (0o4755, 7, 8, mtime)
        assert info.st_nlink == 2
        assert (d / "soft").readlink() == Path("../elsewhere/none")
        assert (d / "soft").lstat().st_uid == 9
        assert os.getxattr(d / "attr", "user.colour") == b"blue"

        end, tar = await _get(peer, "/work/d")
        assert end.result["name"] == "d"
        assert end.result["mode"] & 1 << 31, "Go's directory bit"
        names = tar.getnames()
        assert names[0] == "d"
        assert {"d/file", "d/hard", "d/soft", "d/fifo", "d/empty", "d/attr"} < set(names)
        file = tar.getmember("d/file")
        assert (file.mode, file.uid, file.gid, file.mtime) == (0o4755, 7, 8, mtime)
        assert sorted([tar.getmember("d/file").type, tar.getmember("d/hard").type]) == [
            tarfile.REGTYPE,
            tarfile.LNKTYPE,
        ]
        assert tar.getmember("d/soft").linkname == "../elsewhere/none"
        assert tar.getmember("d/attr").pax_headers["SCHILY.xattr.user.colour"] == "blue"


async def test_names_in_an_archive_out_are_dockers(tmp_path: Path) -> None:
    async with idle(tmp_path) as (peer, container):
        (container.root / "work/sub").mkdir()
        (container.root / "work/sub/f").write_text("data")
        (container.root / "link").symlink_to("/work/sub")
        assert (await _get(peer, "/work/sub/f"))[1].getnames() == ["f"]
        assert (await _get(peer, "/work/sub/."))[1].getnames() == [".", "./f"]
        assert (await _get(peer, "work/sub/"))[1].getnames() == ["sub", "sub/f"]
        end, tar = await _get(peer, "/link")
        assert tar.getmember("link").issym()
        assert end.result["linkTarget"] == "/work/sub"
        assert (await _get(peer, "/link/f"))[1].getnames() == ["f"]
        assert (await _get(peer, "/link/"))[1].getnames() == ["link", "link/f"]


async def test_stat(tmp_path: Path) -> None:
    async with idle(tmp_path) as (peer, container):
        (container.root / "etc/hosts").write_text("12345")
        result = await peer.call("archive_stat", path="/etc/hosts")
        assert (result["name"], result["size"], result["mode"], result["linkTarget"]) == ("hosts", 5, 0o644, "")
        for path in ("/none", "/none/deep"):
            with pytest.raises(CallRefused) as refused:
                await peer.call("archive_stat", path=path)
            assert (refused.value.status, refused.value.message) == (
                404,
                f"Could not find the file {path} in container c0ffee",
            )


async def test_destinations_that_are_no_directory(tmp_path: Path) -> None:
    async with idle(tmp_path) as (peer, _):
        data = _tar((_member("f"), b"x"))
        end = await _put(peer, "/none", data)
        assert end.error == {"status": 404, "message": "Could not find the file /none in container c0ffee"}
        end = await _put(peer, "/etc/passwd", data)
        assert end.error == {"status": 400, "message": "extraction point is not a directory"}
        end = await peer.open("archive_get", path="/none").end()
        assert end.error == {"status": 404, "message": "Could not find the file /none in container c0ffee"}


async def test_directories_and_files_do_not_replace_each_other_unless_allowed(tmp_path: Path) -> None:
    async with idle(tmp_path) as (peer, container):
        (container.root / "work/dir").mkdir()
        (container.root / "work/file").write_text("old")
        over_dir, over_file = _tar((_member("dir"), b"x")), _tar((_member("file", tarfile.DIRTYPE), b""))
        for data, text in ((over_dir, "cannot overwrite directory"), (over_file, "cannot overwrite non-directory")):
            end = await _put(peer, "/work", data)
            assert end.error
            assert end.error["status"] == 400
            assert end.error["message"].startswith(text)
            assert (await _put(peer, "/work", data, strict=False)).error is None
        assert (container.root / "work/dir").read_text() == "x"
        assert (container.root / "work/file").is_dir()


@pytest.mark.parametrize(
    "members",
    [
        [(_member("../out"), b"x")],
        [(_member("a/../../out"), b"x")],
        [(_member("a", tarfile.SYMTYPE, ".."), b""), (_member("a/out"), b"x")],
        [(_member("a", tarfile.SYMTYPE, "/"), b""), (_member("a/out"), b"x")],
        [
            (_member("a", tarfile.SYMTYPE, "."), b""),
            (_member("a/b", tarfile.SYMTYPE, ".."), b""),
            (_member("b/out"), b"x"),
        ],
        [
            (_member("d/e", tarfile.DIRTYPE), b""),
            (_member("d/e/up", tarfile.SYMTYPE, "../../.."), b""),
            (_member("in", tarfile.SYMTYPE, "d/e/up"), b""),
            (_member("in/out"), b"x"),
        ],
        [(_member("h", tarfile.LNKTYPE, "../secret"), b"")],
        [(_member("a", tarfile.SYMTYPE, ".."), b""), (_member("h", tarfile.LNKTYPE, "a/secret"), b"")],
    ],
)
async def test_an_archive_cannot_leave_its_destination(
    tmp_path: Path, members: list[tuple[tarfile.TarInfo, bytes]]
) -> None:
    async with idle(tmp_path) as (peer, container):
        (container.root / "work/dest").mkdir()
        (container.root / "work/secret").write_text("secret")
        end = await _put(peer, "/work/dest", _tar(*members))
        assert end.error
        assert end.error["status"] == 400
        assert not (container.root / "work/out").exists()
        assert not (container.root / "out").exists()
        assert not (container.root / "work/dest/h").exists()


async def test_absolute_names_stay_below_and_old_symlinks_are_followed(tmp_path: Path) -> None:
    async with idle(tmp_path) as (peer, container):
        (container.root / "usr/bin").mkdir(parents=True)
        (container.root / "work/bin").symlink_to("/usr/bin")
        end = await _put(peer, "/work", _tar((_member("/etc/x"), b"1"), (_member("bin/tool"), b"2")))
        assert end.error is None
        assert (container.root / "work/etc/x").read_text() == "1"
        assert (container.root / "usr/bin/tool").read_text() == "2"


async def test_an_overwritten_symlink_does_not_write_through(tmp_path: Path) -> None:
    async with idle(tmp_path) as (peer, container):
        (container.root / "work/f").symlink_to("/etc/passwd")
        before = (container.root / "etc/passwd").read_text()
        assert (await _put(peer, "/work", _tar((_member("f"), b"new")))).error is None
        assert (container.root / "work/f").read_text() == "new"
        assert not (container.root / "work/f").is_symlink()
        assert (container.root / "etc/passwd").read_text() == before


@pytest.mark.parametrize("data", [b"no tar at all" * 100, _tar((_member("f"), b"x" * 5000))[:3000]])
async def test_broken_archives_are_refused(tmp_path: Path, data: bytes) -> None:
    async with idle(tmp_path) as (peer, _):
        end = await _put(peer, "/work", data)
        assert end.error
        assert end.error["status"] == 400


async def test_a_large_file_there_and_back_over_cuts(tmp_path: Path) -> None:
    async with idle(tmp_path) as (peer, container):
        content = hashlib.shake_128(b"big").digest(40_000_000)
        end = peer.open("archive_put", path="/work", no_overwrite_dir_non_dir=True, copy_uid_gid=False)
        data = _tar((_member("big"), content))
        await end.send(data[:20_000_000])
        end.cut()
        await end.send(data[20_000_000:])
        end.eof()
        assert (await end.end()).result == {}
        assert hashlib.sha256((container.root / "work/big").read_bytes()).digest() == hashlib.sha256(content).digest()
        back = peer.open("archive_get", path="/work/big")
        await back.until(lambda: back.count > 10_000_000)
        back.cut()
        await back.end()
        with tarfile.open(fileobj=io.BytesIO(bytes(back.received))) as tar:
            member = tar.extractfile("big")
            assert member
            assert member.read() == content


async def test_read_only_roots_refuse(tmp_path: Path) -> None:
    async with agent(tmp_path) as (peer, _):
        await peer.start(spec("sleep", "1000", read_only_root=True))
        end = await _put(peer, "/work", _tar((_member("f"), b"x")))
        assert end.error == {"status": 400, "message": "container rootfs is marked read-only"}


async def test_files_put_before_the_start_land_in_the_volumes(tmp_path: Path) -> None:
    async with idle(tmp_path) as (peer, container):
        (container.root / "v").mkdir()
        mounts = [{"type": "bind", "source": "/v", "subpath": "", "target": "/data", "create": True}]
        wanted = spec("cat", "/data/f", mounts=mounts)
        assert await peer.call("prepare", spec=wanted) == {}
        assert (await _put(peer, "/data", _tar((_member("f"), b"put before")))).error is None
        end = peer.attach()
        await peer.start(wanted, [end.id])
        assert (await end.end()).demultiplexed() == (b"put before", b"")
        assert (container.root / "v/f").read_bytes() == b"put before"
