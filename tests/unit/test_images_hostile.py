"""Manifests, configurations and tars that mean harm: refused, in bounded memory."""

from __future__ import annotations

import gzip
import io
import tarfile
from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.errors import InvalidParameter
from control_plane.registry.archive import TarArchives
from control_plane.registry.layerindex import index
from control_plane.registry.manifest import OCI_CONFIG, OCI_LAYER, OCI_MANIFEST, read, read_config
from control_plane.registry.tarsource import ArchiveError, ForwardReader, members, normal_path

_DIGEST = "sha256:" + "a" * 64


def _manifest(**changes: Any) -> bytes:
    document: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": {"mediaType": OCI_CONFIG, "digest": _DIGEST, "size": 2},
        "layers": [{"mediaType": OCI_LAYER, "digest": _DIGEST, "size": 3}],
    }
    return orjson.dumps({**document, **changes})


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"[]",
        b"null",
        b"{}",
        b'{"mediaType":"application/vnd.docker.distribution.manifest.v1+prettyjws"}',
        _manifest(layers=None),
        _manifest(layers=[1]),
        _manifest(layers=[{"mediaType": OCI_LAYER, "digest": "sha256:../../etc", "size": 3}]),
        _manifest(layers=[{"mediaType": OCI_LAYER, "digest": _DIGEST, "size": -1}]),
        _manifest(layers=[{"mediaType": OCI_LAYER, "digest": _DIGEST, "size": 1 << 62}]),
        _manifest(layers=[{"mediaType": "text/evil", "digest": _DIGEST, "size": 1}]),
        _manifest(config={"mediaType": "application/vnd.docker.plugin.v1+json", "digest": _DIGEST, "size": 2}),
        _manifest(config={"mediaType": OCI_CONFIG, "digest": _DIGEST, "size": 1 << 30}),
        _manifest(layers=[{"mediaType": OCI_LAYER, "digest": _DIGEST, "size": 1}] * 2000),
    ],
)
def test_a_manifest_that_cannot_be_used_is_refused(raw: bytes) -> None:
    with pytest.raises(InvalidParameter):
        read(raw)


@given(st.binary(max_size=300))
def test_any_bytes_are_a_manifest_or_refused(raw: bytes) -> None:
    try:
        read(raw)
    except InvalidParameter:
        return


@pytest.mark.parametrize(
    "document",
    [
        {"rootfs": {"diff_ids": []}},
        {"rootfs": {"diff_ids": ["sha256:x"]}},
        {"rootfs": {"diff_ids": [_DIGEST]}, "config": [1]},
        {"rootfs": {"diff_ids": [_DIGEST]}, "history": [1]},
        {"rootfs": 7},
    ],
)
def test_a_configuration_that_does_not_fit_is_refused(document: dict[str, Any]) -> None:
    with pytest.raises(InvalidParameter):
        read_config(orjson.dumps(document), 1)


def _header(name: str, size: int, kind: bytes) -> bytes:
    member = tarfile.TarInfo(name)
    member.type = kind
    member.size = size
    return member.tobuf(tarfile.GNU_FORMAT)


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME])
def test_a_header_of_gigabytes_is_not_read_into_memory(kind: bytes) -> None:
    class Zeros:
        read_bytes = 0

        def __init__(self) -> None:
            self.start = io.BytesIO(_header("x", 4 << 30, kind))

        def read(self, size: int, /) -> bytes:
            self.read_bytes += size
            assert self.read_bytes < 64 << 20
            return self.start.read(size) or bytes(size)

    with pytest.raises(ArchiveError):
        list(members(ForwardReader(Zeros(), 8 << 30), 10))


def test_an_archive_beyond_its_limits_is_given_up() -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for number in range(20):
            tar.addfile(tarfile.TarInfo(str(number)))
    with pytest.raises(ArchiveError, match="more than 10 files"):
        list(members(ForwardReader(io.BytesIO(out.getvalue()), 1 << 20), 10))
    with pytest.raises(ArchiveError, match="larger than 4096 bytes"):
        list(members(ForwardReader(io.BytesIO(out.getvalue()), 4096), 100))


@given(st.binary(max_size=4000))
def test_any_bytes_are_a_tar_or_refused(data: bytes) -> None:
    for content in (data, _header("a", 3, tarfile.REGTYPE) + data, _header("a", -512, tarfile.REGTYPE) + data):
        try:
            index(ForwardReader(io.BytesIO(content), 1 << 20))
        except ArchiveError:
            continue


@pytest.mark.parametrize(
    ("name", "expected"), [("./a//b/", "a/b"), ("/etc/passwd", "etc/passwd"), ("a/../../b", None), (".", "")]
)
def test_a_members_place_is_below_the_root(name: str, expected: str | None) -> None:
    assert normal_path(name) == expected


async def _content(data: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(data), 65536):
        yield data[start : start + 65536]


def _archive(**files: Any) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name.replace("_json", ".json"))
            if isinstance(content, str):
                member.type, member.linkname = tarfile.SYMTYPE, content
                tar.addfile(member)
                continue
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return out.getvalue()


def _row(**changes: Any) -> bytes:
    return orjson.dumps([{"Config": "c", "RepoTags": [], "Layers": ["l"], **changes}])


_CONFIG = orjson.dumps({"rootfs": {"type": "layers", "diff_ids": [_DIGEST]}})


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "empty file"),
        (b"garbage" * 1000, "archive/tar"),
        (_archive(x=b"1"), "neither manifest.json"),
        (_archive(manifest_json=b"null"), "cannot be null"),
        (_archive(manifest_json=b"{"), "manifest.json"),
        (_archive(manifest_json=b"[1]"), "invalid manifest"),
        (_archive(manifest_json=_row()), "has no file c"),
        (_archive(manifest_json=_row(Config="../../etc/passwd")), "has no file"),
        (_archive(manifest_json=_row(), c="/etc/passwd"), "has no file"),
        (_archive(manifest_json=_row(), c="c"), "has no file"),
        (_archive(manifest_json=_row(Layers=[]), c=_CONFIG), "layers length mismatch: expected 0, got 1"),
        (_archive(manifest_json=_row(), c=_CONFIG, l="../../../etc/passwd"), "has no file"),
        (_archive(manifest_json=_row(), c=_CONFIG, l=b"x" * 600), "invalid diffID for layer 0"),
        (
            _archive(manifest_json=_row(), c=orjson.dumps({"os": "windows", "rootfs": {"diff_ids": [_DIGEST]}})),
            "windows",
        ),
        (_archive(index_json=b"{}"), "list of manifests"),
        (_archive(index_json=orjson.dumps({"manifests": [{"digest": _DIGEST, "size": 1}]})), "has no file"),
        (gzip.compress(b"x" * 100, mtime=0)[:-4], "decompress"),
        (b"\x28\xb5\x2f\xfd" + b"x" * 100, "decompress"),
        (b"\xfd7zXZ\x00" + b"x" * 100, "decompress"),
    ],
)
async def test_an_archive_that_is_none_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(InvalidParameter, match=message):
        async with TarArchives().open(_content(data), None):
            pass


async def test_a_small_archive_that_unpacks_to_much_is_given_up() -> None:
    bomb = gzip.compress(bytes(32 << 20))
    with pytest.raises(InvalidParameter, match="unpacked"):
        async with TarArchives(size_limit=1 << 20).open(_content(bomb), None):
            pass


async def test_an_upload_over_the_limit_is_given_up() -> None:
    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield bytes(1 << 20)

    with pytest.raises(InvalidParameter, match="larger than"):
        async with TarArchives(size_limit=8 << 20).open(endless(), None):
            pass
