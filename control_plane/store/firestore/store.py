"""The store in Firestore, shared by any number of control planes."""

from __future__ import annotations

from typing import Any

from control_plane.store.firestore.connection import Connection
from control_plane.store.firestore.documents import FirestoreDocuments
from control_plane.store.hosted import HostedStore

_DAY = 86_400.0
_LAG = 0.5


class FirestoreStore(HostedStore):
    """`Store` in one Firestore database (native mode).

    `emulator` is the `host:port` of Google's emulator, also taken from `FIRESTORE_EMULATOR_HOST`. `credentials` are
    google-auth's; None finds them in the environment. Events are deleted by a TTL policy on their field `expires`
    after `event_days`.
    """

    def __init__(
        self,
        project: str,
        database: str = "(default)",
        *,
        emulator: str = "",
        credentials: Any = None,
        event_days: float = 7,
    ) -> None:
        connection = Connection(project, database, emulator, credentials)
        super().__init__(FirestoreDocuments(connection, {"events": event_days * _DAY}), _LAG)
