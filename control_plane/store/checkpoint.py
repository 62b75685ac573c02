"""Moves SQLite's write-ahead log into the database file, outside the event loop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3
from pathlib import Path

_log = logging.getLogger(__name__)

_INTERVAL = 0.25
_WAL_LIMIT = 32 * 1024 * 1024
"""A log longer than this is emptied even if a writer must wait for it."""
_RESERVE = 1024 * 1024
"""Bytes kept free inside the log and the database file: on a full disk the ends of containers can still be written."""


class Checkpointer:
    """Runs a checkpoint at most every quarter second, and only after writes."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._wal = path.with_name(path.name + "-wal")
        self._timer: asyncio.TimerHandle | None = None
        self._running: asyncio.Task[None] | None = None
        self._dirty = False
        self._closed = False

    def wrote(self) -> None:
        """Something was written; the next checkpoint is due."""
        self._dirty = True
        if self._timer is None and self._running is None and not self._closed:
            self._timer = asyncio.get_running_loop().call_later(_INTERVAL, self._due)

    def _due(self) -> None:
        self._timer = None
        self._running = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        self._dirty = False
        try:
            mode = "RESTART" if self._wal.stat().st_size > _WAL_LIMIT else "PASSIVE"
            await asyncio.to_thread(self._checkpoint, mode)
        except (sqlite3.Error, OSError) as error:
            # Nothing is lost: the log is read as before, and the next write tries again.
            _log.warning("checkpoint failed: %s", error)
        finally:
            self._running = None
        if self._dirty:
            self.wrote()

    async def empty(self) -> None:
        """The log has no room left: what it holds goes into the database file, so that it is written from its beginning
        again. Whether that worked, the next write tells."""
        if self._running is not None:
            await asyncio.gather(asyncio.shield(self._running), return_exceptions=True)
        with contextlib.suppress(sqlite3.Error, OSError):
            await asyncio.to_thread(self._checkpoint, "RESTART")

    def _checkpoint(self, mode: str) -> None:
        connection = sqlite3.connect(self._path, timeout=1.0, isolation_level=None)
        try:
            connection.execute("PRAGMA synchronous=NORMAL")
            self._reserve(connection)
            connection.execute(f"PRAGMA wal_checkpoint({mode})").fetchone()
        finally:
            connection.close()

    def _reserve(self, connection: sqlite3.Connection) -> None:
        """Makes both files longer than they need to be, when they are not. SQLite fills such room before it asks for
        more, and never gives it back by itself (the log's when the last connection closes)."""
        free = connection.execute("PRAGMA freelist_count").fetchone()[0]
        page = connection.execute("PRAGMA page_size").fetchone()[0]
        if free * page >= _RESERVE // 2 and self._wal.stat().st_size >= _RESERVE // 2:
            return
        try:
            connection.execute("CREATE TABLE IF NOT EXISTS reserve (room BLOB)")
            connection.execute("INSERT INTO reserve VALUES (zeroblob(?))", (_RESERVE,))
            connection.execute("DELETE FROM reserve")
        except sqlite3.OperationalError as error:
            _log.debug("no room is set aside: %s", error)  # busy, or the disk is full already

    async def close(self) -> None:
        """Waits for a checkpoint under way. The last one happens when SQLite closes the last connection."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._running is not None:
            await asyncio.gather(self._running, return_exceptions=True)
