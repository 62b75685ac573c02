"""A registry as users have them elsewhere: another process, with or without authentication, on loopback."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass

import httpx


@dataclass
class Registry:
    """Where it is, and who may use it."""

    host: str
    user: str = ""
    password: str = ""

    def push(self, name: str, archive: bytes) -> str:
        """Stores a `docker save` archive's image under `repository:tag`; returns the manifest's digest."""
        repository, tag = name.rsplit(":", 1)
        auth = (self.user, self.password) if self.user else None
        with httpx.Client(base_url=f"http://{self.host}/v2/{repository}", auth=auth) as client:
            with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
                about = json.loads(_member(tar, "manifest.json"))[0]
                config = self._blob(client, _member(tar, about["Config"]), "application/vnd.oci.image.config.v1+json")
                layers = [
                    self._blob(client, _member(tar, path), "application/vnd.oci.image.layer.v1.tar")
                    for path in about["Layers"]
                ]
            media_type = "application/vnd.oci.image.manifest.v1+json"
            manifest = {"schemaVersion": 2, "mediaType": media_type, "config": config, "layers": layers}
            answer = client.put(f"/manifests/{tag}", content=json.dumps(manifest), headers={"Content-Type": media_type})
            return str(answer.raise_for_status().headers["Docker-Content-Digest"])

    def _blob(self, client: httpx.Client, data: bytes, media_type: str) -> dict[str, object]:
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        begun = client.post("/blobs/uploads/").raise_for_status()
        place = httpx.URL(begun.headers["Location"])
        url = httpx.URL(f"http://{self.host}").join(place).copy_merge_params({"digest": digest})
        client.put(url, content=data).raise_for_status()
        return {"mediaType": media_type, "digest": digest, "size": len(data)}


def _member(tar: tarfile.TarFile, name: str) -> bytes:
    file = tar.extractfile(name)
    assert file is not None
    return file.read()


@contextlib.contextmanager
def running_registry(user: str = "", password: str = "") -> Iterator[Registry]:
    """A registry of its own, ended afterwards."""
    with tempfile.TemporaryDirectory(prefix="registry-") as directory:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.registry", directory],
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"REGISTRY_USER": user, "REGISTRY_PASSWORD": password},
        )
        try:
            assert process.stdout is not None
            port = int(process.stdout.readline())
            yield Registry(f"127.0.0.1:{port}", user, password)
        finally:
            process.terminate()
            process.wait(10)


def _serve(directory: str) -> None:
    """The local cloud's registry alone, with users of its own."""
    import socket
    from pathlib import Path

    import uvicorn
    from starlette.applications import Starlette

    from local_cloud.calls import Calls
    from local_cloud.gcp.artifact_registry.auth import RegistryAuth
    from local_cloud.gcp.artifact_registry.model import Registry as Model
    from local_cloud.gcp.artifact_registry.service import RegistryFace
    from local_cloud.state import State

    user = os.environ["REGISTRY_USER"]
    users = {user: os.environ["REGISTRY_PASSWORD"]} if user else {}
    home = Path(directory)
    model = Model(State(home / "state.sqlite"), home / "registry")
    app = Starlette(routes=RegistryFace(model, RegistryAuth(users, "basic"), Calls()).routes())
    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)
    config = uvicorn.Config(app, log_config=None, access_log=False, lifespan="off")
    uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    _serve(sys.argv[1])
