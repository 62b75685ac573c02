"""Cloud Logging's store: output files of executions and instances, taken in as *chunks*, and entries written to it.

A chunk says that bytes `offset … offset+length` of a file were received at a moment. The lines stay in the file and
become entries when somebody reads them, so taking in costs one read to find the last line's end, whatever the output's
rate, and a chunk's row is the committed offset: after kill -9 nothing is lost or doubled. Entries of one chunk are a
nanosecond apart, to keep their order.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from local_cloud.gcp.logging.lines import PIECE, Entry, pieces, read_line
from local_cloud.state import State

_READ = 256 << 10
"""Bytes taken in at a time: the bound of one turn of the event loop, and a chunk's size."""
_DECODED = 4
"""Chunks kept as entries: the pages of one reader mostly come from the same chunk."""
_BUSY, _IDLE, _TAILED = 0.1, 1.0, 0.05
"""Seconds between looks at the files: after output was seen, at most while all are silent, and while somebody tails."""
_SCHEMA = """
CREATE TABLE IF NOT EXISTS log_files(
    id INTEGER PRIMARY KEY, execution TEXT NOT NULL, task INTEGER NOT NULL, stream TEXT NOT NULL, path TEXT UNIQUE NOT
    NULL, taken INTEGER NOT NULL, last INTEGER NOT NULL, open INTEGER NOT NULL, created INTEGER NOT NULL);
CREATE INDEX IF NOT EXISTS log_files_open ON log_files(open) WHERE open;
CREATE INDEX IF NOT EXISTS log_files_execution ON log_files(execution);
CREATE TABLE IF NOT EXISTS log_chunks(
    id INTEGER PRIMARY KEY AUTOINCREMENT, file INTEGER NOT NULL, offset INTEGER NOT NULL, length INTEGER NOT NULL,
    lines INTEGER NOT NULL, first INTEGER NOT NULL, received INTEGER NOT NULL, structured INTEGER NOT NULL);
CREATE INDEX IF NOT EXISTS log_chunks_file ON log_chunks(file, id);
CREATE TABLE IF NOT EXISTS log_written(
    id INTEGER PRIMARY KEY AUTOINCREMENT, log_name TEXT NOT NULL, timestamp INTEGER NOT NULL, insert_id TEXT NOT NULL,
    received INTEGER NOT NULL, body BLOB NOT NULL, UNIQUE(log_name, timestamp, insert_id));
"""


@dataclass(frozen=True, slots=True)
class LogFile:
    """One stream of one attempt of one task, or of one instance of a revision (`…/revisions/V/instances/I`)."""

    id: int
    execution: str
    task: int
    stream: str
    path: str


@dataclass(frozen=True, slots=True)
class Chunk:
    """A received part of a file."""

    id: int
    file: int
    offset: int
    length: int
    lines: int
    first: int
    received: int
    structured: bool


