"""Client certificates in direct mode: docker CLI, HAProxy as the modules set it up, gateway and control plane."""

from __future__ import annotations

import contextlib
import hashlib
import json
import random
import shutil
import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests import images
from tests.contract.direct_endpoint import Direct, direct_endpoint, haproxy_configuration
from tests.proxy_headers import certified, header

_MISSING = [program for program in ("docker", "haproxy", "busybox") if shutil.which(program) is None]
pytestmark = pytest.mark.skipif(bool(_MISSING), reason=f"not installed on this machine: {', '.join(_MISSING)}")
FORGED = ("X-Sockerless-Client-Certificate", "X-Sockerless-Attested", "X-Sockerless-Proxy")


@pytest.fixture(scope="module")
def direct(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Direct]:
    with direct_endpoint(tmp_path_factory.mktemp("direct")) as endpoint:
        endpoint.out("ci", "load", stdin=images.busybox())
        yield endpoint


@pytest.fixture(scope="module")
def container(direct: Direct) -> str:
    """`acme`'s, running."""
    return direct.out("ci", "run", "-d", "--name", "lasting", "busybox", "sleep", "1000")


def test_a_certificate_is_enough(direct: Direct) -> None:
    assert direct.out("ci", "run", "--rm", "busybox", "echo", "hello") == "hello"
    mine = [line for line in direct.audit() if line["subject"] == "certificate:CN=ci"]
    assert {line["tenant"] for line in mine} == {"acme"}
    actions = {line["action"] for line in mine}
    # Forwarded requests and hijacked ones alike.
    assert {"POST /containers/create", "POST /containers/{id}/attach", "POST /containers/{id}/start"} <= actions
    assert all(line["gateway"] == f"http://{direct.relay}" and line["address"] == "127.0.0.1" for line in mine)


def test_stdin_is_half_closed_through_tls(direct: Direct, container: str) -> None:
    data = random.Random(7).randbytes(5_000_000)
    said = direct.out("ci", "run", "-i", "--rm", "busybox", "sha256sum", stdin=data)
    assert said.split()[0] == hashlib.sha256(data).hexdigest()
    assert direct.docker("ci", "exec", "-i", container, "cat", stdin=data).stdout == data


def test_the_scope_is_the_rules(direct: Direct, container: str) -> None:
    assert direct.out("eye", "ps", "-q", "--no-trunc") == container
    refused = direct.docker("eye", "run", "--rm", "busybox", "true")
    assert refused.returncode != 0
    assert b"scope `read`" in refused.stderr
    refused = direct.docker("eye", "exec", container, "true")
    assert b"scope `read`" in refused.stderr
    assert any(
        line["subject"] == "certificate:CN=eye"
        and line["action"] == "POST /containers/create"
        and line["status"] == 403
        for line in direct.audit()
    )


def test_without_a_certificate_a_token_is_wanted(direct: Direct, container: str) -> None:
    refused = direct.docker("nobody", "ps")
    assert refused.returncode != 0
    assert b"wants a token" in refused.stderr
    assert b"wants a token" in direct.docker("nobody", "attach", container).stderr
    # The token's tenant is another: it has nothing of the certificate's.
    assert direct.out("nobody", "ps", "-aq", token=direct.token) == ""
    assert b"No such container" in direct.docker("nobody", "exec", container, "true", token=direct.token).stderr


def test_a_token_goes_before_a_certificate(direct: Direct, container: str) -> None:
    assert direct.out("ci", "ps", "-aq", token=direct.token) == ""
    assert direct.docker("ci", "ps", token="skls_no_such").returncode != 0


def test_a_certificate_without_a_rule(direct: Direct, container: str) -> None:
    refused = direct.docker("unknown", "ps")
    assert b"the client certificate is not one that this endpoint gives access" in refused.stderr
    refused = direct.docker("unknown", "exec", container, "true")
    assert b"the client certificate is not one that this endpoint gives access" in refused.stderr
    assert direct.out("unknown", "ps", "-q", token=direct.token) == ""


