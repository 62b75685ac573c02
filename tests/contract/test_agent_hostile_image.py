"""An image whose own files are laid out against the agent, while whole exports are mounted below `/.sockerless`."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.contract.agent_container import agent, spec

EXPORT = ".sockerless/volumes/0"
_BIND: dict[str, Any] = {"type": "bind", "source": f"/{EXPORT}", "target": "/data", "copy_up": True, "create": True}


def _lay_out(root: Path) -> Path:
    """An export with one volume and somebody else's files."""
    export = root / EXPORT
    (export / "volume").mkdir(parents=True)
    (export / "others").mkdir()
    (export / "others/secret").write_text("theirs")
    return export


def _mount_export(pid: int, export: Path) -> None:
    """What is mounted from elsewhere, in the container's mount namespace."""
    mount = ["nsenter", "--target", str(pid), "--mount", "mount", "-t", "tmpfs", "export", str(export)]
    subprocess.run(mount, check=True)


def _mount_points(pid: int) -> list[str]:
    return [line.split()[4] for line in Path(f"/proc/{pid}/mountinfo").read_text().splitlines()]


@pytest.mark.parametrize(
    ("link", "target", "fields"),
    [
        ("etc/hostname", f"/{EXPORT}/others/secret", {}),
        ("etc/hosts", f"/{EXPORT}/others/secret", {"extra_hosts": ["db:10.0.0.2"]}),
        ("etc/resolv.conf", f"/{EXPORT}/others/secret", {"dns": ["9.9.9.9"]}),
        ("data", f"/{EXPORT}/others", {}),
        ("data", "way/others", {}),
    ],
)
async def test_a_symlink_into_the_platforms_volumes_is_refused(
    tmp_path: Path, link: str, target: str, fields: dict[str, Any]
) -> None:
    async with agent(tmp_path) as (peer, container):
        export = _lay_out(container.root)
        (container.root / "way").symlink_to(f"/{EXPORT}")
        (container.root / link).unlink(missing_ok=True)
        (container.root / link).symlink_to(target)
        mounts = [{**_BIND, "subpath": "volume"}]
        failed = await peer.start(spec("true", mounts=mounts, sources=[f"/{EXPORT}"], **fields))
        assert failed["type"] == "failed"
        assert "a symlink in the image leads into the platform's volumes" in failed["message"]
        assert (export / "others/secret").read_text() == "theirs"
        assert list((export / "volume").iterdir()) == []
        assert [path.name for path in (export / "others").iterdir()] == ["secret"]


async def test_etc_itself_may_not_be_a_link_into_the_platforms_volumes(tmp_path: Path) -> None:
    async with agent(tmp_path) as (peer, container):
        export = _lay_out(container.root)
        (container.root / "etc").rename(container.root / "etc.old")
        (container.root / "etc").symlink_to(f"/{EXPORT}/others")
        failed = await peer.start(spec("true", mounts=[{**_BIND, "subpath": "volume"}], sources=[f"/{EXPORT}"]))
        assert failed["type"] == "failed"
        assert [path.name for path in (export / "others").iterdir()] == ["secret"]


async def test_exports_are_detached_although_the_start_fails(tmp_path: Path) -> None:
    async with agent(tmp_path) as (peer, container):
        _mount_export(container.pid, _lay_out(container.root))
        mounts = [{**_BIND, "subpath": "volume"}, {"type": "unheard-of", "target": "/x"}]
        fields = {"mounts": mounts, "sources": [f"/{EXPORT}"], "linger_seconds": -1}
        failed = await peer.start(spec("true", **fields))
        assert failed["type"] == "failed"
        points = _mount_points(container.pid)
        assert "/data" in points
        assert f"/{EXPORT}" not in points
