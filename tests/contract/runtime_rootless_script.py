"""Run by test_runtime_rootless as an ordinary user, with an interpreter that user may read: prints what came out."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import os
import sys
import tarfile
from pathlib import Path
from typing import Any

_MERGED = ("bin", "sbin", "lib", "lib64", "lib32")


def _layer_tar() -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name in _MERGED:
            if Path("/", name).is_symlink():
                link = tarfile.TarInfo(name)
                link.type, link.linkname = tarfile.SYMTYPE, os.readlink(f"/{name}")
                tar.addfile(link)
        for name, kind, mode, uid in (
            ("etc/.wh..wh..opq", tarfile.REGTYPE, 0o644, 0),
            ("home", tarfile.DIRTYPE, 0o755, 0),
            ("tmp", tarfile.DIRTYPE, 0o1777, 0),
            ("mnt", tarfile.DIRTYPE, 0o755, 0),
            ("home/.wh.gone", tarfile.REGTYPE, 0o644, 0),
            ("home/app", tarfile.DIRTYPE, 0o700, 1000),
            ("dev/sda", tarfile.BLKTYPE, 0o660, 0),
        ):
            member = tarfile.TarInfo(name)
            member.type, member.mode, member.uid, member.gid = kind, mode, uid, uid
            tar.addfile(member)
    return out.getvalue()


async def _main(directory: Path) -> dict[str, Any]:
    from local_cloud.runtime.api import LayerStore, MountSpec, RunSpec, Runtime, RuntimeRefused

    runtime = Runtime(directory / "data")
    try:
        await runtime.start()
    except RuntimeRefused as refused:
        return {"skip": str(refused)}
    content = _layer_tar()
    blob = directory / "blob"
    blob.write_bytes(content)
    digest = "sha256:" + hashlib.sha256(content).hexdigest()
    store = LayerStore(directory / "data")
    layer = await store.unpack(digest, blob, "application/vnd.oci.image.layer.v1.tar")
    below = directory / "below"
    (below / "home").mkdir(parents=True)
    (below / "home/gone").touch()
    (below / "etc").mkdir()
    (below / "etc/old").touch()
    results: dict[str, Any] = {"shortcomings": runtime.shortcomings, "network": runtime.network}

    async def sh(name: str, script: str, user: str) -> None:
        spec = RunSpec(
            id=name, layers=(below, layer), argv=("/bin/sh", "-c", script), env={}, workdir="/", user=user,
            hostname="b", mounts=(MountSpec(Path("/usr"), "/usr", True),), memory_bytes=64 << 20, cpus=1.0,
            stdout=directory / f"{name}.out", stderr=directory / f"{name}.err",
        )  # fmt: skip
        try:
            await runtime.run(spec)
            status = await runtime.wait(name)
            results[name] = [status.code, spec.stdout.read_text(), spec.stderr.read_text()]
        except RuntimeRefused as refused:
            results[name] = [refused.kind, str(refused), ""]

    await sh(
        "root",
        "set -e; id -u; ls /home; ls /etc | wc -l; mount -t tmpfs none /mnt; hostname x; hostname; echo $$",
        "",
    )
    await sh("other", "id -u; id -g; touch /tmp/x && ls /tmp", "77:88")
    await sh("files", "stat -c %u /home/app; touch /home/app/x /new; chown 5:5 /new && stat -c %u /new", "")
    for name in ("root", "other", "files"):
        if name in await runtime.ids():
            await runtime.remove(name)
    await store.remove_unused(set())
    await runtime.shutdown()
    results["left"] = [
        path.name
        for place in ("layers/sha256", "layers/tmp", "trash")
        for path in (directory / "data" / place).iterdir()
    ]
    return results


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    print(json.dumps(asyncio.run(_main(Path(sys.argv[1])))))
