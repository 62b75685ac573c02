"""A connector in a company's network: `HTTPS_PROXY`, `NO_PROXY`, `--ca`; requests, uploads and streams alike."""

from __future__ import annotations

import asyncio
import hashlib
import os
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from agent_gateway.forwarding.address import proxy_for
from tests import images
from tests.contract.connect_certificates import certificate
from tests.contract.connect_endpoint import Connected, FarEndpoint
from tests.contract.connect_proxies import NAME, ConnectProxy, tls_front
from tests.contract.test_connect_uploads import SIZE, FrontEnd, connected, pieces, served
from tests.free_ports import free_port

VARIABLES = ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "NO_PROXY", "SSL_CERT_FILE")


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@dataclass
class World:
    """An endpoint at `https://docker.test:PORT`, the way there, and its certificate."""

    url: str
    directory: Path
    ca: Path

    @asynccontextmanager
    async def connector(self, *arguments: str, url: str = "") -> AsyncIterator[Connected]:
        """A process with this one's environment, started; it may have ended already."""
        with tempfile.TemporaryDirectory(prefix="skls-") as name:
            found = Connected(Path(name), url=url or self.url, arguments=arguments)
            await asyncio.to_thread(found.start)
            try:
                yield found
            finally:
                await asyncio.to_thread(found.down)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    with tempfile.TemporaryDirectory(prefix="skls-", ignore_cleanup_errors=True) as name:
        directory = Path(name)
        certificate(directory, NAME)
        inside = free_port()
        async with tls_front(directory, inside) as port:
            url = f"https://{NAME}:{port}"
            far = FarEndpoint(directory / "far", port=inside, public=url)
            try:
                await asyncio.to_thread(far.start)
                yield World(url, directory, directory / "cert.pem")
            finally:
                await asyncio.to_thread(far.down)


async def docker(endpoint: Connected, *words: str, stdin: bytes = b"") -> bytes:
    ended = await asyncio.to_thread(endpoint.docker, *words, stdin=stdin)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


