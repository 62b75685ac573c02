"""`docker pull`, `load`, `images`, `tag`, `rmi` against registries with and without authentication."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterator

import pytest

from tests import images
from tests.e2e.endpoint import Endpoint
from tests.registry import Registry, running_registry


@pytest.fixture
def registry() -> Iterator[Registry]:
    with running_registry() as running:
        running.push("team/tool:1.0", images.busybox(Cmd=["echo", "pulled"], extra=os.urandom(1_000_000)))
        yield running


@pytest.fixture
def private() -> Iterator[Registry]:
    with running_registry(user="robot", password="s3cret") as running:
        running.push("team/tool:1.0", images.busybox(Cmd=["echo", "private"], extra=os.urandom(1000)))
        yield running


def test_pull_with_progress_then_run(endpoint: Endpoint, registry: Registry) -> None:
    reference = f"{registry.host}/team/tool:1.0"
    seen = endpoint.out("pull", reference)
    assert "1.0: Pulling from team/tool" in seen
    assert "Pull complete" in seen
    assert "Digest: sha256:" in seen
    assert f"Status: Downloaded newer image for {reference}" in seen
    assert f"Status: Image is up to date for {reference}" in endpoint.out("pull", reference)
    assert endpoint.out("run", "--rm", reference) == "pulled"


def test_run_pulls_what_is_missing(endpoint: Endpoint, registry: Registry) -> None:
    registry.push("team/other:2", images.busybox(Cmd=["echo", "fetched by run"]))
    assert endpoint.out("run", "--rm", f"{registry.host}/team/other:2") == "fetched by run"


def test_unknown_tag_and_repository(endpoint: Endpoint, registry: Registry) -> None:
    done = endpoint.docker("pull", f"{registry.host}/team/tool:9")
    assert done.returncode == 1
    assert b"manifest unknown" in done.stderr
    assert endpoint.docker("pull", f"{registry.host}/no/such").returncode == 1


def test_private_registry_wants_the_right_credentials(endpoint: Endpoint, private: Registry) -> None:
    reference = f"{private.host}/team/tool:1.0"
    refused = endpoint.docker("pull", reference)
    assert refused.returncode == 1
    assert (
        b"no basic auth credentials" in refused.stderr
        or b"denied" in refused.stderr
        or b"authentication required" in refused.stderr
    )
    wrong = endpoint.docker("login", "-u", "robot", "--password-stdin", private.host, stdin=b"wrong")
    assert wrong.returncode == 1
    config = endpoint.data / "docker-config" / "config.json"
    token = base64.b64encode(b"robot:s3cret").decode()
    before = json.loads(config.read_text()) if config.exists() else {}
    config.write_text(json.dumps(before | {"auths": {private.host: {"auth": token}}}))
    try:
        endpoint.out("login", "-u", "robot", "--password-stdin", private.host, stdin=b"s3cret")
        assert "Downloaded newer image" in endpoint.out("pull", reference)
        assert endpoint.out("run", "--rm", reference) == "private"
    finally:
        config.write_text(json.dumps(before))


def test_tag_list_and_remove(endpoint: Endpoint) -> None:
    endpoint.out("load", stdin=images.busybox("mine:1", Labels={"made": "here"}))
    endpoint.out("tag", "mine:1", "example.com/mine:2")
    listed = endpoint.out("images", "--filter", "label=made=here", "--format", "{{.Repository}}:{{.Tag}}").splitlines()
    assert sorted(listed) == ["example.com/mine:2", "mine:1"]
    identifier = endpoint.out("images", "-q", "--no-trunc", "mine:1")
    assert endpoint.out("inspect", "-f", "{{.Id}}", "example.com/mine:2") == identifier
    assert endpoint.out("rmi", "example.com/mine:2") == "Untagged: example.com/mine:2"
    assert "Deleted: sha256:" in endpoint.out("rmi", "mine:1")
    assert endpoint.docker("inspect", identifier).returncode == 1


def test_image_in_use_is_not_removed(endpoint: Endpoint, name: str) -> None:
    endpoint.out("load", stdin=images.busybox("used:1", Labels={"use": "d"}))
    endpoint.out("create", "--name", name, "used:1")
    done = endpoint.docker("rmi", "used:1")
    assert done.returncode == 1
    assert b"conflict" in done.stderr
    endpoint.out("rm", name)
    endpoint.out("rmi", "used:1")


def test_load_refuses_what_is_no_image(endpoint: Endpoint) -> None:
    assert endpoint.docker("load", stdin=b"not a tar" * 1000).returncode == 1


def test_image_defaults_are_used(endpoint: Endpoint) -> None:
    endpoint.out(
        "load",
        stdin=images.busybox(
            "defaults:1", Entrypoint=["echo", "entry"], Cmd=["cmd"], Env=["A=image"], WorkingDir="/var", User="app"
        ),
    )
    assert endpoint.out("run", "--rm", "defaults:1") == "entry cmd"
    assert endpoint.out("run", "--rm", "defaults:1", "other") == "entry other"
    assert (
        endpoint.out("run", "--rm", "--entrypoint", "sh", "defaults:1", "-c", "echo $A; pwd; id -un")
        == "image\n/var\napp"
    )
