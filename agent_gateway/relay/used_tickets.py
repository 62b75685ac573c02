"""Which tickets have been used: each opens one stream, or carries one call, and then nothing more."""

from __future__ import annotations

import time
from collections import deque


class UsedTickets:
    """Ids of used tickets, until they expire by themselves.

    What was used last expires last, give or take the clocks of control planes, so a queue is enough: its length is
    bounded by the rate of tickets times their life.
    """

    def __init__(self) -> None:
        self._used: dict[str, float] = {}
        self._order: deque[str] = deque()

    def __len__(self) -> int:
        return len(self._used)

    def __contains__(self, ticket_id: str) -> bool:
        return ticket_id in self._used

    def use(self, ticket_id: str, expires: float) -> bool:
        """Notes the use. False when it was used before."""
        self._forget_expired()
        if ticket_id in self._used:
            return False
        self._used[ticket_id] = expires
        self._order.append(ticket_id)
        return True

    def _forget_expired(self) -> None:
        now = time.time()
        while self._order and self._used[self._order[0]] < now:
            del self._used[self._order.popleft()]