@contextlib.contextmanager
def tls(direct: Direct, who: str, source: str = "127.0.0.1", port: int = 0) -> Iterator[ssl.SSLSocket]:
    context = ssl.create_default_context(cafile=str(direct.certificates[who] / "ca.pem"))
    if who != "nobody":
        context.load_cert_chain(direct.certificates[who] / "cert.pem", direct.certificates[who] / "key.pem")
    raw = socket.create_connection(("127.0.0.1", port or direct.port), 20, source_address=(source, 0))
    with context.wrap_socket(raw, server_hostname="localhost") as connection:
        yield connection


def ask(connection: socket.socket, method: str, path: str, body: bytes = b"", *headers: str) -> tuple[int, bytes]:
    """One request on a connection that ends after it."""
    head = [f"{method} {path} HTTP/1.1", "Host: d", "Connection: close", f"Content-Length: {len(body)}", *headers]
    connection.sendall("\r\n".join([*head, "", ""]).encode() + body)
    answer = b""
    while data := connection.recv(65536):
        answer += data
    if not answer:
        raise ConnectionResetError("closed without an answer")
    head_text, _, content = answer.partition(b"\r\n\r\n")
    return int(head_text.split()[1]), content


def test_a_certificate_of_another_ca_is_refused_at_tls(direct: Direct) -> None:
    """Same name, other CA. The docker CLI knows which CAs are asked for, and shows no other's certificate."""
    before = len(direct.audit())
    with pytest.raises((ssl.SSLError, ConnectionResetError)), tls(direct, "stranger") as connection:
        ask(connection, "POST", "/containers/x/kill", b"", f"Authorization: Bearer {direct.token}")
    assert len(direct.audit()) == before
    refused = direct.docker("stranger", "run", "--rm", "busybox", "true")
    assert b"wants a token" in refused.stderr


def test_the_audit_log_has_the_clients_address(direct: Direct, container: str) -> None:
    with tls(direct, "ci", source="127.0.0.9") as connection:
        assert ask(connection, "POST", "/containers/nosuch/kill")[0] == 404
    line = next(line for line in direct.audit() if line["target"] == "nosuch")
    assert (line["address"], line["subject"]) == ("127.0.0.9", "certificate:CN=ci")
    with tls(direct, "nobody", source="127.0.0.8") as connection:
        assert ask(connection, "POST", "/containers/nobodys/kill")[0] == 401
    line = next(line for line in direct.audit() if line["target"] == "nobodys")
    assert (line["address"], line["subject"], line["outcome"]) == ("127.0.0.8", "", "refused")


def test_a_client_cannot_take_out_the_gateways_word(direct: Direct) -> None:
    hops = "Connection: close, x-sockerless-attested"
    with tls(direct, "ci", source="127.0.0.7") as connection:
        assert ask(connection, "POST", "/containers/hidden/kill", b"", hops)[0] == 404
    assert next(line for line in direct.audit() if line["target"] == "hidden")["address"] == "127.0.0.7"


def test_early_bytes_of_a_hijack_in_one_record(direct: Direct, container: str) -> None:
    wanted = {"Cmd": ["cat"], "AttachStdin": True, "AttachStdout": True, "Tty": False}
    kind = "Content-Type: application/json"
    with tls(direct, "ci") as connection:
        status, made = ask(connection, "POST", f"/containers/{container}/exec", json.dumps(wanted).encode(), kind)
        assert status == 201
    body = b'{"Detach":false,"Tty":false}'
    head = f"POST /exec/{json.loads(made)['Id']}/start HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n"
    head += f"{kind}\r\nContent-Length: {len(body)}\r\n\r\n"
    with tls(direct, "ci") as connection:
        connection.sendall(head.encode() + body + b"early ")
        answer = b""
        while b"early " not in answer:
            answer += connection.recv(65536)
        assert answer.startswith(b"HTTP/1.1 101 ")
        connection.sendall(b"late")
        while b"late" not in answer:
            answer += connection.recv(65536)


