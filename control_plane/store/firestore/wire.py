"""How a document of ours lies in Firestore: `tenant/{tenant}/{collection}/{key}`, with up to four fields.

`body` is JSON (see `bodies`), `tokens` the last writes (see `revisions`), `expires` the time for a TTL policy. None of
them is ever queried: indexes on them are to be off. `due` is when somebody has to look (`control_plane/due.py`; absent:
never), and needs an index of the collection group.
"""

from __future__ import annotations

from typing import Any

from control_plane.store import bodies
from control_plane.store.base import Collection, Document
from control_plane.store.keys import escape, unescape
from control_plane.store.revisions import Revision

LONGEST_ID = 1500
"""Bytes of a document's id, Firestore's limit."""
_LARGEST = 1_048_576
_ROOM = 4096
"""For the name, the other fields and Firestore's own bytes, which count as well."""
LARGEST_BODY = _LARGEST - _ROOM

_ROOT = "tenant"


class Names:
    """Resource names in one database."""

    def __init__(self, database: str) -> None:
        self.root = f"{database}/documents"

    def tenant(self, tenant: str) -> str:
        """The parent of a tenant's collections."""
        return f"{self.root}/{_ROOT}/{escape(tenant)}"

    def document(self, collection: Collection, tenant: str, key: str) -> str:
        """One document."""
        return f"{self.tenant(tenant)}/{collection}/{escape(key)}"

    def collection(self, collection: Collection, tenant: str, start: str) -> dict[str, Any]:
        """The query for a tenant's documents from the key `start` on, below `tenant`: needs no index."""
        query: dict[str, Any] = {"from_": [{"collection_id": collection}]}
        if start:
            query |= {"where": since(self.document(collection, tenant, start)), "order_by": [{"field": NAME}]}
        return query


NAME = {"field_path": "__name__"}


def since(name: str) -> dict[str, Any]:
    """The filter for names from this one on."""
    return {"field_filter": {"field": NAME, "op": "GREATER_THAN_OR_EQUAL", "value": {"reference_value": name}}}


def due_by(at: float) -> dict[str, Any]:
    """The filter for documents that are due."""
    field = {"field_path": "due"}
    return {"field_filter": {"field": field, "op": "LESS_THAN_OR_EQUAL", "value": {"double_value": at}}}


def before(name: str) -> dict[str, Any]:
    """The filter for names before this one."""
    return {"field_filter": {"field": NAME, "op": "LESS_THAN", "value": {"reference_value": name}}}


def order_of(timestamp: Any) -> int:
    """A protobuf Timestamp in nanoseconds: the commit times of one database are in the order of its commits."""
    return int(timestamp.seconds) * 1_000_000_000 + int(timestamp.nanos)


def key_of(name: str) -> str:
    """The key of a resource name."""
    return unescape(name.rsplit("/", 1)[1])


def tenant_of(name: str) -> str:
    """The tenant of a resource name."""
    return unescape(name.rsplit("/", 3)[1])


def read_document(collection: Collection, message: Any) -> Document:
    """The Document in a protobuf Document."""
    fields = message.fields
    order = order_of(message.update_time)
    revision = Revision(order, "", fields["tokens"].string_value)
    body = bodies.decode(fields["body"].bytes_value)
    return Document(collection, tenant_of(message.name), key_of(message.name), str(revision), body)
