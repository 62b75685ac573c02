"""Containers that answer HTTP, with the real runtime: busybox's httpd and nc."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from local_cloud.images import ImageContent
from local_cloud.instances import (
    ClientGone,
    Instance,
    InstanceFailed,
    Instances,
    InstanceSpec,
    UpstreamBroken,
    UpstreamTimeout,
    forward,
)
from local_cloud.options import Options
from local_cloud.runtime.api import LayerStore, Runtime
from local_cloud.server import LocalCloud
from tests.contract.forwarded_requests import Client
from tests.contract.runtime_userland import require_namespaces
from tests.images import busybox_layer

_PAGES = """
mkdir -p /www/cgi-bin; cd /www
printf 'hello from %s\\n' "$PORT" > index.html
printf '#!/bin/sh\\nprintf "Content-Type: text/plain\\\\r\\\\n\\\\r\\\\n"; cat; echo; env' > cgi-bin/echo
printf '#!/bin/sh\\ntouch /www/held; exec sleep 60' > cgi-bin/hold
chmod +x cgi-bin/*
exec httpd -f -p "$PORT" -h /www
"""


class World:
    """A runtime with the busybox image, and instances in it."""

    def __init__(self, runtime: Runtime, image: ImageContent, directory: Path) -> None:
        self.runtime, self.image, self.directory = runtime, image, directory
        self.instances = Instances(runtime, "bridge")

    def spec(self, name: str, script: str, port: int = 8080, **env: str) -> InstanceSpec:
        return InstanceSpec(
            id=name, image=self.image, argv=("/bin/sh", "-c", script), env=env, workdir="/", user="", mounts=(),
            memory_bytes=64 << 20, cpus=1, port=port,
            stdout=self.directory / "logs" / f"{name}.out", stderr=self.directory / "logs" / f"{name}.err",
        )  # fmt: skip

    async def started(self, name: str, script: str, port: int = 8080, **env: str) -> Instance:
        instance = await self.instances.start(self.spec(name, script, port, **env))
        assert await self.instances.probe(instance, 10)
        return instance


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    require_namespaces()
    data = tmp_path / "data"
    runtime = Runtime(data)
    await runtime.start()
    blob = tmp_path / "layer.tar"
    blob.write_bytes(busybox_layer())
    digest = f"sha256:{hashlib.sha256(blob.read_bytes()).hexdigest()}"
    layer = await LayerStore(data).unpack(digest, blob, "application/vnd.oci.image.layer.v1.tar")
    made = World(runtime, ImageContent(digest, (layer,), (), (), (), "/", ""), tmp_path)
    yield made
    await made.instances.detach()
    await runtime.shutdown()


async def test_a_request_is_answered_by_the_container(world: World) -> None:
    instance = await world.started("0-web", _PAGES, COLOUR="blue")
    answer = await forward(instance, Client("GET", "/").request, timeout=10)
    assert (answer.status_code, answer.body) == (200, f"hello from {instance.port}\n".encode())
    posted = Client("POST", "/cgi-bin/echo?a=b", [b"some ", b"body"], {"content-length": "9"})
    answer = await forward(instance, posted.request, timeout=10)
    assert bytes(answer.body).startswith(b"some body\n")
    assert b"QUERY_STRING=a=b\n" in answer.body
    assert b"COLOUR=blue\n" in answer.body
    assert (await forward(instance, Client("GET", "/none").request, timeout=10)).status_code == 404
    assert world.instances.running == 1


async def test_a_server_that_listens_late_is_waited_for(world: World) -> None:
    instance = await world.instances.start(world.spec("0-late", "sleep 0.3; exec nc -ll -p $PORT -e echo hi"))
    assert not await world.instances.probe(instance, 0.05)
    assert await world.instances.probe(instance, 10)


async def test_one_that_ends_before_it_listens_fails_its_probe_at_once(world: World) -> None:
    instance = await world.instances.start(world.spec("0-failing", "sleep 0.1; echo no >&2; exit 3"))
    async with asyncio.timeout(10):
        assert not await world.instances.probe(instance, 600)
    assert (await world.instances.wait("0-failing")).code == 3
    with pytest.raises(UpstreamBroken):
        await forward(instance, Client("GET", "/").request, timeout=10)
    assert (world.directory / "logs" / "0-failing.err").read_text() == "no\n"


async def test_one_that_ends_at_once_still_tells_how(world: World) -> None:
    for number in range(10):
        name = f"0-short-{number}"
        instance = await world.instances.start(world.spec(name, "exit 4"))
        assert (await world.instances.wait(name)).code == 4
        assert not await world.instances.probe(instance, 600)


async def test_what_cannot_be_started_is_refused_in_words(world: World) -> None:
    good = world.spec("0-bad", "true")
    bad = InstanceSpec(**{name: getattr(good, name) for name in good.__slots__} | {"argv": ("/no/such/program",)})
    with pytest.raises(InstanceFailed, match="/no/such/program"):
        await world.instances.start(bad)
    assert await world.instances.known("0-") == {}


async def test_a_later_process_finds_and_stops_it(world: World) -> None:
    instance = await world.started("0-kept", _PAGES)
    await world.instances.start(world.spec("1-site", "exec sleep 60"))
    ended = await world.instances.start(world.spec("0-ended", "true"))
    await world.instances.wait(ended.id)
    await world.instances.detach()
    await world.runtime.close()
    await world.runtime.start()
    later = Instances(world.runtime, "bridge")
    assert await later.known("0-") == {"0-kept": True, "0-ended": False}
    assert await later.adopt("0-ended", 8080) is None
    assert await later.adopt("0-never", 8080) is None
    found = await later.adopt("0-kept", instance.port)
    assert found is not None
    assert (found.address, found.port) == (instance.address, instance.port)
    assert await later.adopt("0-kept", instance.port) is found
    assert (await forward(found, Client("GET", "/").request, timeout=10)).status_code == 200
    await later.stop("0-kept", 0.1)
    assert (await later.wait("0-kept")).signal == 9
    await later.clear("0-kept")
    await later.clear("0-kept")
    with pytest.raises(InstanceFailed):
        await later.wait("0-kept")
    assert await later.known("") == {"0-ended": False, "1-site": True}
    await later.detach()


async def test_stop_waits_its_grace_then_kills(world: World) -> None:
    handles = "trap 'sleep 0.2; exit 5' TERM; while :; do sleep 0.02; done"
    await world.instances.start(world.spec("0-handles", handles))
    await world.instances.start(world.spec("0-deaf", "trap '' TERM; while :; do sleep 0.02; done"))
    await asyncio.sleep(0.3)
    await asyncio.gather(
        world.instances.stop("0-handles", 10), world.instances.stop("0-deaf", 0.2), world.instances.stop("0-none", 1)
    )
    assert (await world.instances.wait("0-handles")).code == 5
    assert (await world.instances.wait("0-deaf")).signal == 9
    await world.instances.stop("0-deaf", 10)


async def test_the_end_of_the_instance_ends_its_held_request(world: World) -> None:
    instance = await world.started("0-held", _PAGES)
    held = asyncio.create_task(forward(instance, Client("GET", "/cgi-bin/hold").request, timeout=60))
    await asyncio.sleep(0.2)
    assert not held.done()
    await world.instances.stop("0-held", 0)
    async with asyncio.timeout(10):
        with pytest.raises(UpstreamBroken):
            await held
    assert world.instances.running == 0


async def test_a_held_request_ends_at_its_time_or_with_its_client(world: World) -> None:
    instance = await world.started("0-slow", "exec nc -ll -p $PORT -e sleep 60")
    with pytest.raises(UpstreamTimeout):
        await forward(instance, Client("GET", "/").request, timeout=0.2)
    client = Client("POST", "/", [b"x"], {"content-length": "1"})
    held = asyncio.create_task(forward(instance, client.request, timeout=60))
    await asyncio.sleep(0.1)
    client.leave()
    with pytest.raises(ClientGone):
        await held
    assert world.instances.running == 1


async def test_addresses_where_the_network_is_shared(world: World) -> None:
    shared = Instances(world.runtime, "host")
    serve = "exec httpd -f -p 127.0.0.1:$PORT -h /etc"
    first, second = [await shared.start(world.spec(f"0-{number}", serve)) for number in (1, 2)]
    assert first.address == second.address == "127.0.0.1"
    assert first.port != second.port
    for instance in (first, second):
        assert await shared.probe(instance, 10)
        assert (await forward(instance, Client("GET", "/group").request, timeout=10)).status_code == 200
    await shared.detach()


async def test_it_outlives_the_local_cloud(world: World, tmp_path: Path) -> None:
    cloud = LocalCloud(tmp_path / "cloud", options=Options(idle_instance_seconds=1), runtime=world.runtime)
    await cloud.start()
    instance = await world.started("9-nobodys", _PAGES)
    await world.runtime.run(world.instances._launch(world.spec("job-1", "sleep 60"), 1))
    async with httpx.AsyncClient(base_url=cloud.http_url) as web:
        counted = (await web.get("/_local/resources")).json()
    assert counted["instances"] == 0  # the cloud's own
    await cloud.stop()
    await cloud.start()
    try:
        assert (await forward(instance, Client("GET", "/").request, timeout=10)).status_code == 200
        assert "job-1" not in await world.runtime.ids()  # an execution that nobody waits for is cleared, as before
    finally:
        await cloud.stop()
