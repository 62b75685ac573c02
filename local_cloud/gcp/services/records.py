"""Services, revisions and instances in the state file, as serialized messages beside the columns that are searched."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from google.cloud import run_v2

from local_cloud.errors import invalid
from local_cloud.state import State

ServiceMessage: Any = run_v2.Service.pb()
RevisionMessage: Any = run_v2.Revision.pb()
_SCHEMA = """
CREATE TABLE IF NOT EXISTS run_services(
    id INTEGER PRIMARY KEY, name TEXT UNIQUE NOT NULL, parent TEXT NOT NULL, host TEXT NOT NULL, numbered TEXT NOT NULL,
    operation TEXT NOT NULL, deleting INTEGER NOT NULL, body BLOB NOT NULL);
CREATE INDEX IF NOT EXISTS run_services_host ON run_services(host);
CREATE INDEX IF NOT EXISTS run_services_numbered ON run_services(numbered);
CREATE TABLE IF NOT EXISTS run_revisions(
    id INTEGER PRIMARY KEY, name TEXT UNIQUE NOT NULL, service TEXT NOT NULL, repository TEXT NOT NULL, digest TEXT NOT
    NULL, body BLOB NOT NULL);
CREATE INDEX IF NOT EXISTS run_revisions_service ON run_revisions(service);
CREATE TABLE IF NOT EXISTS run_instances(
    id TEXT PRIMARY KEY, revision TEXT NOT NULL, port INTEGER NOT NULL) WITHOUT ROWID;
"""


@dataclass(slots=True)
class ServiceRecord:
    """A service with what is remembered beside it."""

    service: Any
    operation: str = ""
    """The operation that has not ended yet."""
    deleting: bool = False


@dataclass(slots=True)
class RevisionRecord:
    """A revision and its image's address; the address is empty for what Cloud Functions built."""

    revision: Any
    repository: str
    digest: str


class ServiceRecords:
    """Reads and writes; the rules are elsewhere."""

    def __init__(self, state: State) -> None:
        self.state = state
        state.define(_SCHEMA)

    # --- services

    def service(self, name: str) -> ServiceRecord | None:
        """A service by full name."""
        return self._service("WHERE name = ?", name)

    def by_host(self, host: str) -> ServiceRecord | None:
        """A service by one of its host names."""
        return self._service("WHERE host = ? OR numbered = ?", host, host)

    def _service(self, where: str, *values: str) -> ServiceRecord | None:
        row = self.state.one(f"SELECT body, operation, deleting FROM run_services {where}", *values)  # noqa: S608
        return None if row is None else ServiceRecord(ServiceMessage.FromString(row[0]), row[1], bool(row[2]))

    def put_service(self, record: ServiceRecord, host: str, numbered: str) -> None:
        """Writes a service, new or changed."""
        name = record.service.name
        self.state.execute(
            "INSERT INTO run_services(name, parent, host, numbered, operation, deleting, body) "
            "VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT(name) DO UPDATE SET operation = excluded.operation, "
            "deleting = excluded.deleting, body = excluded.body",
            name,
            name.partition("/services/")[0],
            host,
            numbered,
            record.operation,
            record.deleting,
            record.service.SerializeToString(),
        )

    def delete_service(self, name: str) -> None:
        """Forgets a service and its revisions."""
        with self.state.transaction():
            self.state.execute("DELETE FROM run_services WHERE name = ?", name)
            self.state.execute("DELETE FROM run_revisions WHERE service = ?", name)

    def count_services(self, parent: str | None = None) -> int:
        """Services of a region, or all."""
        row = self.state.one("SELECT count(*) FROM run_services WHERE parent GLOB ?", parent or "*")
        return int(row[0]) if row else 0

    def unfinished(self) -> list[ServiceRecord]:
        """Services whose create, update or delete operation has not ended."""
        rows = self.state.all("SELECT body, operation, deleting FROM run_services WHERE operation != ''")
        return [ServiceRecord(ServiceMessage.FromString(row[0]), row[1], bool(row[2])) for row in rows]

    # --- revisions

    def revision(self, name: str) -> RevisionRecord | None:
        """A revision by full name."""
        row = self.state.one("SELECT body, repository, digest FROM run_revisions WHERE name = ?", name)
        return None if row is None else RevisionRecord(RevisionMessage.FromString(row[0]), row[1], row[2])

    def put_revision(self, service: str, record: RevisionRecord) -> None:
        """Writes a revision, new or changed."""
        self.state.execute(
            "INSERT INTO run_revisions(name, service, repository, digest, body) VALUES (?, ?, ?, ?, ?) "
            "ON CONFLICT(name) DO UPDATE SET repository = excluded.repository, digest = excluded.digest, "
            "body = excluded.body",
            record.revision.name,
            service,
            record.repository,
            record.digest,
            record.revision.SerializeToString(),
        )

    def delete_revision(self, name: str) -> None:
        """Forgets a revision."""
        self.state.execute("DELETE FROM run_revisions WHERE name = ?", name)

    # --- instances

    def put_instance(self, id: str, revision: str, port: int) -> None:
        """Writes an instance: with port 0 before it is started, with its port after."""
        self.state.execute("INSERT OR REPLACE INTO run_instances VALUES (?, ?, ?)", id, revision, port)

    def forget_instance(self, id: str) -> None:
        """Forgets an instance that has ended."""
        self.state.execute("DELETE FROM run_instances WHERE id = ?", id)

    def instances(self) -> list[tuple[str, str, int]]:
        """All instances: (runtime id, revision name, port)."""
        rows = self.state.all("SELECT id, revision, port FROM run_instances")
        return [(row[0], row[1], row[2]) for row in rows]

    # --- lists

    def page(self, table: str, column: str, pattern: str, size: int, token: str) -> tuple[list[bytes], str]:
        """One page of bodies, newest first. `pattern` is a parent's name, `-` in it matching anything."""
        if size < 0 or (token and not token.isdecimal()):
            invalid("Invalid page_size or page_token.")
        limit = min(size or 100, 1000)
        rows = self.state.all(
            f"SELECT id, body FROM {table} WHERE {column} GLOB ? AND id < ? ORDER BY id DESC LIMIT ?",  # noqa: S608
            pattern.replace("/-", "/*"),
            int(token) if token else 1 << 62,
            limit + 1,
        )
        following = str(rows[limit - 1][0]) if len(rows) > limit else ""
        return [row[1] for row in rows[:limit]], following
