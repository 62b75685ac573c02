"""The store in Cosmos (NoSQL), shared by any number of control planes."""

from __future__ import annotations

from typing import Any

from control_plane.store.cosmos.connection import Connection
from control_plane.store.cosmos.documents import CosmosDocuments
from control_plane.store.cosmos.polling import Polling
from control_plane.store.hosted import HostedStore

_DAY = 86_400.0
_LAG = 0.5
"""Seconds of a poll itself."""


class CosmosStore(HostedStore):
    """`Store` in one container of one account.

    The container has the partition key `/partition` and a default TTL of -1 (items say their own); the account's
    consistency is Strong, or what one control plane has written another does not see at once. `credential` is an
    account key or one of azure-identity's (aio); None finds one in the environment. `fastest` and `slowest` are the
    seconds between two polls of what is watched: what others change is told that much later.
    """

    def __init__(
        self,
        url: str,
        credential: Any = None,
        database: str = "sockerless",
        container: str = "documents",
        *,
        endpoint_discovery: bool = True,
        event_days: float = 7,
        fastest: float = 0.1,
        slowest: float = 1.0,
    ) -> None:
        connection = Connection(url, credential, database, container, endpoint_discovery)
        polling = Polling(connection, fastest, slowest)
        super().__init__(CosmosDocuments(connection, polling, {"events": event_days * _DAY}), slowest + _LAG)
