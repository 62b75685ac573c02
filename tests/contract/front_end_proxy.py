"""A front end that loses what a test names: a gateway's own calls pass, its clients' requests are cut."""

from __future__ import annotations

import contextlib
import select
import socket
import struct
from collections.abc import Iterator

from tests.contract.connect_endpoint import TimedProxy

_OWN = b" /internal/"


class FrontEndProxy(TimedProxy):
    """Before a control plane. It sees requests in plain HTTP/1.1, each at the begin of what a connection sends."""

    def __init__(self, target: int) -> None:
        super().__init__(target)
        self._refused = False
        self._losing = b""
        self.lost: list[bytes] = []
        """The requests whose answers were lost: their bytes, as far as they came with the first line."""

    @contextlib.contextmanager
    def refusing(self) -> Iterator[None]:
        """Clients' requests get no answer. What the gateway itself says (exits, tickets) goes through."""
        self._refused = True
        self.cut()
        try:
            yield
        finally:
            self._refused = False

    @contextlib.contextmanager
    def losing_one_answer(self, of: bytes) -> Iterator[None]:
        """The first request with those bytes is served, and the connection is reset in place of the answer."""
        self._losing = of
        try:
            yield
        finally:
            self._losing = b""

    def _pump(self, pair: tuple[socket.socket, socket.socket]) -> None:
        near, far = pair
        doomed = False
        try:
            while True:
                readable, _, _ = select.select(pair, [], [])
                if near in readable:
                    data = near.recv(262144)
                    if not data or (self._refused and _OWN not in data[:64]):
                        return
                    if self._losing and self._losing in data[:512]:
                        doomed, self._losing = True, b""
                        self.lost.append(data)
                    far.sendall(data)
                if far in readable:
                    data = far.recv(262144)
                    if not data or doomed:
                        return
                    near.sendall(data)
        except OSError:
            return
        finally:
            with self._lock:
                self._pairs.discard(pair)
            for end in pair:
                with contextlib.suppress(OSError):
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                end.close()

    def __exit__(self, *exc: object) -> None:
        super().__exit__(*exc)
        self.close()
