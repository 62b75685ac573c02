"""How the agent reaches its gateway: TLS, a unix socket; and as whom it runs."""

from __future__ import annotations

import asyncio
import datetime
import hashlib
import ipaddress
import ssl
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.contract.agent_container import AgentContainer, agent, busybox_root, needs_namespaces, spec
from tests.contract.agent_peer import AgentPeer


def _certificate(directory: Path) -> tuple[Path, Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "gateway")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem, private = directory / "cert.pem", directory / "key.pem"
    pem.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    encoding, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    private.write_bytes(key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, plain))
    return pem, private


async def _echo(peer: AgentPeer) -> None:
    await peer.hello()
    end = peer.attach()
    await peer.start(spec("cat", open_stdin=True, stdin_once=True), [end.id])
    data = hashlib.shake_128(b"tls").digest(3_000_000)
    await end.send(data)
    end.eof()
    await end.end()
    assert end.demultiplexed()[0] == data
    assert end.exit_code == 0


async def test_https_with_an_authority_of_ssl_cert_file(tmp_path: Path) -> None:
    needs_namespaces()
    certificate, key = _certificate(tmp_path)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, key)
    root = busybox_root(tmp_path / "root")
    (root / "ca.pem").write_bytes(certificate.read_bytes())
    async with AgentPeer(tls) as peer:
        container = AgentContainer(root, peer.url)
        try:
            await _echo(peer)
        finally:
            container.end()


async def test_https_with_an_unknown_authority_is_refused(tmp_path: Path) -> None:
    needs_namespaces()
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(*_certificate(tmp_path))
    async with AgentPeer(tls) as peer:
        container = AgentContainer(busybox_root(tmp_path / "root"), peer.url, timeout=0.5)
        try:
            assert await container.exit_code() == 125
            assert "certificate" in container.stderr.read_text()
            assert not peer.hellos
        finally:
            container.end()


async def test_a_unix_socket(tmp_path: Path) -> None:
    needs_namespaces()
    root = busybox_root(tmp_path / "root")
    async with AgentPeer() as peer:

        async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            there, back = await asyncio.open_connection("127.0.0.1", peer.port)

            async def copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
                while data := await source.read(65536):
                    sink.write(data)
                    await sink.drain()
                sink.close()

            await asyncio.gather(copy(reader, back), copy(there, writer))

        server = await asyncio.start_unix_server(relay, root / "gw.sock")
        container = AgentContainer(root, "unix:///gw.sock")
        try:
            await _echo(peer)
        finally:
            container.end()
            server.close()


async def test_one_gateway_of_several_that_lives_is_found(tmp_path: Path) -> None:
    needs_namespaces()
    root = busybox_root(tmp_path / "root")
    async with AgentPeer() as peer:
        # One refuses, one takes connections and says nothing of a websocket, one is what is wanted.
        async def other(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n")
            writer.close()

        front_end = await asyncio.start_server(other, "127.0.0.1", 0)
        port = front_end.sockets[0].getsockname()[1]
        container = AgentContainer(root, f"http://127.0.0.1:9 http://127.0.0.1:{port} {peer.url}")
        try:
            await _echo(peer)
        finally:
            container.end()
            front_end.close()


async def test_a_gateway_without_tls_is_not_dialled_in_the_place_of_one_with_it(tmp_path: Path) -> None:
    needs_namespaces()
    root = busybox_root(tmp_path / "root")
    async with AgentPeer() as peer:
        container = AgentContainer(root, f"https://127.0.0.1:9 {peer.url}", timeout=1)
        try:
            assert await container.exit_code() == 125
            assert not peer.hellos
        finally:
            container.end()


async def test_an_address_that_is_none_ends_the_agent_at_once(tmp_path: Path) -> None:
    needs_namespaces()
    root = busybox_root(tmp_path / "root")
    async with AgentPeer() as peer:
        container = AgentContainer(root, f"{peer.url} ftp://127.0.0.1")
        try:
            assert await container.exit_code() == 125
            assert "callback URL scheme" in container.stderr.read_text()
        finally:
            container.end()


async def test_an_agent_that_is_not_root_runs_its_own_user_and_no_other(tmp_path: Path) -> None:
    async with agent(tmp_path, user="1000:1001") as (peer, _):
        end = peer.attach()
        fields = {"user": "1000:1001", "linger_seconds": -1, "workdir": "/tmp"}
        await peer.start(spec("sh", "-c", "id -u; id -g; pwd", **fields), [end.id])
        assert (await end.end()).demultiplexed()[0] == b"1000\n1001\n/tmp\n"
        logs = await peer.open("logs", stdout=True, stderr=True, tail=-1).end()
        assert logs.demultiplexed()[0] == b"1000\n1001\n/tmp\n"
        await peer.call("start", spec=spec("true", run=2, user="0"), streams=[])
        failed = await peer.event("failed")
        assert failed["code"] == 125
        assert "runs this container as uid 1000" in failed["message"]