class Logs:
    """Takes in what containers write, and hands out entries."""

    def __init__(self, state: State, retention: float) -> None:
        self.state = state
        self._tailers = 0
        self._changed = asyncio.Event()
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._decoded: dict[int, list[Entry]] = {}
        state.define(_SCHEMA)
        self._forget(time.time_ns() - int(retention * 1e9))

    # --- files come and go (called inside the executions' transactions)

    def follow(self, execution: str, task: int, stdout: Path, stderr: Path) -> None:
        """Starts taking in an attempt's output files."""
        now = time.time_ns()
        for stream, path in (("stdout", stdout), ("stderr", stderr)):
            self.state.execute(
                "INSERT OR IGNORE INTO log_files(execution, task, stream, path, taken, last, open, created) "
                "VALUES (?, ?, ?, ?, 0, 0, 1, ?)",
                execution,
                task,
                stream,
                str(path),
                now,
            )
        self._wake.set()

    async def drain(self, paths: tuple[Path, Path]) -> None:
        """Takes in most of an ended attempt's output piece by piece, so that `close` has little left to do at once."""
        for path in paths:
            row = self.state.one("SELECT id FROM log_files WHERE path = ? AND open", str(path))
            more = row is not None
            while more and row is not None:
                more = self._take_in(row[0], str(path), final=False)
                await asyncio.sleep(0)

    def close(self, paths: tuple[Path, Path]) -> None:
        """The attempt ended: takes in what is left, its last line too when it has no newline."""
        for path in paths:
            row = self.state.one("SELECT id FROM log_files WHERE path = ? AND open", str(path))
            if row is not None:
                while self._take_in(row[0], str(path), final=True):
                    pass
                self.state.execute("UPDATE log_files SET open = 0 WHERE id = ?", row[0])

    # --- taking in

    def start(self) -> None:
        """Begins to watch open files; it sleeps while no execution runs."""
        self._task = asyncio.get_running_loop().create_task(self._watch())

    async def stop(self) -> None:
        """Ends watching; files still open are taken up by the next process."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _watch(self) -> None:
        pause = _BUSY
        while True:
            files = self._open_files()
            if not files:
                self._wake.clear()
                await self._wake.wait()
            found = await self.catch_up()
            quiet = _BUSY if found else min(pause * 2, _IDLE)
            pause = _TAILED if self._tailers else quiet
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

    def _open_files(self) -> list[tuple[Any, ...]]:
        return self.state.all("SELECT id, path FROM log_files WHERE open")

    def _taken(self, number: int) -> int:
        row = self.state.one("SELECT taken FROM log_files WHERE id = ?", number)
        return int(row[0]) if row else 0

    def _take_in(self, number: int, path: str, *, final: bool) -> bool:
        row = self.state.one("SELECT taken, last FROM log_files WHERE id = ? AND open", number)
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
        lines = data.count(b"\n") + 1 + len(data) // PIECE
        first = max(last + 1, min(now, written) - lines)
        structured = data[:1] == b"{" or b"\n{" in data
        with self.state.transaction():
            self.state.execute(
                "INSERT INTO log_chunks(file, offset, length, lines, first, received, structured) "
                "VALUES (?, ?, ?, ?, ?, ?, ?)",
                number,
                offset,
                len(data),
                lines,
                first,
                now,
                structured,
            )
            self.state.execute(
                "UPDATE log_files SET taken = ?, last = ? WHERE id = ?", offset + len(data), first + lines, number
            )
        self._notify()
        return True

    # --- reading

    def files(self, execution: str | None, job: str | None, service: str | None, revision: str | None) -> list[LogFile]:
        """Files, all or those of one execution id, job id, service id or revision id."""
        runs = service is None and revision is None
        serves = execution is None and job is None
        patterns = (
            f"*/jobs/{_literal(job)}/executions/{_literal(execution)}" if runs else "",
            f"*/services/{_literal(service)}/revisions/{_literal(revision)}/instances/*" if serves else "",
        )
        rows = self.state.all(
            "SELECT id, execution, task, stream, path FROM log_files WHERE execution GLOB ? OR execution GLOB ?",
            *patterns,
        )
        return [LogFile(*row) for row in rows]

    def file(self, number: int) -> LogFile | None:
        """A file by its number."""
        row = self.state.one("SELECT id, execution, task, stream, path FROM log_files WHERE id = ?", number)
        return LogFile(*row) if row else None

    def chunks(self, number: int, since: int, until: int, received: int, *, newest_first: bool) -> Iterator[Chunk]:
        """A file's chunks that may hold entries of a time span.

        Structured ones always may: their lines can carry other times.
        """
        order = "DESC" if newest_first else "ASC"
        rows = self.state.all(
            "SELECT id, file, offset, length, lines, first, received, structured "  # noqa: S608 - the order is one of two
            "FROM log_chunks WHERE file = ? AND received <= ? AND (structured OR (first + lines >= ? AND first <= ?)) "
            f"ORDER BY id {order}",
            number,
            received,
            since,
            min(until, (1 << 63) - 1),
        )
        return (Chunk(*row) for row in rows)

    def newer_chunks(self, after: int, received: int) -> list[Chunk]:
        """Chunks after a number, oldest first, at most 64."""
        rows = self.state.all(
            "SELECT id, file, offset, length, lines, first, received, structured FROM log_chunks "
            "WHERE id > ? AND received <= ? ORDER BY id LIMIT 64",
            after,
            received,
        )
        return [Chunk(*row) for row in rows]

    def last_ids(self) -> tuple[int, int]:
        """The newest chunk's and the newest written entry's number."""
        row = self.state.one(
            "SELECT (SELECT coalesce(max(id), 0) FROM log_chunks), (SELECT coalesce(max(id), 0) FROM log_written)"
        )
        return (int(row[0]), int(row[1])) if row else (0, 0)

    def entries(self, file: LogFile, chunk: Chunk) -> list[Entry]:
        """The entries of a chunk, in the order of its lines."""
        known = self._decoded.pop(chunk.id, None)
        if known is None:
            known = _decode(file, chunk)
        self._decoded[chunk.id] = known
        if len(self._decoded) > _DECODED:
            self._decoded.pop(next(iter(self._decoded)))
        return known

    # --- written entries

    def write(self, rows: list[tuple[str, int, str, int, bytes]]) -> None:
        """Keeps written entries (log name, time, insert id, received, body); one written twice is kept once."""
        with self.state.transaction():
            self.state.executemany(
                "INSERT OR IGNORE INTO log_written(log_name, timestamp, insert_id, received, body) "
                "VALUES (?, ?, ?, ?, ?)",
                rows,
            )
        self._notify()

    def written(self, since: int, until: int, received: int, *, newest_first: bool) -> list[tuple[int, bytes]]:
        """Written entries of a time span: (received, body)."""
        order = "DESC" if newest_first else "ASC"
        return self.state.all(
            "SELECT received, body FROM log_written WHERE timestamp >= ? AND timestamp <= ? AND received <= ? "  # noqa: S608
            f"ORDER BY timestamp {order}, insert_id {order}",
            since,
            min(until, (1 << 63) - 1),
            received,
        )

    def newer_written(self, after: int, received: int) -> list[tuple[int, int, bytes]]:
        """Written entries after a number, oldest first, at most 1000: (number, received, body)."""
        return self.state.all(
            "SELECT id, received, body FROM log_written WHERE id > ? AND received <= ? ORDER BY id LIMIT 1000",
            after,
            received,
        )

    def log_names(self, project: str) -> list[str]:
        """Names of the logs that have entries."""
        streams = self.state.all("SELECT DISTINCT stream FROM log_files WHERE taken > 0")
        names = {f"projects/{project}/logs/run.googleapis.com%2F{row[0]}" for row in streams}
        return sorted(names | {row[0] for row in self.state.all("SELECT DISTINCT log_name FROM log_written")})

    # --- tailing

    def tailing(self, change: int) -> None:
        """Counts open tail sessions; while there are any, files are looked at more often."""
        self._tailers += change
        self._wake.set()

    @property
    def tailers(self) -> int:
        """Open tail sessions."""
        return self._tailers

    async def news(self, timeout: float) -> None:
        """Returns when something was taken in or written, or after the time (seconds)."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._changed.wait(), timeout)

    def _notify(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def _forget(self, before: int) -> None:
        """Drops files and entries older than the retention."""
        old = self.state.all(
            "SELECT id, path FROM log_files WHERE NOT open AND created < ? AND last < ?", before, before
        )
        for number, path in old:
            self.state.execute("DELETE FROM log_chunks WHERE file = ?", number)
            self.state.execute("DELETE FROM log_files WHERE id = ?", number)
            shutil.rmtree(Path(path).parent, ignore_errors=True)
        self.state.execute("DELETE FROM log_written WHERE timestamp < ?", before)


def _decode(file: LogFile, chunk: Chunk) -> list[Entry]:
    kind, resource, labels = origin(file)
    project = resource["project_id"]
    log_name = f"projects/{project}/logs/run.googleapis.com%2F{file.stream}"
    try:
        with open(file.path, "rb") as source:
            source.seek(chunk.offset)
            data = source.read(chunk.length)
    except FileNotFoundError:
        return []
    found: list[Entry] = []
    at, lines = chunk.offset, data.split(b"\n")
    if not lines[-1]:
        lines.pop()  # what follows the last newline
    for line in lines:
        for piece in pieces(line):
            identity, moment = f"{file.id:08x}{at:012x}", chunk.first + len(found)
            entry = Entry(moment, identity, log_name, kind, resource, labels, chunk.received)
            found.append(read_line(entry, piece))
            at += len(piece)
        at += 1
    return found


def origin(file: LogFile) -> tuple[str, dict[str, str], dict[str, str]]:
    """A file's monitored resource (type and labels) and the labels of its entries."""
    _, project, _, region, _, owner, _, run, *rest = file.execution.split("/")
    if rest:
        resource = {"service_name": owner, "revision_name": run, "configuration_name": owner, "location": region}
        return "cloud_run_revision", {**resource, "project_id": project}, {"instanceId": rest[1]}
    labels = {"run.googleapis.com/execution_name": run, "run.googleapis.com/task_index": str(file.task)}
    return "cloud_run_job", {"project_id": project, "location": region, "job_name": owner}, labels


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
    if len(data) > PIECE:
        return pieces(data)[0]
    return data if final else b""


def _literal(name: str | None) -> str:
    """A name without GLOB's own characters (no execution, job, service or revision has them); `*` for any."""
    return "*" if name is None else "".join(char for char in name.lower() if char.isalnum() or char == "-")
