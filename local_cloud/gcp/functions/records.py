"""Functions in the state file, as serialized messages beside the columns that are searched.

It loads no SDK: a local cloud without functions does not need Cloud Functions' own.
"""

from __future__ import annotations

from dataclasses import dataclass

from local_cloud.errors import invalid
from local_cloud.state import State

_SCHEMA = """
CREATE TABLE IF NOT EXISTS functions(
    id INTEGER PRIMARY KEY, name TEXT UNIQUE NOT NULL, parent TEXT NOT NULL, service TEXT NOT NULL, operation TEXT NOT
    NULL, verb TEXT NOT NULL, version INTEGER NOT NULL, body BLOB NOT NULL);
CREATE INDEX IF NOT EXISTS functions_service ON functions(service);
"""


@dataclass(slots=True)
class FunctionRow:
    """A function; `body` is its Function message."""

    name: str
    service: str
    operation: str
    """The operation that has not ended yet."""
    verb: str
    version: int
    """How often it has been built."""
    body: bytes


class FunctionRecords:
    """Reads and writes; the rules are elsewhere."""

    def __init__(self, state: State) -> None:
        self.state = state
        state.define(_SCHEMA)

    def function(self, name: str) -> FunctionRow | None:
        """A function by full name."""
        found = self._rows("WHERE name = ?", name)
        return found[0] if found else None

    def has_service(self, service: str) -> bool:
        """Whether a service belongs to a function."""
        return self.state.one("SELECT 1 FROM functions WHERE service = ?", service) is not None

    def unfinished(self) -> list[FunctionRow]:
        """Functions whose operation has not ended."""
        return self._rows("WHERE operation != ''")

    def count(self) -> int:
        """All functions."""
        row = self.state.one("SELECT count(*) FROM functions")
        return int(row[0]) if row else 0

    def _rows(self, where: str, *values: str) -> list[FunctionRow]:
        statement = f"SELECT name, service, operation, verb, version, body FROM functions {where}"  # noqa: S608
        return [FunctionRow(*row) for row in self.state.all(statement, *values)]

    def put(self, row: FunctionRow) -> None:
        """Writes a function, new or changed."""
        self.state.execute(
            "INSERT INTO functions(name, parent, service, operation, verb, version, body) VALUES (?, ?, ?, ?, ?, ?, ?) "
            "ON CONFLICT(name) DO UPDATE SET operation = excluded.operation, verb = excluded.verb, "
            "version = excluded.version, body = excluded.body",
            row.name,
            row.name.partition("/functions/")[0],
            row.service,
            row.operation,
            row.verb,
            row.version,
            row.body,
        )

    def delete(self, name: str) -> None:
        """Forgets a function."""
        self.state.execute("DELETE FROM functions WHERE name = ?", name)

    def page(self, parent: str, size: int, token: str) -> tuple[list[bytes], str]:
        """One page of bodies in order of name; the location may be `-`."""
        if size < 0:
            invalid("Invalid page_size.")
        limit = min(size or 1000, 1000)
        rows = self.state.all(
            "SELECT name, body FROM functions WHERE parent GLOB ? AND name > ? ORDER BY name LIMIT ?",
            parent.replace("/-", "/*"),
            token,
            limit + 1,
        )
        following = str(rows[limit - 1][0]) if len(rows) > limit else ""
        return [row[1] for row in rows[:limit]], following
