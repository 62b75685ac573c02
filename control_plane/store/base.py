"""The store: documents with compare-and-set, the only state the control plane has.

One contract for SQLite, Firestore and Cosmos, checked by `tests/contract`. Bodies are plain JSON objects; the
repositories in `services/` turn them into `model` classes.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

Collection = Literal[
    "containers",
    "names",
    "execs",
    "images",
    "networks",
    "volumes",
    "tenants",
    "tokens",
    "gateways",
    "events",
    "functions",
    "leases",
]


@dataclass(frozen=True, slots=True)
class Document:
    """A stored document as read: `revision` is opaque and changes with every write."""

    collection: Collection
    tenant: str
    key: str
    revision: str
    body: Mapping[str, Any]


class AlreadyExists(Exception):
    """`create` found the key taken."""


class RevisionConflict(Exception):
    """The document was changed or deleted since it was read."""


class StoreFull(Exception):
    """The store cannot take more (disk full, quota). The message is fit for users."""


class Store(Protocol):
    """Compare-and-set document store. Keys are unique per (collection, tenant)."""

    lag: float
    """Seconds within which a watch tells what another process has written, when all goes well."""

    async def get(self, collection: Collection, tenant: str, key: str) -> Document | None:
        """One document, or None."""
        ...

    async def find(self, collection: Collection, tenant: str, prefix: str, limit: int = 2) -> list[Document]:
        """Documents whose key starts with `prefix`, in key order (Docker's id prefixes)."""
        ...

    async def due(self, collection: Collection, at: float) -> list[Document]:
        """Those of all tenants that are due by `at`, Unix seconds (`control_plane/due.py`), in key order.

        No others are read. Documents that were written before there was such a thing are not among them.
        """
        ...

    async def list(self, collection: Collection, tenant: str | None = None, start: str = "") -> list[Document]:
        """All documents of a tenant (of all tenants with None), in key order.

        With a tenant, `start` leaves out those whose key sorts before it: they are not read (nor billed).
        """
        ...

    async def create(self, collection: Collection, tenant: str, key: str, body: Mapping[str, Any]) -> Document:
        """Raises AlreadyExists."""
        ...

    async def replace(self, document: Document, body: Mapping[str, Any]) -> Document:
        """Writes if `document.revision` is still current; raises RevisionConflict."""
        ...

    async def delete(self, document: Document) -> None:
        """Deletes if `document.revision` is still current; raises RevisionConflict."""
        ...

    def watch(
        self, collection: Collection, tenant: str, key: str | None = None, start: str = ""
    ) -> AsyncIterator[Document | None]:
        """Yields soon after each change of the document, None when it is deleted or "read again".

        Changes may be coalesced; the first item comes at once, so that a watcher never misses the change before it
        subscribed. With `key` None: a None at once, then every document of the collection that is written, itself, so
        that nothing has to be read; documents that were there already may be told as well, those with keys before
        `start` may be left out, deletions are not told. A None then means "some were missed, list again".
        """
        ...

    async def close(self) -> None:
        """Frees what it holds; what was written is kept."""
        ...
