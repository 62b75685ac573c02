"""Fuzzed heads, paths, queries, bodies and frames: each gets a clear Docker error or a closed connection."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import random
import socket
import struct
from collections.abc import Iterator

import pytest

from agent_gateway.tickets import mint_agent_token, mint_ticket
from tests.e2e.endpoint import Endpoint

SECONDS = 15
BODIES = [b"[]", b"1", b"{", b'"x', b"null}", b"{}", b"[" * 5000, b'{"Image":', b'{"Image":[]}', b'{"Image":1}',
          b"\xff\xfe", b'{"Cmd":7,"Image":"busybox"}', b'{"Image":"busybox","HostConfig":[]}',
          b'{"Image":"busybox","Env":{"a":1}}',
          b'{"Name":1}', b'{"Memory":"x"}', b'{"Container":[]}', b'{"Width":-1}']  # fmt: skip
QUERIES = [
    "",
    "?filters=%7Bx",
    '?filters={"name":1}',
    "?filters=%7B%22until%22%3A%5B%22%ff%22%5D%7D",
    "?limit=abc",
    "?limit=99999999999999999999999",
    "?t=99999999999999999999",
    "?t=-1e400",
    "?path=%00",
    "?path=../../../../etc",
    "?name=../../x",
    "?signal=%F0%9F%92%A9",
    "?since=nan&until=inf&follow=1&stdout=1",
    "?h=-1&w=1e9",
    "?condition=never",
    "?fromImage=%00&tag=%0d%0a",
    "?stream=1&stdin=1&stdout=1&detachKeys=ctrl-nothing",
    "?" + "a=b&" * 2000,
    "?=&&&=%",
]
HEADS = [
    "Bad Header: \x01\r\n",
    "X-Registry-Auth: !!!\r\n",
    "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
    "Transfer-Encoding: gzip\r\n",
    "Authorization: Bearer \xff\r\n",
    "Expect: 100-continue\r\n",
    "Content-Length: 3\r\n",
    "X: " + "y" * 20000 + "\r\n",
]


@pytest.fixture(scope="module")
def box(endpoint: Endpoint) -> Iterator[str]:
    """A running container to knock at; it must live through everything."""
    identifier = endpoint.out("run", "-d", "-i", "--name", "knocked-at", "busybox", "cat")
    yield identifier
    endpoint.docker("rm", "-f", identifier)


@pytest.fixture(autouse=True)
def stays_up(endpoint: Endpoint, box: str) -> Iterator[None]:
    pid = endpoint.process.pid if endpoint.process is not None else 0
    before = _open_files(pid)
    yield
    assert endpoint.out("exec", box, "echo", "still here") == "still here"
    assert endpoint.process is not None
    assert endpoint.process.poll() is None
    assert "Traceback" not in endpoint.log.read_text()
    assert _open_files(pid) < before + 50


def _open_files(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


@contextlib.contextmanager
def _named(request: bytes) -> Iterator[None]:
    try:
        yield
    except TimeoutError:
        raise AssertionError(f"no answer: {request[:600]!r}") from None


def _exchange(endpoint: Endpoint, request: bytes, *, half_close: bool) -> bytes:
    """The answer's head and what came with it; a timeout is a failure."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(SECONDS)
        connection.connect(str(endpoint.socket))
        with contextlib.suppress(ConnectionError):
            connection.sendall(request)
        if half_close:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_WR)
        answer = b""
        with contextlib.suppress(ConnectionError), _named(request):
            while b"\r\n\r\n" not in answer and (chunk := connection.recv(65536)):
                answer += chunk
            head, _, rest = answer.partition(b"\r\n\r\n")
            length = next(
                (
                    int(line.split(b":")[1])
                    for line in head.lower().split(b"\r\n")
                    if line.startswith(b"content-length")
                ),
                0,
            )
            while len(rest) < length and (chunk := connection.recv(65536)):
                rest += chunk
            return head + b"\r\n\r\n" + rest if answer else b""
        return answer


def _message(body: bytes) -> str:
    with contextlib.suppress(ValueError, KeyError, TypeError):
        return str(json.loads(body)["message"])
    return ""


def _check(answer: bytes, request: bytes) -> int:
    """The status. An error has Docker's form, and none is a fault of ours."""
    head, _, body = answer.partition(b"\r\n\r\n")
    status = int(head.split()[1])
    said = (request[:300], answer[:600])
    assert status < 500 or status in {501, 503}, said
    if status >= 400 and not request.startswith(b"HEAD"):
        # moby tells clients that are too old in plain text, which is what they read.
        assert body if b"text/plain" in head else _message(body), said
    return status


