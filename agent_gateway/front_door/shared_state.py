"""What the connections of one server share: uvicorn's state, with the `Date` header made when it is used."""

from __future__ import annotations

import time
from email.utils import formatdate

from uvicorn.server import ServerState


class SharedState(ServerState):
    """No timer keeps the date."""

    def __init__(self) -> None:
        super().__init__()
        self._second = 0
        self._date: list[tuple[bytes, bytes]] = []

    @property
    def default_headers(self) -> list[tuple[bytes, bytes]]:
        """The `Date` header."""
        now = int(time.time())
        if now != self._second:
            self._second = now
            self._date = [(b"date", formatdate(now, usegmt=True).encode())]
        return self._date

    @default_headers.setter
    def default_headers(self, _: list[tuple[bytes, bytes]]) -> None:
        pass