@pytest.mark.parametrize("name", FORGED)
@pytest.mark.parametrize("who", ["nobody", "unknown"])
def test_forged_headers_are_refused_at_every_door(direct: Direct, name: str, who: str) -> None:
    forged = f"{name}: CN=ci"
    for more in ([], [f"Authorization: Bearer {direct.token}"]):
        for method, path in (("GET", "/containers/json"), ("POST", "/containers/x/attach?stream=1")):
            with tls(direct, who) as connection:
                status, body = ask(connection, method, path, b"", forged, *more)
            assert (status, name.lower() in json.loads(body)["message"]) == (403, True)
    # The control plane itself, without a gateway in between.
    told = {name: "CN=ci"}
    status = httpx.get(f"{direct.plane.url}/containers/json", headers=told, timeout=20).status_code
    assert status == (401 if name == "X-Sockerless-Proxy" else 403)


def test_nobody_talks_to_the_gateway_but_through_the_proxy(direct: Direct) -> None:
    with socket.create_connection(("127.0.0.1", direct.gateway_port), 20) as connection:
        connection.sendall(b"GET /_ping HTTP/1.1\r\nHost: d\r\n\r\n")
        with contextlib.suppress(ConnectionResetError):
            assert connection.recv(100) == b""
    # A header inside TLS is the client's own text, not the proxy's.
    with tls(direct, "nobody") as connection:
        connection.sendall(certified() + b"GET /_ping HTTP/1.1\r\nHost: d\r\n\r\n")
        answer = connection.recv(65536)
        assert answer == b"" or answer.startswith(b"HTTP/1.1 400 ")


def test_a_gateway_on_the_control_planes_machine_opens_nothing_of_that_machines(direct: Direct) -> None:
    """Its own connections come from loopback, for which the control plane has its metrics."""
    with tls(direct, "ci") as connection:
        assert ask(connection, "GET", "/metrics")[0] == 401
    with socket.create_connection(("127.0.0.1", direct.gateway_port), 20) as connection:
        connection.sendall(header(command=0x20, family=0))
        assert ask(connection, "GET", "/metrics")[0] == 401


def test_certificates_can_be_required(direct: Direct) -> None:
    with direct.haproxy(client_ca=True, certificate_required=True) as port:
        with tls(direct, "ci", port=port) as connection:
            assert ask(connection, "GET", "/containers/json")[0] == 200
        with pytest.raises((ConnectionError, ssl.SSLError)), tls(direct, "nobody", port=port) as connection:
            ask(connection, "GET", "/containers/json", b"", f"Authorization: Bearer {direct.token}")


def test_without_a_ca_tokens_alone_count(direct: Direct) -> None:
    with direct.haproxy(client_ca=False, certificate_required=True) as port:
        with tls(direct, "ci", port=port) as connection:
            assert ask(connection, "GET", "/containers/json")[0] == 401
        with tls(direct, "nobody", port=port) as connection:
            assert ask(connection, "GET", "/containers/json", b"", f"Authorization: Bearer {direct.token}")[0] == 200


@pytest.mark.parametrize("client_ca", [False, True])
@pytest.mark.parametrize("required", [False, True])
def test_haproxy_takes_the_modules_configuration(
    direct: Direct, client_ca: bool, required: bool, tmp_path: Path
) -> None:
    switches = {"client_ca": client_ca, "certificate_required": required}
    text = haproxy_configuration(direct.directory, 1, "127.0.0.1:2", "127.0.0.1:3", **switches)
    assert ("ssl_c_used" in text) == (client_ca and required)
    path = tmp_path / "haproxy.cfg"
    path.write_text(text)
    done = subprocess.run(["haproxy", "-c", "-f", str(path)], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