def test_two_hundred_requests(endpoint: Endpoint, box: str) -> None:
    dice = random.Random(20261123)
    session = json.loads(_create_exec(endpoint, box))["Id"]
    paths = [
        "/containers/create", f"/containers/{box}/start", f"/containers/{box}/attach", f"/containers/{box}/attach/ws",
        f"/containers/{box}/archive", f"/containers/{box}/resize", f"/containers/{box}/logs", f"/containers/{box}/top",
        f"/containers/{box}/rename", f"/containers/{box}/update", f"/containers/{box}/exec", f"/containers/{box}/json",
        f"/exec/{session}/resize", f"/exec/{session}/json", "/exec/x/start", "/images/create", "/images/load",
        "/images/%2e%2e%2fx/json", "/volumes/create", "/networks/create", "/networks/x/connect", "/auth", "/build",
        "/v1.47/containers/json", "/v99.99/info", "/v1.0/info", "/vx/info", "/nothing/here", "/%00", "/\xe9",
        "/containers/" + "a" * 3000 + "/json", "//containers//json", "/internal/v1/tickets", "/agent/link",
        "/links/x/calls", "/streams/x", "/agent/binary/linux-amd64",
    ]  # fmt: skip
    statuses: dict[int, int] = {}
    for number in range(400):
        path, query = dice.choice(paths), dice.choice(QUERIES)
        method = dice.choice(["POST", "POST", "POST", "GET", "PUT", "HEAD", "BREW", "DELETE"])
        if method == "DELETE" and box in path:
            method = "POST"
        body = dice.choice(BODIES) if number % 2 else dice.randbytes(dice.randrange(0, 400))
        length = dice.choice([str(len(body)), str(len(body)), str(len(body)), "-1", "nonsense", str(len(body) + 5)])
        head = f"{method} {path}{query} HTTP/1.1\r\nHost: d\r\nContent-Length: {length}\r\n"
        head += dice.choice(["", "Content-Type: application/json\r\n", "Content-Type: text/x; =\r\n"])
        if number % 5 == 0:
            head += "Connection: Upgrade\r\nUpgrade: tcp\r\n"
        if number % 7 == 0:
            head += "Connection: Upgrade\r\nUpgrade: websocket\r\n"
        if number % 9 == 0:
            head += dice.choice(HEADS)
        request = head.encode("latin-1") + b"\r\n" + body
        answer = _exchange(endpoint, request, half_close=True)
        if answer:
            status = _check(answer, request)
            statuses[status] = statuses.get(status, 0) + 1
    assert statuses.get(400, 0) > 50, statuses


def _create_exec(endpoint: Endpoint, box: str) -> bytes:
    body = b'{"Cmd":["cat"],"AttachStdin":true,"AttachStdout":true}'
    head = f"POST /containers/{box}/exec HTTP/1.1\r\nHost: d\r\nContent-Type: application/json\r\n"
    answer = _exchange(endpoint, f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body, half_close=False)
    return answer.partition(b"\r\n\r\n")[2]


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x00" * 2000,
        b"GET / HTTP/9.9\r\n\r\n",
        b"\x16\x03\x01" + b"x" * 500,
        b"\r\n\r\n",
        b"GET /_ping HTTP/1.1\r\n" + b"a: b\r\n" * 20000,
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
)
def test_what_is_no_http(endpoint: Endpoint, garbage: bytes) -> None:
    answer = _exchange(endpoint, garbage, half_close=True)
    if answer:
        assert int(answer.split()[1]) in {400, 431, 505}


def test_hijacked_connections_that_break_off(endpoint: Endpoint, box: str) -> None:
    """Heads of attach and exec, complete and not, then bytes of no sense, then a reset or silence."""
    dice = random.Random(7)
    for number in range(60):
        if number % 2:
            session = json.loads(_create_exec(endpoint, box))["Id"]
            body = b'{"Detach":false,"Tty":false}'
            target = f"/exec/{session}/start"
        else:
            body, target = b"", f"/containers/{box}/attach?stream=1&stdin=1&stdout=1"
        head = f"POST {target} HTTP/1.1\r\nHost: d\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        head += dice.choice(["Connection: Upgrade\r\nUpgrade: tcp\r\n", "Connection: Upgrade\r\n", ""])
        request = head.encode() + b"\r\n" + body + dice.randbytes(dice.randrange(0, 3000))
        cut = dice.choice([len(request), dice.randrange(1, len(request))])
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(SECONDS)
            connection.connect(str(endpoint.socket))
            connection.sendall(request[:cut])
            if dice.random() < 0.5:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            elif cut == len(request):
                answer = connection.recv(65536)
                assert answer.split()[1] in {b"101", b"200"}, answer