async def test_everything_goes_through_the_proxy_with_its_login(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    proxy = ConnectProxy("me:p@ss")
    async with proxy.serving() as port:
        monkeypatch.setenv("HTTPS_PROXY", f"http://me:p%40ss@127.0.0.1:{port}")
        async with world.connector("--ca", str(world.ca)) as near:
            assert near.address, near.log.read_text()
            assert b"Loaded image" in await docker(near, "load", stdin=images.busybox())
            data = os.urandom(1 << 20)
            assert await docker(near, "run", "-i", "--name", "proxied", "busybox", "cat", stdin=data) == data
            asked = len(proxy.asked)
            await docker(near, "start", "proxied")
            assert await docker(near, "run", "--rm", "busybox", "echo", "again") == b"again\n"
            assert len(proxy.asked) > asked, "each stream is a connection of its own"
            await docker(near, "rm", "-f", "proxied")
            assert "p@ss" not in near.log.read_text()
    target = world.url.removeprefix("https://")
    assert {line.split(" ")[1] for line in proxy.asked} == {target}
    assert {line.split(" ")[0] for line in proxy.asked} == {"CONNECT"}
    assert proxy.refused == 0


async def test_wrong_login_at_the_proxy_is_told(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    proxy = ConnectProxy("me:right")
    async with proxy.serving() as port:
        monkeypatch.setenv("HTTPS_PROXY", f"http://me:wrong@127.0.0.1:{port}")
        async with world.connector("--ca", str(world.ca)) as near:
            assert (near.address, near.process and near.process.returncode) == ("", 1)
            said = near.log.read_text()
    assert f"{world.url} can't be reached: 407" in said
    assert "wrong" not in said
    assert proxy.refused


async def test_no_proxy_names_what_is_dialled_directly(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The endpoint is not to be found that way: nobody but the proxy knows its name."""
    proxy = ConnectProxy()
    async with proxy.serving() as port:
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{port}")
        monkeypatch.setenv("NO_PROXY", f"example.com,{NAME}")
        async with world.connector("--ca", str(world.ca)) as near:
            assert (near.address, near.process and near.process.returncode) == ("", 1)
            assert "can't be reached" in near.log.read_text()
    assert proxy.asked == []


async def test_only_the_given_certificates_are_trusted(world: World, tmp_path: Path) -> None:
    """Without a proxy. That streams trust them is seen where everything goes through one."""
    near_url = world.url.replace(NAME, "localhost")
    certificate(tmp_path)
    async with world.connector("--ca", str(tmp_path / "cert.pem"), url=near_url) as near:
        assert near.address == ""
        assert "certificate verify failed" in near.log.read_text()
    async with world.connector("--ca", str(tmp_path / "no-such-file"), url=near_url) as near:
        assert near.address == ""
        assert "no-such-file cannot be read: No such file or directory" in near.log.read_text()


async def test_a_certificate_of_another_name_is_refused(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    certificate(world.directory)  # for localhost alone
    proxy = ConnectProxy()
    async with proxy.serving() as port, tls_front(world.directory, 1) as other:
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{port}")
        url = f"https://{NAME}:{other}"
        async with world.connector("--ca", str(world.ca), url=url) as near:
            assert near.address == ""
            assert "certificate is not valid for 'docker.test'" in near.log.read_text()


async def test_uploads_over_http_2_go_through_the_proxy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    certificate(tmp_path, NAME)
    data, app, proxy = os.urandom(SIZE), FrontEnd(), ConnectProxy("me:right")
    async with proxy.serving() as port, served(app, tmp_path, ["h2", "http/1.1"]) as url:
        monkeypatch.setenv("HTTPS_PROXY", f"http://me:right@127.0.0.1:{port}")
        async with connected(url.replace("localhost", NAME), tmp_path) as client:
            answer = await client.post("/v1.50/images/load", content=pieces(data))
            assert (answer.status_code, answer.json()) == (200, {"size": SIZE})
    assert app.requests == [("POST", "2", SIZE, hashlib.sha256(data).hexdigest())]
    assert len(proxy.asked) == 1


async def test_proxy_that_refuses_an_upload_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    certificate(tmp_path, NAME)
    proxy = ConnectProxy("me:right")
    async with proxy.serving() as port, served(FrontEnd(), tmp_path, ["h2"]) as url:
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{port}")
        async with connected(url.replace("localhost", NAME), tmp_path) as client:
            answer = await client.post("/v1.50/images/load", content=pieces(bytes(1 << 20)))
    assert answer.status_code == 503
    assert "the proxy answered 407" in answer.json()["message"]


@pytest.mark.parametrize(
    ("variables", "url", "proxy"),
    [
        ({"HTTPS_PROXY": "http://p:3128"}, "https://docker.example.com", "http://p:3128"),
        ({"HTTPS_PROXY": "http://p:3128"}, "wss://docker.example.com/streams/1", "http://p:3128"),
        ({"https_proxy": "p:3128"}, "https://docker.example.com", "http://p:3128"),
        ({"HTTP_PROXY": "http://p:3128"}, "https://docker.example.com", None),
        ({"HTTP_PROXY": "http://p:3128"}, "http://10.0.0.1:8080", "http://p:3128"),
        ({"ALL_PROXY": "http://p:3128"}, "https://docker.example.com", "http://p:3128"),
        ({"HTTPS_PROXY": "http://p:3128"}, "https://localhost:8080", None),
        ({"HTTPS_PROXY": "http://p:3128"}, "https://127.0.0.1:8080", None),
        ({"HTTPS_PROXY": "http://p:3128", "NO_PROXY": "docker.example.com"}, "https://docker.example.com", None),
        ({"HTTPS_PROXY": "http://p:3128", "NO_PROXY": ".example.com"}, "https://docker.example.com:8443", None),
        ({"HTTPS_PROXY": "http://p:3128", "NO_PROXY": "example.com"}, "wss://docker.example.com", None),
        ({"HTTPS_PROXY": "http://p:3128", "NO_PROXY": "*"}, "https://docker.example.com", None),
        ({"HTTPS_PROXY": "http://p:3128", "NO_PROXY": "ample.com"}, "https://docker.example.com", "http://p:3128"),
        ({"HTTPS_PROXY": "http://p:3128", "NO_PROXY": "other.com"}, "https://docker.example.com", "http://p:3128"),
    ],
)
def test_variables_say_what_goes_through_a_proxy(
    variables: dict[str, str], url: str, proxy: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert proxy_for(url) == proxy
