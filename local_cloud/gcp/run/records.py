"""Jobs, executions and tasks in the state file, as serialized messages beside the columns that are searched."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from google.cloud import run_v2

from local_cloud.errors import invalid
from local_cloud.state import State

JobMessage: Any = run_v2.Job.pb()
ExecutionMessage: Any = run_v2.Execution.pb()
TaskMessage: Any = run_v2.Task.pb()

_SCHEMA = """
CREATE TABLE IF NOT EXISTS run_jobs(
    id INTEGER PRIMARY KEY, name TEXT UNIQUE NOT NULL, parent TEXT NOT NULL, repository TEXT NOT NULL, digest TEXT NOT
    NULL, operation TEXT NOT NULL, body BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS run_executions(
    id INTEGER PRIMARY KEY, name TEXT UNIQUE NOT NULL, parent TEXT NOT NULL, job TEXT NOT NULL, running INTEGER NOT
    NULL, operation TEXT NOT NULL, stopping TEXT NOT NULL, repository TEXT NOT NULL, digest TEXT NOT NULL, body BLOB
    NOT
    NULL);
CREATE INDEX IF NOT EXISTS run_executions_job ON run_executions(job);
CREATE INDEX IF NOT EXISTS run_executions_running ON run_executions(running) WHERE running;
CREATE TABLE IF NOT EXISTS run_tasks(
    id INTEGER PRIMARY KEY, name TEXT UNIQUE NOT NULL, execution TEXT NOT NULL, number INTEGER NOT NULL, attempt
    INTEGER NOT NULL, phase TEXT NOT NULL, body BLOB NOT NULL);
CREATE INDEX IF NOT EXISTS run_tasks_execution ON run_tasks(execution);
"""
PENDING, STARTED, DONE = "pending", "started", "done"
"""A task's phases. `started` is written before the runtime is told, so that a restart knows what to look for."""


@dataclass(slots=True)
class JobRecord:
    """A job with what the service remembers beside it."""

    job: Any
    repository: str
    digest: str
    operation: str


@dataclass(slots=True)
class TaskRecord:
    """A task with its current attempt and phase."""

    task: Any
    attempt: int
    phase: str


@dataclass(slots=True)
class ExecutionRecord:
    """An execution, its image's address, and why it is being stopped (`cancel`, `delete` or empty)."""

    execution: Any
    operation: str
    stopping: str
    repository: str
    digest: str


class Records:
    """Reads and writes; the rules are elsewhere."""

    def __init__(self, state: State) -> None:
        self.state = state
        state.define(_SCHEMA)

    def job(self, name: str) -> JobRecord | None:
        """A job by full name."""
        row = self.state.one("SELECT body, repository, digest, operation FROM run_jobs WHERE name = ?", name)
        return None if row is None else JobRecord(JobMessage.FromString(row[0]), row[1], row[2], row[3])

    def put_job(self, parent: str, record: JobRecord) -> None:
        """Writes a job, new or changed."""
        self.state.execute(
            "INSERT INTO run_jobs(name, parent, repository, digest, operation, body) VALUES (?, ?, ?, ?, ?, ?) "
            "ON CONFLICT(name) DO UPDATE SET repository = excluded.repository, digest = excluded.digest, "
            "operation = excluded.operation, body = excluded.body",
            record.job.name,
            parent,
            record.repository,
            record.digest,
            record.operation,
            record.job.SerializeToString(),
        )

    def delete_job(self, name: str) -> None:
        """Forgets a job (not its executions)."""
        self.state.execute("DELETE FROM run_jobs WHERE name = ?", name)

    def count_jobs(self, parent: str) -> int:
        """Jobs of a region; `*` for all."""
        row = self.state.one("SELECT count(*) FROM run_jobs WHERE parent GLOB ?", parent)
        return int(row[0]) if row else 0

    def reconciling_jobs(self) -> list[JobRecord]:
        """Jobs whose create or update operation has not ended."""
        rows = self.state.all("SELECT body, repository, digest, operation FROM run_jobs WHERE operation != ''")
        return [JobRecord(JobMessage.FromString(row[0]), row[1], row[2], row[3]) for row in rows]

    def execution(self, name: str) -> ExecutionRecord | None:
        """An execution by full name."""
        found = self._executions("WHERE name = ?", name)
        return found[0] if found else None

    def executions_of(self, job: str) -> list[ExecutionRecord]:
        """All executions of a job."""
        return self._executions("WHERE job = ?", job)

    def running_executions(self) -> list[ExecutionRecord]:
        """Executions that have not ended."""
        return self._executions("WHERE running")

    def count_running(self, parent: str) -> int:
        """Executions of a region that have not ended; `*` for all."""
        row = self.state.one("SELECT count(*) FROM run_executions WHERE running AND parent GLOB ?", parent)
        return int(row[0]) if row else 0

    def _executions(self, where: str, *values: str) -> list[ExecutionRecord]:
        statement = f"SELECT body, operation, stopping, repository, digest FROM run_executions {where}"  # noqa: S608
        rows = self.state.all(statement, *values)
        return [ExecutionRecord(ExecutionMessage.FromString(row[0]), *row[1:]) for row in rows]

    def add_execution(self, parent: str, job: str, record: ExecutionRecord, tasks: list[TaskRecord]) -> None:
        """Writes a new execution with its tasks."""
        execution = record.execution
        self.state.execute(
            "INSERT INTO run_executions(name, parent, job, running, operation, stopping, repository, digest, body) "
            "VALUES (?, ?, ?, 1, ?, ?, ?, ?, ?)",
            execution.name,
            parent,
            job,
            record.operation,
            record.stopping,
            record.repository,
            record.digest,
            execution.SerializeToString(),
        )
        self.state.executemany(
            "INSERT INTO run_tasks(name, execution, number, attempt, phase, body) VALUES (?, ?, ?, ?, ?, ?)",
            [
                (t.task.name, execution.name, t.task.index, t.attempt, t.phase, t.task.SerializeToString())
                for t in tasks
            ],
        )

    def put_execution(self, record: ExecutionRecord) -> None:
        """Writes a changed execution; it no longer counts as running once it has a completion time."""
        execution = record.execution
        self.state.execute(
            "UPDATE run_executions SET running = ?, stopping = ?, body = ? WHERE name = ?",
            0 if execution.HasField("completion_time") else 1,
            record.stopping,
            execution.SerializeToString(),
            execution.name,
        )

    def put_task(self, record: TaskRecord) -> None:
        """Writes a changed task."""
        body = record.task.SerializeToString()
        self.state.execute(
            "UPDATE run_tasks SET attempt = ?, phase = ?, body = ? WHERE name = ?",
            record.attempt,
            record.phase,
            body,
            record.task.name,
        )

    def delete_execution(self, name: str) -> None:
        """Forgets an execution and its tasks."""
        with self.state.transaction():
            self.state.execute("DELETE FROM run_executions WHERE name = ?", name)
            self.state.execute("DELETE FROM run_tasks WHERE execution = ?", name)

    def tasks(self, execution: str) -> list[TaskRecord]:
        """The tasks of an execution in order of their index."""
        rows = self.state.all(
            "SELECT body, attempt, phase FROM run_tasks WHERE execution = ? ORDER BY number", execution
        )
        return [TaskRecord(TaskMessage.FromString(row[0]), row[1], row[2]) for row in rows]

    def task(self, name: str) -> Any:
        """A task message by full name, or None."""
        row = self.state.one("SELECT body FROM run_tasks WHERE name = ?", name)
        return None if row is None else TaskMessage.FromString(row[0])

    def page(self, table: str, column: str, pattern: str, size: int, token: str) -> tuple[list[bytes], str]:
        """One page of bodies, newest first. `pattern` is a parent's name, `-` in it matching anything."""
        if size < 0 or (token and not token.isdecimal()):
            invalid("Invalid page_size or page_token.")
        limit = min(size or 100, 1000)
        before = int(token) if token else 1 << 62
        glob = pattern.replace("/-", "/*")
        rows = self.state.all(
            f"SELECT id, body FROM {table} WHERE {column} GLOB ? AND id < ? ORDER BY id DESC LIMIT ?",  # noqa: S608
            glob,
            before,
            limit + 1,
        )
        following = str(rows[limit - 1][0]) if len(rows) > limit else ""
        return [row[1] for row in rows[:limit]], following