def _frame(opcode: int, data: bytes, *, fin: bool = True, masked: bool = True, length: int | None = None) -> bytes:
    size = len(data) if length is None else length
    first = (0x80 if fin else 0) | opcode
    mark = 0x80 if masked else 0
    if size < 126:
        head = struct.pack("!BB", first, mark | size)
    elif size < 65536:
        head = struct.pack("!BBH", first, mark | 126, size)
    else:
        head = struct.pack("!BBQ", first, mark | 127, size)
    return head + (b"\0\0\0\0" if masked else b"") + data


HELLO = _frame(
    1,
    json.dumps(
        {
            "type": "hello", "container": "f" * 64, "version": "1", "os": "linux", "arch": "amd64", "boot": "b",
            "run": 1, "running": True, "exit": None, "pid": 1, "started_at": "", "execs": [],
        }
    ).encode(),
)  # fmt: skip


def _frames(dice: random.Random) -> bytes:
    return dice.choice(
        [
            dice.randbytes(200),
            _frame(1, b"{"),
            _frame(1, b"\xff\xfe"),
            _frame(1, b'{"type":"hello"}'),
            _frame(1, b'{"type":"hello","container":"x","boot":1}'),
            HELLO + _frame(1, b'{"type":"exited","seq":1,"run":1,"code":"x","at":7}'),
            HELLO + _frame(1, b'{"type":"started","seq":1,"run":99999999999999999999,"pid":1,"at":"x"}'),
            HELLO + _frame(1, b'{"type":"health","seq":1,"run":1,"status":"x","log":[]}'),
            HELLO + _frame(1, b'{"type":"result","id":"c1","error":7}'),
            _frame(1, b'{"type":"exited","seq":-1,"run":"x"}'),
            _frame(1, b'{"ack":99999999999999999999}'),
            _frame(1, b'{"resume":{"received":-5,"id":"x"}}'),
            _frame(1, b'{"resume":{"received":500000000,"id":"x"}}'),
            _frame(1, b"[" * 10000),
            _frame(2, b"x" * 70000),
            _frame(2, b"x", length=2**62),
            _frame(2, b"x", length=2**63),
            _frame(1, b"part", fin=False) + _frame(0, b"rest"),
            _frame(0, b"continuation of nothing"),
            _frame(3, b"reserved"),
            _frame(9, b"p" * 200),
            _frame(8, b"\x00"),
            _frame(8, struct.pack("!H", 999)),
            _frame(1, b'{"eof":true}', masked=False),
            _frame(2, b""),
        ]
    )


def test_two_hundred_websockets_with_frames_of_no_sense(endpoint: Endpoint, box: str) -> None:
    dice = random.Random(11)
    key = (endpoint.data / "key").read_bytes()
    agent = mint_agent_token(key, "default", "f" * 64, 600)
    doors = [
        (f"/containers/{box}/attach/ws?stream=1&stdin=1&stdout=1", ""),
        ("/agent/link", agent),
        ("/agent/streams", agent),
        ("/agent/streams/" + "ab" * 16, agent),
        ("/streams/" + "cd" * 16, mint_ticket(key, "default", box, "attach", "cd" * 16, {"stdout": True})),
        ("/agent/link", "not.a.token"),
    ]
    for _ in range(200):
        path, token = dice.choice(doors)
        head = f"GET {path} HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        head += "Sec-WebSocket-Version: " + dice.choice(["13", "13", "13", "13", "8", "x"]) + "\r\n"
        nonce = dice.choice([base64.b64encode(dice.randbytes(16)).decode()] * 5 + ["", "short"])
        head += f"Sec-WebSocket-Key: {nonce}\r\n"
        head += f"Authorization: Bearer {token}\r\n" if token else ""
        request = head.encode() + b"\r\n" + b"".join(_frames(dice) for _ in range(dice.randrange(1, 4)))
        answer = _exchange(endpoint, request, half_close=bool(dice.randrange(2)))
        if answer:
            status = int(answer.split()[1])
            assert status == 101 or 400 <= status < 500, (request[:300], answer[:300])
