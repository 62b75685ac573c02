"""A TCP proxy on loopback whose connections can be cut at will."""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import threading


class CuttingProxy:
    """Forwards to `target` on 127.0.0.1; `cut()` resets everything that is connected."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port: int = self._listener.getsockname()[1]
        self._pairs: set[tuple[socket.socket, socket.socket]] = set()
        self._lock = threading.Lock()
        self.cuts = 0
        self.broken = 0
        """Connections that were cut."""

    def __enter__(self) -> CuttingProxy:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._listener.close()
        self.cut()

    def cut(self) -> None:
        """Ends every connection with a reset, as a lost network does."""
        with self._lock:
            pairs = list(self._pairs)
        for pair in pairs:
            for end in pair:
                with contextlib.suppress(OSError):
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    # Wakes the pump, which closes it; nothing is said to the peer before the reset.
                    end.shutdown(socket.SHUT_RD)
        self.cuts += 1
        self.broken += len(pairs)

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            try:
                far = socket.create_connection(("127.0.0.1", self._target))
            except OSError:
                near.close()
                continue
            pair = (near, far)
            with self._lock:
                self._pairs.add(pair)
            threading.Thread(target=self._pump, args=(pair,), daemon=True).start()

    def _pump(self, pair: tuple[socket.socket, socket.socket]) -> None:
        other = {pair[0]: pair[1], pair[1]: pair[0]}
        try:
            while True:
                readable, _, _ = select.select(pair, [], [])
                for end in readable:
                    data = end.recv(262144)
                    if not data:
                        return
                    other[end].sendall(data)
        except OSError:
            return
        finally:
            with self._lock:
                self._pairs.discard(pair)
            for end in pair:
                end.close()
