"""gcsfuse's mount options as the local cloud has them: read, refused, and done to what is in the bucket."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from local_cloud.errors import ServiceError
from local_cloud.gcp.run.mount_options import MountOptions, parse


def test_documented_options_are_read() -> None:
    options = ["implicit-dirs", "only-dir=a/b", "file-mode=640", "dir-mode=0755", "uid=1000", "gid=-1"]
    assert parse(options, "x") == MountOptions("a/b", 0o640, 0o755, 1000, None)
    assert parse(["implicit-dirs=true"], "x") == MountOptions()


@pytest.mark.parametrize(
    ("option", "code"),
    [
        ("rename-dir-limit=10", "UNIMPLEMENTED"),
        ("metadata-cache-ttl-secs=0", "UNIMPLEMENTED"),
        ("implicit-dirs=false", "UNIMPLEMENTED"),
        ("file-mode=rw", "INVALID_ARGUMENT"),
        ("file-mode=7777", "INVALID_ARGUMENT"),
        ("uid=-2", "INVALID_ARGUMENT"),
        ("gid=", "INVALID_ARGUMENT"),
        ("only-dir=/etc", "INVALID_ARGUMENT"),
        ("only-dir=a/../..", "INVALID_ARGUMENT"),
    ],
)
def test_what_a_directory_cannot_have_is_refused(option: str, code: str) -> None:
    with pytest.raises(ServiceError) as refused:
        parse([option], "volumes[0].gcs.mount_options")
    assert refused.value.code == code
    assert "mount_options" in refused.value.message


def test_modes_are_given_to_what_is_there_and_links_are_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text("x")
    outside.chmod(0o600)
    bucket = tmp_path / "bucket"
    (bucket / "folder").mkdir(parents=True)
    (bucket / "folder" / "file").write_text("x")
    (bucket / "link").symlink_to(outside)
    (bucket / "into").symlink_to(tmp_path)
    MountOptions(file_mode=0o751, dir_mode=0o711).apply(bucket)
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in (bucket / "folder", bucket / "folder" / "file")}
    assert list(modes.values()) == [0o711, 0o751]
    assert stat.S_IMODE(outside.stat().st_mode) == 0o600


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_owners_are_given_to_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    MountOptions(uid=1000, gid=1001).apply(tmp_path)
    found = (tmp_path / "file").stat()
    assert (found.st_uid, found.st_gid) == (1000, 1001)
