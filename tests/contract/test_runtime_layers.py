"""Image layers: what a tar becomes on disk, and what a hostile one cannot do."""

# ruff: noqa: ASYNC240 - the tests look at unpacked files

from __future__ import annotations

import asyncio
import contextlib
import gzip
import hashlib
import io
import os
import stat
import tarfile
from pathlib import Path

import pytest
import zstandard

from local_cloud.runtime.api import LayerStore, RuntimeRefused
from local_cloud.runtime.layers import _locked

from .runtime_userland import require_namespaces

OCI = "application/vnd.oci.image.layer.v1.tar"


@pytest.fixture
def store(tmp_path: Path) -> LayerStore:
    require_namespaces()
    return LayerStore(tmp_path / "data")


def entry(
    name: str, content: bytes = b"", kind: bytes = tarfile.REGTYPE, **fields: object
) -> tuple[tarfile.TarInfo, bytes]:
    member = tarfile.TarInfo(name)
    member.type, member.size = kind, len(content)
    member.mode = 0o755 if kind == tarfile.DIRTYPE else 0o644
    for key, value in fields.items():
        setattr(member, key, value)
    return member, content


def tar(*entries: tuple[tarfile.TarInfo, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for member, content in entries:
            archive.addfile(member, io.BytesIO(content))
    return out.getvalue()


def written(directory: Path, content: bytes) -> tuple[str, Path]:
    digest = "sha256:" + hashlib.sha256(content).hexdigest()
    blob = directory / digest.replace(":", "-")
    blob.write_bytes(content)
    return digest, blob


async def unpack(store: LayerStore, directory: Path, content: bytes, media_type: str = OCI) -> Path:
    return await store.unpack(*written(directory, content), media_type)


@pytest.mark.parametrize(
    ("compress", "media_type"),
    [
        (bytes, OCI),
        (gzip.compress, OCI + "+gzip"),
        (gzip.compress, "application/vnd.docker.image.rootfs.diff.tar.gzip"),
        (zstandard.ZstdCompressor().compress, OCI + "+zstd"),
        (lambda data: gzip.compress(data[:700]) + gzip.compress(data[700:]), OCI + "+gzip"),
        (lambda data: zstandard.compress(data[:700]) + zstandard.compress(data[700:]), OCI + "+zstd"),
    ],
)
async def test_compressions(store: LayerStore, tmp_path: Path, compress: object, media_type: str) -> None:
    content = os.urandom(100_000)
    layer = await unpack(store, tmp_path, compress(tar(entry("a/b", content))), media_type)  # type: ignore[operator]
    assert (layer / "a/b").read_bytes() == content


async def test_owners_modes_times_links_and_attributes_are_kept(store: LayerStore, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("an ordinary user may not have these ids")
    capability = b"\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
    headers = {
        "mtime": "1700000000.123456789",
        "SCHILY.xattr.user.note": "hi",
        "SCHILY.xattr.security.capability": capability.decode("utf-8", "surrogateescape"),
        "SCHILY.xattr.trusted.overlay.redirect": "/etc",
    }
    layer = await unpack(
        store,
        tmp_path,
        tar(
            entry("./", kind=tarfile.DIRTYPE, mode=0o555, uid=5, gid=6),
            entry("d/", kind=tarfile.DIRTYPE, mode=0o2750, uid=7, gid=8, mtime=1_600_000_000),
            entry("d/set", b"x", mode=0o4711, uid=1000, gid=50, pax_headers=headers),
            entry("d/hard", kind=tarfile.LNKTYPE, linkname="d/set"),
            entry("d/soft", kind=tarfile.SYMTYPE, linkname="/no/where", uid=9),
            entry("d/pipe", kind=tarfile.FIFOTYPE),
            entry("d/null", kind=tarfile.CHRTYPE, devmajor=1, devminor=3),
        ),
    )
    root, directory, file = layer.stat(), (layer / "d").stat(), (layer / "d/set").stat()
    assert (stat.S_IMODE(root.st_mode), root.st_uid, root.st_gid) == (0o555, 5, 6)
    assert (stat.S_IMODE(directory.st_mode), directory.st_uid, directory.st_gid) == (0o2750, 7, 8)
    assert directory.st_mtime == 1_600_000_000
    assert (stat.S_IMODE(file.st_mode), file.st_uid, file.st_gid, file.st_nlink) == (0o4711, 1000, 50, 2)
    assert file.st_mtime_ns == 1_700_000_000_123_456_789
    assert os.getxattr(layer / "d/set", "user.note") == b"hi"
    assert os.getxattr(layer / "d/set", "security.capability") == capability
    assert "trusted.overlay.redirect" not in os.listxattr(layer / "d/set")
    assert (layer / "d/soft").readlink() == Path("/no/where")
    assert (layer / "d/soft").lstat().st_uid == 9
    assert stat.S_ISFIFO((layer / "d/pipe").stat().st_mode)
    assert (layer / "d/null").stat().st_rdev == os.makedev(1, 3)


async def test_whiteouts_and_opaque_directories(store: LayerStore, tmp_path: Path) -> None:
    layer = await unpack(
        store,
        tmp_path,
        tar(
            entry("a/.wh.gone"), entry("b/.wh..wh..opq"), entry("b/new", b"n"), entry(".wh..wh.plnk"), entry(".wh.top")
        ),
    )
    for path in ("a/gone", "top"):
        status = (layer / path).lstat()
        assert (stat.S_ISCHR(status.st_mode), status.st_rdev) == (True, 0)
    name = "trusted.overlay.opaque" if os.geteuid() == 0 else "user.overlay.opaque"
    assert os.getxattr(layer / "b", name) == b"y"
    assert sorted(os.listdir(layer)) == ["a", "b", "top"]


async def test_later_entries_replace_earlier_ones(store: LayerStore, tmp_path: Path) -> None:
    layer = await unpack(
        store,
        tmp_path,
        tar(
            entry("x/deep/file", b"1"),
            entry("x", b"now a file"),
            entry("y", kind=tarfile.SYMTYPE, linkname="/x"),
            entry("y", b"not through the link"),
        ),
    )
    assert (layer / "x").read_bytes() == b"now a file"
    assert (layer / "y").read_bytes() == b"not through the link"


@pytest.mark.parametrize("target", ["/etc", "../../../../../../../../../../tmp", "/proc/1/root/tmp"])
async def test_links_lead_nowhere_out_of_the_layer(store: LayerStore, tmp_path: Path, target: str) -> None:
    mark = f"sockerless-{os.getpid()}"
    outwards = entry("in", kind=tarfile.SYMTYPE, linkname=target)
    with contextlib.suppress(RuntimeRefused):  # there is no such directory within the layer
        await unpack(store, tmp_path, tar(outwards, entry(f"in/{mark}", b"x")))
    layer = await unpack(
        store,
        tmp_path,
        tar(entry("etc/x"), entry("in", kind=tarfile.SYMTYPE, linkname="/etc"), entry(f"in/{mark}", b"x")),
    )
    assert (layer / "etc" / mark).read_bytes() == b"x"
    assert not any(Path(place, mark).exists() for place in ("/etc", "/tmp", "/"))


async def test_absolute_names_are_within_the_layer(store: LayerStore, tmp_path: Path) -> None:
    layer = await unpack(store, tmp_path, tar(entry("/abs/file", b"x")))
    assert (layer / "abs/file").read_bytes() == b"x"


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (tar(entry("../../etc/evil", b"x")), "leaves the layer"),
        (tar(entry("a/../../evil", b"x")), "leaves the layer"),
        (tar(entry("hard", kind=tarfile.LNKTYPE, linkname="../../../../etc/passwd")), "leaves the layer"),
        (tar(entry("hard", kind=tarfile.LNKTYPE, linkname="/etc/passwd")), "hard link to /etc/passwd"),
        (tar(entry("a", b"x"), entry("a/b", b"x")), "used as a directory"),
        (tar(entry(".wh...")), "not a whiteout"),
        (tar(entry("odd", kind=b"Z")), "unknown type"),
        (tar(entry("n", kind=tarfile.SYMTYPE, linkname="a\0b", pax_headers={"linkpath": "a\0b"})), "damaged"),
        (tar(entry("a", os.urandom(50_000)))[:20_000], "ends within"),
        (gzip.compress(tar(entry("a", os.urandom(50_000))))[:20_000], "damaged"),
        (zstandard.compress(tar(entry("a", os.urandom(50_000))))[:20_000], ""),
        (b"no tar at all" * 100, "damaged or not a layer"),
        (b"\x1f\x8bno gzip" * 100, "damaged"),
        (b"", "damaged or not a layer"),
        (tar(entry("/")), "not a directory"),
    ],
)
async def test_hostile_and_damaged_layers_are_refused_and_leave_nothing(
    store: LayerStore, tmp_path: Path, content: bytes, text: str
) -> None:
    with pytest.raises(RuntimeRefused, match="layer sha256:") as caught:
        await unpack(store, tmp_path, content)
    assert (caught.value.kind, text in str(caught.value)) == ("layer", True), str(caught.value)
    assert list((tmp_path / "data/layers/tmp").iterdir()) == []
    assert list((tmp_path / "data/layers/sha256").iterdir()) == []


async def test_a_header_of_gigabytes_is_refused(store: LayerStore, tmp_path: Path) -> None:
    header = tarfile.TarInfo("x")
    header.type, header.size = tarfile.XHDTYPE, 4 << 30
    bomb = io.BytesIO()
    with gzip.GzipFile(fileobj=bomb, mode="wb", compresslevel=1) as out:
        out.write(header.tobuf(tarfile.GNU_FORMAT))
        for _ in range(1200):
            out.write(bytes(1 << 20))
    with pytest.raises(RuntimeRefused, match="layer"):
        await unpack(store, tmp_path, bomb.getvalue())


@pytest.mark.parametrize(
    "digest", ["", "sha256:../../x", "sha256:" + "A" * 64, "md5:" + "a" * 32, "sha256:" + "a" * 63]
)
async def test_a_digest_is_no_path(store: LayerStore, tmp_path: Path, digest: str) -> None:
    with pytest.raises(RuntimeRefused, match="is not a digest"):
        await store.unpack(digest, tmp_path / "blob", OCI)


async def test_other_media_types_and_missing_blobs_are_refused(store: LayerStore, tmp_path: Path) -> None:
    digest, blob = written(tmp_path, tar(entry("a", b"x")))
    with pytest.raises(RuntimeRefused, match="media type"):
        await store.unpack(digest, blob, "application/vnd.oci.image.config.v1+json")
    with pytest.raises(RuntimeRefused, match="no such file"):
        await store.unpack(digest, tmp_path / "missing", OCI)


async def test_callers_of_one_digest_share_the_work_and_cancelling_one_does_not_stop_it(
    store: LayerStore, tmp_path: Path
) -> None:
    digest, blob = written(tmp_path, tar(entry("a", os.urandom(1 << 20))))
    tasks = [asyncio.create_task(store.unpack(digest, blob, OCI)) for _ in range(10)]
    await asyncio.sleep(0)
    tasks[0].cancel()
    paths = await asyncio.gather(*tasks[1:])
    assert len(set(paths)) == 1
    inode = (paths[0] / "a").stat().st_ino
    blob.unlink()
    assert ((await store.unpack(digest, blob, OCI)) / "a").stat().st_ino == inode


async def test_two_processes_may_unpack_the_same(store: LayerStore, tmp_path: Path) -> None:
    digest, blob = written(tmp_path, tar(entry("a", os.urandom(1 << 20))))
    other = LayerStore(tmp_path / "data")
    first, second = await asyncio.gather(store.unpack(digest, blob, OCI), other.unpack(digest, blob, OCI))
    assert first == second
    assert (first / "a").stat().st_size == 1 << 20
    assert list((tmp_path / "data/layers/tmp").iterdir()) == []


async def test_unused_layers_and_leftovers_are_removed_but_not_what_is_being_made(
    store: LayerStore, tmp_path: Path
) -> None:
    kept = await unpack(store, tmp_path, tar(entry("kept", b"x")))
    gone = await unpack(store, tmp_path, tar(entry("gone/deep", b"x"), entry("locked", kind=tarfile.DIRTYPE, mode=0)))
    temporary = tmp_path / "data/layers/tmp"
    for name in ("left", "being-made"):
        (temporary / name / "fs").mkdir(parents=True)
    with _locked(temporary / "being-made"):
        await store.remove_unused({f"sha256:{kept.parent.name}"})
    assert (kept / "kept").exists()
    assert not gone.parent.exists()
    assert [path.name for path in temporary.iterdir()] == ["being-made"]
