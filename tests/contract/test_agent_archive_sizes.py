"""Files of the sizes at which the agent moves them in another way: through the archive's reader, or past it."""

from __future__ import annotations

import io
import random
import tarfile
from pathlib import Path

from tests.contract.test_agent_archive import _get, _member, _put, _tar, idle

_SIZES = [0, 1, 511, 512, 513, 65535, 65536, 65537, 66048, 262144, 300_001, 1_200_000, 3]


async def test_files_of_all_sizes_go_in_and_come_out(tmp_path: Path) -> None:
    files = {f"f{size}": random.Random(size).randbytes(size) for size in _SIZES}
    async with idle(tmp_path) as (peer, container):
        end = await _put(peer, "/work", _tar(*((_member(name), data) for name, data in files.items())))
        assert (end.error, end.result) == (None, {})
        assert {name: (container.root / "work" / name).read_bytes() for name in files} == files
        end, tar = await _get(peer, "/work/.")
        assert end.error is None
        for name, data in files.items():
            member = tar.extractfile(f"./{name}")
            assert member is not None
            assert member.read() == data


async def test_a_file_cut_off_in_its_middle_is_an_error(tmp_path: Path) -> None:
    data = _tar((_member("large"), bytes(1_000_000)))
    async with idle(tmp_path) as (peer, _):
        end = await _put(peer, "/work", data[:600_000])
        assert end.error is not None
        assert (end.error["status"], end.error["message"]) == (400, "invalid tar archive: unexpected EOF")


async def test_a_sparse_file_gets_its_holes_back(tmp_path: Path) -> None:
    """As GNU tar writes it in the PAX format, version 1.0: the map of the pieces stands before them."""
    size, piece = 1_000_000, b"p" * 70_000
    start = 500_224
    table = f"1\n{start}\n{len(piece)}\n".encode().ljust(512, b"\0")
    info = tarfile.TarInfo("GNUSparseFile.0/holes")
    info.size, info.mode = len(table) + len(piece), 0o644
    info.pax_headers = {
        "GNU.sparse.major": "1",
        "GNU.sparse.minor": "0",
        "GNU.sparse.name": "holes",
        "GNU.sparse.realsize": str(size),
    }
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        tar.addfile(info, io.BytesIO(table + piece))
        after = _member("after")
        after.size = 5
        tar.addfile(after, io.BytesIO(b"after"))
    async with idle(tmp_path) as (peer, container):
        end = await _put(peer, "/work", out.getvalue())
        assert (end.error, end.result) == (None, {})
        seen = (container.root / "work/holes").read_bytes()
        assert len(seen) == size
        assert seen[start : start + len(piece)] == piece
        assert not seen[:start].strip(b"\0")
        assert (container.root / "work/after").read_bytes() == b"after"
