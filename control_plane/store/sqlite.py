"""The store in one SQLite file: the embedded default, shared by all processes that open the file.

SQLite is called inline in the event loop: a read or a compare-and-set takes tens of microseconds, less than handing it
to a thread. What is slow (moving the write-ahead log into the database) happens in a thread between requests.
Documents read are kept decoded; another process's write is noticed by SQLite's `data_version` and drops them.
"""

from __future__ import annotations

import asyncio
import os
import random
import secrets
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import orjson

from control_plane.due import due_of
from control_plane.store.base import AlreadyExists, Collection, Document, RevisionConflict, StoreFull
from control_plane.store.changes import Changes
from control_plane.store.checkpoint import Checkpointer

T = TypeVar("T")

_SCHEMA = """
CREATE TABLE IF NOT EXISTS documents (
    collection TEXT NOT NULL, tenant TEXT NOT NULL, key TEXT NOT NULL, revision TEXT NOT NULL, body BLOB NOT NULL,
    PRIMARY KEY (collection, tenant, key)
) WITHOUT ROWID
"""
_BUSY_MILLISECONDS = 5
"""How long SQLite itself may wait for another process's write; it blocks the loop, so beyond that we wait ourselves."""
_BUSY_DEADLINE = 30.0
_CACHED_DOCUMENTS = 20_000
_LAST_CHARACTER = "\U0010ffff"
_FULL = "the store is full: no space left on device"

_Place = tuple[str, str, str]
Documents = list[Document]


