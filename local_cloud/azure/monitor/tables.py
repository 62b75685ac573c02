"""Log Analytics' tables of App Service: the output of containers, and what the platform says about them.

Output is taken in as *chunks*: bytes `offset … offset+length` of a file, received at a moment. The lines stay in the
file and become rows when somebody asks, so a chunk's row is the committed offset, and kill -9 neither loses nor doubles
a line. Rows of one chunk are a tick (100 ns, the precision of a datetime) apart, to keep their order.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from local_cloud.azure.names import SUBSCRIPTION, WORKSPACE
from local_cloud.state import State

TICK = 100
_LINE = 64 << 10
"""Bytes of the longest line that becomes one row; a longer one becomes several."""
_READ = 256 << 10
_COARSE = 10_000_000
"""Nanoseconds: a file's time of change is that of the kernel's last tick, so it may be that much too early."""
_BUSY, _IDLE = 0.1, 1.0
"""Seconds between looks at the files: after output was seen, and at most while all are silent."""
_SCHEMA = """
CREATE TABLE IF NOT EXISTS monitor_files(
    id INTEGER PRIMARY KEY, container TEXT NOT NULL, resource TEXT NOT NULL, stream TEXT NOT NULL, path TEXT UNIQUE NOT
    NULL, taken INTEGER NOT NULL, last INTEGER NOT NULL, open INTEGER NOT NULL, created INTEGER NOT NULL);
CREATE INDEX IF NOT EXISTS monitor_files_open ON monitor_files(open) WHERE open;
CREATE TABLE IF NOT EXISTS monitor_chunks(
    id INTEGER PRIMARY KEY AUTOINCREMENT, file INTEGER NOT NULL, offset INTEGER NOT NULL, length INTEGER NOT NULL,
    lines INTEGER NOT NULL, first INTEGER NOT NULL, received INTEGER NOT NULL);
CREATE INDEX IF NOT EXISTS monitor_chunks_file ON monitor_chunks(file);
CREATE TABLE IF NOT EXISTS monitor_platform(
    id INTEGER PRIMARY KEY AUTOINCREMENT, moment INTEGER NOT NULL, resource TEXT NOT NULL, container TEXT NOT NULL,
    level TEXT NOT NULL, message TEXT NOT NULL);
