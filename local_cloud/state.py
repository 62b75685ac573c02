"""The local cloud's memory: one SQLite file.

WAL with `synchronous=NORMAL`: a transaction survives kill -9 of this process (not a power cut), and costs some 30 µs.
Statements run inline on the event loop; each is far shorter than a switch to a thread.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from local_cloud.errors import ServiceError

_ROOM = 1024 * 1024


class State:
    """The database of one data directory; each service makes its own tables in it."""

    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, cached_statements=256)
        for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "temp_store=MEMORY", "cache_size=-4096"):
            self._connection.execute(f"PRAGMA {pragma}")
        self._directory = path.parent
        self._depth = 0
        self._then: list[Callable[[], None]] = []

    def define(self, schema: str) -> None:
        """Creates a service's tables when they are missing."""
        self._connection.executescript(schema)

    def execute(self, statement: str, *values: Any) -> sqlite3.Cursor:
        """Runs one statement. Raises ServiceError when there is no room for what it writes."""
        try:
            return self._connection.execute(statement, values)
        except sqlite3.OperationalError as error:
            raise _told(error) from error

    def executemany(self, statement: str, rows: list[tuple[Any, ...]]) -> None:
        """Runs one statement for each row. Raises ServiceError when there is no room for what it writes."""
        try:
            self._connection.executemany(statement, rows)
        except sqlite3.OperationalError as error:
            raise _told(error) from error

    def one(self, statement: str, *values: Any) -> tuple[Any, ...] | None:
        """The first row of a query, or None."""
        row: tuple[Any, ...] | None = self._connection.execute(statement, values).fetchone()
        return row

    def all(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        """All rows of a query."""
        return self._connection.execute(statement, values).fetchall()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Groups writes: all of them are kept, or none. Nests; never held across an await."""
        if self._depth == 0:
            self._connection.execute("BEGIN IMMEDIATE")
        self._depth += 1
        try:
            yield
            if self._depth == 1:
                self._connection.execute("COMMIT")
        except BaseException as error:
            if self._depth == 1:
                self._then.clear()
                if self._connection.in_transaction:  # a full disk has ended it already
                    self._connection.execute("ROLLBACK")
            raise _told(error) from error
        finally:
            self._depth -= 1
        if self._depth == 0:
            then, self._then = self._then, []
            for action in then:
                action()

    def after_commit(self, action: Callable[[], None]) -> None:
        """Does something once what the present transaction writes is kept; at once when there is none."""
        if self._depth:
            self._then.append(action)
        else:
            action()

    def check_room(self) -> None:
        """Raises ServiceError when the disk is so full that what begins now could not be written to its end."""
        there = os.statvfs(self._directory)
        if there.f_bavail * there.f_frsize < _ROOM:
            raise _no_room()

    def close(self) -> None:
        """Closes the file."""
        self._connection.close()


def _told(error: BaseException) -> BaseException:
    """A full disk in the words of an API (no quota error, which clients would wait for); anything else as it is."""
    code = getattr(error, "sqlite_errorcode", None)
    if code in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_SHMSIZE):
        return _no_room()
    return error


def _no_room() -> ServiceError:
    return ServiceError("FAILED_PRECONDITION", "no space left on device in the local cloud's data directory")