class SqliteStore:
    """`Store` on one file. Open it inside the running event loop; close it there."""

    lag = 0.2

    def __init__(self, path: Path | str) -> None:
        self._path = Path(path)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        # Containers' environments are in it, with their secrets. SQLite gives its other files the same mode.
        os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        self._connection = sqlite3.connect(self._path, timeout=_BUSY_MILLISECONDS / 1000, isolation_level=None)
        self._set_up()
        self._connection.execute("PRAGMA cache_size=-4096")
        self._origin = secrets.token_hex(5)
        self._writes = 0
        self._version = self._data_version()
        self._documents: dict[_Place, Document] = {}
        self._lists: dict[tuple[str, str | None], Documents] = {}
        self._changes = Changes(self._poll)
        self._checkpointer = Checkpointer(self._path)

    def _set_up(self) -> None:
        """Blocks while other processes do the same: a change of the journal's mode waits for nobody by itself."""
        deadline = time.monotonic() + _BUSY_DEADLINE
        while True:
            try:
                self._connection.execute("PRAGMA journal_mode=WAL")
                self._connection.execute("PRAGMA synchronous=NORMAL")
                self._connection.execute("PRAGMA wal_autocheckpoint=0")
                self._connection.execute(_SCHEMA)
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or time.monotonic() > deadline:
                    raise
                time.sleep(0.002 + random.random() * 0.01)
            else:
                return

    async def get(self, collection: Collection, tenant: str, key: str) -> Document | None:
        """One document, or None."""
        self._poll()
        return self._get(collection, tenant, key)

    def _get(self, collection: Collection, tenant: str, key: str) -> Document | None:
        known = self._documents.get((collection, tenant, key))
        if known is not None:
            return known
        row = self._connection.execute(
            "SELECT revision, body FROM documents WHERE collection=? AND tenant=? AND key=?", (collection, tenant, key)
        ).fetchone()
        if row is None:
            return None
        return self._remember(Document(collection, tenant, key, row[0], orjson.loads(row[1])))

    async def find(self, collection: Collection, tenant: str, prefix: str, limit: int = 2) -> Documents:
        """Documents whose key starts with `prefix`, in key order."""
        self._poll()
        rows = self._connection.execute(
            "SELECT key FROM documents WHERE collection=? AND tenant=? AND key>=? AND key<? ORDER BY key LIMIT ?",
            (collection, tenant, prefix, prefix + _LAST_CHARACTER, limit),
        ).fetchall()
        found = (self._get(collection, tenant, row[0]) for row in rows)
        return [document for document in found if document is not None]

    async def list(self, collection: Collection, tenant: str | None = None, start: str = "") -> Documents:
        """All documents of a tenant, from the key `start` on, or of all; in key order.

        Without `start` the same object comes back until something changed.
        """
        self._poll()
        if start and tenant is not None:
            return self._list_from(collection, tenant, start)
        known = self._lists.get((collection, tenant))
        if known is not None:
            return known
        columns = "SELECT tenant, key, revision, body FROM documents WHERE collection=?"
        if tenant is None:
            rows = self._connection.execute(f"{columns} ORDER BY key, tenant", (collection,))
        else:
            rows = self._connection.execute(f"{columns} AND tenant=? ORDER BY key", (collection, tenant))
        documents = [self._from_row(collection, *row) for row in rows]
        self._lists[(collection, tenant)] = documents
        return documents

    def _list_from(self, collection: Collection, tenant: str, start: str) -> Documents:
        rows = self._connection.execute(
            "SELECT tenant, key, revision, body FROM documents WHERE collection=? AND tenant=? AND key>=? ORDER BY key",
            (collection, tenant, start),
        )
        return [self._from_row(collection, *row) for row in rows]

    async def due(self, collection: Collection, at: float) -> Documents:
        """Those of all tenants that are due by `at`, in key order. Nobody bills a list here: it is asked of each."""
        dated = [(due_of(collection, document.body), document) for document in await self.list(collection)]
        return [document for due, document in dated if due is not None and due <= at]

    async def create(self, collection: Collection, tenant: str, key: str, body: Mapping[str, Any]) -> Document:
        """Writes a new document. Raises AlreadyExists."""
        revision, encoded = self._next_revision(), orjson.dumps(body)

        def insert() -> int:
            return self._connection.execute(
                "INSERT INTO documents VALUES (?,?,?,?,?) ON CONFLICT DO NOTHING",
                (collection, tenant, key, revision, encoded),
            ).rowcount

        if await self._write(insert) != 1:
            raise AlreadyExists(f"{collection}/{key}")
        return self._written(Document(collection, tenant, key, revision, orjson.loads(encoded)))

    async def replace(self, document: Document, body: Mapping[str, Any]) -> Document:
        """Writes if the revision is still current. Raises RevisionConflict."""
        revision, encoded = self._next_revision(), orjson.dumps(body)
        place = (document.collection, document.tenant, document.key)

        def update() -> int:
            return self._connection.execute(
                "UPDATE documents SET revision=?, body=? WHERE collection=? AND tenant=? AND key=? AND revision=?",
                (revision, encoded, *place, document.revision),
            ).rowcount

        if await self._write(update) != 1:
            raise RevisionConflict(f"{document.collection}/{document.key}")
        return self._written(Document(*place, revision, orjson.loads(encoded)))

    async def delete(self, document: Document) -> None:
        """Deletes if the revision is still current. Raises RevisionConflict."""
        place = (document.collection, document.tenant, document.key)

        def remove() -> int:
            return self._connection.execute(
                "DELETE FROM documents WHERE collection=? AND tenant=? AND key=? AND revision=?",
                (*place, document.revision),
            ).rowcount

        if await self._write(remove) != 1:
            raise RevisionConflict(f"{document.collection}/{document.key}")
        self._documents.pop(place, None)
        self._lists.pop((document.collection, None), None)
        self._lists.pop((document.collection, document.tenant), None)
        self._changes.publish(document.collection, document.tenant, document.key, None)

    async def watch(
        self, collection: Collection, tenant: str, key: str | None = None, start: str = ""
    ) -> AsyncIterator[Document | None]:
        """Changes of a document, or the documents written in a collection; see `Store.watch`.

        Changes made in this process arrive one by one and in order; those of others are noticed within 25 ms, of a
        collection as "list again".
        """
        with self._changes.subscribe(collection, tenant, key) as subscription:
            last = None if key is None else await self.get(collection, tenant, key)
            yield last
            while True:
                change = await subscription.next()
                if key is None or not change.foreign:
                    last = change.document
                    yield last
                    continue
                current = await self.get(collection, tenant, key)
                if (current and current.revision) != (last and last.revision):
                    last = current
                    yield last

    async def close(self) -> None:
        """Moves what is in the log into the database file and lets go of it."""
        await self._changes.close()
        await self._checkpointer.close()
        self._connection.close()

    def _from_row(self, collection: Collection, tenant: str, key: str, revision: str, body: bytes) -> Document:
        known = self._documents.get((collection, tenant, key))
        if known is not None and known.revision == revision:
            return known
        return self._remember(Document(collection, tenant, key, revision, orjson.loads(body)))

    def _remember(self, document: Document) -> Document:
        if len(self._documents) >= _CACHED_DOCUMENTS:
            self._documents.clear()
        self._documents[(document.collection, document.tenant, document.key)] = document
        return document

    def _written(self, document: Document) -> Document:
        self._lists.pop((document.collection, None), None)
        self._lists.pop((document.collection, document.tenant), None)
        self._remember(document)
        self._changes.publish(document.collection, document.tenant, document.key, document)
        return document

    def _next_revision(self) -> str:
        """Never used before, by this process or another: a key deleted and made again is told apart."""
        self._writes += 1
        return f"{self._origin}-{self._writes:x}"

    def _data_version(self) -> int:
        return int(self._connection.execute("PRAGMA data_version").fetchone()[0])

    def _poll(self) -> None:
        """Drops what is kept when another connection has written to the file."""
        version = self._data_version()
        if version != self._version:
            self._version = version
            self._documents.clear()
            self._lists.clear()
            self._changes.publish_foreign()

    async def _write(self, statement: Callable[[], T]) -> T:
        """Runs one statement, waiting without blocking the loop while another process writes."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _BUSY_DEADLINE
        delay = 0.001
        emptied = False
        while True:
            try:
                done = statement()
            except sqlite3.OperationalError as error:
                code = getattr(error, "sqlite_errorcode", 0) & 0xFF
                if code == sqlite3.SQLITE_FULL:
                    if emptied:
                        raise StoreFull(_FULL) from error
                    emptied = True
                    await self._checkpointer.empty()
                    continue
                if code not in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED) or loop.time() > deadline:
                    raise
                await asyncio.sleep(delay * (0.5 + random.random()))
                delay = min(delay * 2, 0.05)
            else:
                self._checkpointer.wrote()
                return done