"""
INGESTED = "$ingested"
"""Where a row keeps its ingestion time."""
_COMMON = {
    "TenantId": "string", "TimeGenerated": "datetime", "Level": "string", "Host": "string", "ContainerId": "string",
    "OperationName": "string", "Category": "string", "SourceSystem": "string", "Type": "string", "Location": "string",
    "_ResourceId": "string", "_SubscriptionId": "string",
}  # fmt: skip
CONSOLE, PLATFORM = "AppServiceConsoleLogs", "AppServicePlatformLogs"
COLUMNS: dict[str, dict[str, str]] = {
    CONSOLE: {**_COMMON, "ResultDescription": "string"},
    PLATFORM: {**_COMMON, "Message": "string", "DeploymentId": "string", "Exception": "string", "StackTrace": "string"},
}
Row = dict[str, Any]


@dataclass(slots=True)
class Bounds:
    """What a query demands of all its rows (nanoseconds since 1970; resource ids in lower case)."""

    since: int = 0
    until: int = (1 << 63) - 1
    ingested: int = 0
    resources: frozenset[str] | None = None


class Tables:
    """Takes in what containers write, and hands out rows. Times are seconds."""

    def __init__(self, state: State, delay: float, retention: float) -> None:
        self._state = state
        self._delay = int(delay * 1e9)
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        state.define(_SCHEMA)
        self._forget(time.time_ns() - int(retention * 1e9))

    # --- output comes and goes

    def follow(self, container: str, resource: str, stdout: Path, stderr: Path) -> None:
        """Starts taking in a container's output; `resource` is its site's id in lower case."""
        for stream, path in (("stdout", stdout), ("stderr", stderr)):
            self._state.execute(
                "INSERT OR IGNORE INTO monitor_files(container, resource, stream, path, taken, last, open, created) "
                "VALUES (?, ?, ?, ?, 0, 0, 1, ?)",
                container,
                resource,
                stream,
                str(path),
                time.time_ns(),
            )
        self._wake.set()

    async def drain(self, container: str) -> None:
        """Takes in most of an ended container's output piece by piece, so that `close` has little left at once."""
        for number, path in self._open_files(container):
            more = True
            while more:
                more = self._take_in(number, path, final=False)
                await asyncio.sleep(0)

    def close(self, container: str) -> None:
        """The container ended: takes in what is left, its last line too when it has no newline."""
        for number, path in self._open_files(container):
            while self._take_in(number, path, final=True):
                pass
            self._state.execute("UPDATE monitor_files SET open = 0 WHERE id = ?", number)

    def open_containers(self) -> list[str]:
        """The containers whose output is being taken in."""
        return [row[0] for row in self._state.all("SELECT DISTINCT container FROM monitor_files WHERE open")]

    def platform(self, resource: str, container: str, level: str, message: str) -> None:
        """Writes a message of the platform about a site."""
        self._state.execute(
            "INSERT INTO monitor_platform(moment, resource, container, level, message) VALUES (?, ?, ?, ?, ?)",
            time.time_ns() // TICK * TICK,
            resource,
            container,
            level,
            message,
        )

    # --- taking in

    def start(self) -> None:
        """Begins to watch open files; it sleeps while there are none."""
        self._task = asyncio.get_running_loop().create_task(self._watch())

    async def stop(self) -> None:
        """Ends watching; files still open are taken up by the next process."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _watch(self) -> None:
        pause = _BUSY
        while True:
            if not self._open_files():
                self._wake.clear()
                await self._wake.wait()
            found = await self.catch_up()
            pause = _BUSY if found else min(pause * 2, _IDLE)
            await asyncio.sleep(pause)

    async def catch_up(self) -> bool:
        """Takes in all output there is now, at most 256 KiB a turn of the event loop; whether there was any."""
        found = False
        for number, path in self._open_files():
            limit = _size(path)  # what comes later is the next round's: a firehose must not hold this one
            while self._taken(number) < limit and self._take_in(number, path, final=False):
                found = True
                await asyncio.sleep(0)
        return found

    def _open_files(self, container: str = "") -> list[tuple[Any, ...]]:
        return self._state.all(
            "SELECT id, path FROM monitor_files WHERE open AND ? IN ('', container) ORDER BY id", container
        )

    def _taken(self, number: int) -> int:
        row = self._state.one("SELECT taken FROM monitor_files WHERE id = ?", number)
        return int(row[0]) if row else 0

    def _take_in(self, number: int, path: str, *, final: bool) -> bool:
        row = self._state.one("SELECT taken, last FROM monitor_files WHERE id = ? AND open", number)
        if row is None or _size(path) <= row[0]:
            return False
        offset, last = row
        with open(path, "rb") as file:
            file.seek(offset)
            data = file.read(_READ)
            written = os.fstat(file.fileno()).st_mtime_ns
        data = _whole_lines(data, final=final)
        if not data:
            return False
        now = time.time_ns()
        lines = data.count(b"\n") + 1 + len(data) // _LINE
        first = max(last + TICK, min(now, written + _COARSE) // TICK * TICK - lines * TICK)
        with self._state.transaction():
            self._state.execute(
                "INSERT INTO monitor_chunks(file, offset, length, lines, first, received) VALUES (?, ?, ?, ?, ?, ?)",
                number,
                offset,
                len(data),
                lines,
                first,
                now // TICK * TICK,
            )
            self._state.execute(
                "UPDATE monitor_files SET taken = ?, last = ? WHERE id = ?",
                offset + len(data),
                first + lines * TICK,
                number,
            )
        return True

    # --- rows

    def rows(self, table: str, bounds: Bounds) -> Iterator[Row]:
        """The visible rows of a table that may be within the bounds, in the order they came in."""
        return self._platform_rows(bounds) if table == PLATFORM else self._console_rows(bounds)

    def _console_rows(self, bounds: Bounds) -> Iterator[Row]:
        chunks = self._state.all(
            "SELECT container, resource, stream, path, offset, length, first, received FROM monitor_chunks "
            "JOIN monitor_files ON monitor_files.id = file WHERE received BETWEEN ? AND ? AND first <= ? "
            "AND first + lines * ? >= ? AND (? IS NULL OR resource IN (SELECT value FROM json_each(?))) "
            "ORDER BY monitor_chunks.id",
            _integer(bounds.ingested - self._delay),
            time.time_ns() - self._delay,
            _integer(bounds.until),
            TICK,
            _integer(bounds.since),
            *[_json(bounds.resources)] * 2,
        )
        for container, resource, stream, path, offset, length, first, received in chunks:
            level = "Error" if stream == "stderr" else "Informational"
            shared = _shared(CONSOLE, resource, container, level, received + self._delay)
            for number, line in enumerate(_lines(path, offset, length)):
                yield {**shared, "TimeGenerated": first + number * TICK, "ResultDescription": line}

    def _platform_rows(self, bounds: Bounds) -> Iterator[Row]:
        found = self._state.all(
            "SELECT moment, resource, container, level, message FROM monitor_platform "
            "WHERE moment BETWEEN ? AND ? AND moment <= ? "
            "AND (? IS NULL OR resource IN (SELECT value FROM json_each(?))) ORDER BY id",
            _integer(max(bounds.since, bounds.ingested - self._delay)),
            _integer(bounds.until),
            time.time_ns() - self._delay,
            *[_json(bounds.resources)] * 2,
        )
        for moment, resource, container, level, message in found:
            shared = _shared(PLATFORM, resource, container, level, moment + self._delay)
            yield {
                **shared,
                "TimeGenerated": moment,
                "Message": message,
                "DeploymentId": "",
                "Exception": "",
                "StackTrace": "",
            }

    def _forget(self, before: int) -> None:
        """Drops rows older than the retention, and their files."""
        old = self._state.all("SELECT id, path FROM monitor_files WHERE NOT open AND max(created, last) < ?", before)
        for number, path in old:
            self._state.execute("DELETE FROM monitor_chunks WHERE file = ?", number)
            self._state.execute("DELETE FROM monitor_files WHERE id = ?", number)
            Path(path).unlink(missing_ok=True)
        self._state.execute("DELETE FROM monitor_platform WHERE moment < ?", before)


def _shared(table: str, resource: str, container: str, level: str, ingested: int) -> Row:
    return {
        "TenantId": WORKSPACE,
        "Level": level,
        "Host": "local",
        "ContainerId": container,
        "OperationName": f"Microsoft.Web/sites/log/{table}",
        "Category": table,
        "SourceSystem": "Azure",
        "Type": table,
        "Location": "",
        "_ResourceId": resource,
        "_SubscriptionId": SUBSCRIPTION,
        INGESTED: ingested,
    }


def _lines(path: str, offset: int, length: int) -> Iterator[str]:
    try:
        with open(path, "rb") as file:
            file.seek(offset)
            data = file.read(length)
    except FileNotFoundError:
        return
    lines = data.split(b"\n")
    if not lines[-1]:
        lines.pop()  # what follows the last newline
    for line in lines:
        for at in range(0, len(line) or 1, _LINE):
            yield line[at : at + _LINE].decode("utf-8", "replace")


def _integer(moment: int) -> int:
    """A moment that the database can hold; years may lie beyond."""
    return min(max(moment, 0), (1 << 63) - 1)


def _json(names: frozenset[str] | None) -> str | None:
    return None if names is None else json.dumps(sorted(names))


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return 0


def _whole_lines(data: bytes, *, final: bool) -> bytes:
    """What can be taken of a read: up to its last newline; all of it at a file's end; a piece of an endless line."""
    end = data.rfind(b"\n") + 1
    if end:
        return data[:end]
    if len(data) > _LINE:
        return data[:_LINE]
    return data if final else b""
