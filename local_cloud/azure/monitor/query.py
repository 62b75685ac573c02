"""Queries: a table, then operators between bars. Rows flow through them; only a sort keeps them all.

Served: `where` (`filter`), `extend`, `project`, `order by` (`sort by`), `top`, `take` (`limit`), `count`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

from local_cloud.azure.monitor.expressions import Expression, Expressions, Words
from local_cloud.azure.monitor.tables import COLUMNS, INGESTED, Bounds, Row, Tables
from local_cloud.azure.monitor.tokens import QueryError, Token, tokens

_SLICE = 512
"""Rows handled before others have their turn."""
_MAX_ROWS = 500_000
"""What one query may give (Log Analytics' API limit)."""
Rows = AsyncIterator[Row]
Step = Callable[[Rows], Rows]


@dataclass(slots=True)
class Query:
    """A query that can be run: what it gives, and how."""

    table: str
    columns: dict[str, str]
    steps: list[Step] = field(default_factory=list)
    bounds: Bounds = field(default_factory=Bounds)

    async def run(self, tables: Tables) -> tuple[list[list[Any]], bool]:
        """The rows in the columns' order, and whether there were more than may be given. Values are as in `Row`."""
        rows = _read(tables, self.table, self.bounds)
        for step in self.steps:
            rows = step(rows)
        found: list[list[Any]] = []
        names = list(self.columns)
        async for row in rows:
            if len(found) >= _MAX_ROWS:
                return found, True
            found.append([row[name] for name in names])
        return found, False


def parse(text: str) -> Query:
    """Reads a query; raises QueryError."""
    words = Words(tokens(text))
    first = words.want("word")
    if first.text not in COLUMNS:
        message = f"'where' operator: Failed to resolve table or column expression named '{first.text}'"
        raise QueryError("SemanticError", "SEM0100", message)
    query = Query(first.text, dict(COLUMNS[first.text]))
    reader = _Operators(words, query)
    while words.takes("op", "|"):
        reader.read()
    words.takes("op", ";")
    words.want("end")
    return query


def limit(query: Query, since: int, until: int) -> None:
    """Restricts a query to rows generated from `since` up to `until` (nanoseconds)."""
    query.bounds.since, query.bounds.until = max(query.bounds.since, since), min(query.bounds.until, until)
    query.steps.insert(0, _where(lambda row: since <= row["TimeGenerated"] <= until))


class _Operators:
    """Reads the operators after a table."""

    def __init__(self, words: Words, query: Query) -> None:
        self._words = words
        self._query = query
        self._raw = True
        self._known = {
            "where": self._filter, "filter": self._filter, "extend": self._extend, "project": self._project,
            "order": self._order, "sort": self._order, "top": self._top, "take": self._take, "limit": self._take,
            "count": self._count,
        }  # fmt: skip

    def read(self) -> None:
        """One operator."""
        token = self._words.want("word")
        work = self._known.get(token.text)
        if work is None:
            token.refuse()
        work(token)

    def _expressions(self, token: Token) -> Expressions:
        return Expressions(self._words, self._query.columns, token.text)

    def _filter(self, token: Token) -> None:
        found = self._expressions(token).predicate()
        if self._raw:
            _narrow(self._query.bounds, found)
        self._query.steps.append(_where(found.read))

    def _assignments(self, token: Token) -> list[tuple[str, Expression]]:
        found: list[tuple[str, Expression]] = []
        while not found or self._words.takes("op", ","):
            name = ""
            if self._words.peek().kind == "word":
                first = self._words.take()
                if self._words.takes("op", "="):
                    name = first.text
                else:
                    self._words.back()
            value = self._expressions(token).read()
            plain = value.name if value.name in self._query.columns else ""
            found.append((name or plain or f"Column{len(found) + 1}", value))
        return found

    def _extend(self, token: Token) -> None:
        new = self._assignments(token)
        self._query.columns |= {name: value.kind for name, value in new}
        self._query.steps.append(_map(lambda row: row | {name: value.read(row) for name, value in new}))
        self._raw = False

    def _project(self, token: Token) -> None:
        new = self._assignments(token)
        self._query.columns = {name: value.kind for name, value in new}

        def work(row: Row) -> Row:
            return {INGESTED: row[INGESTED], **{name: value.read(row) for name, value in new}}

        self._query.steps.append(_map(work))
        self._raw = False

    def _order(self, token: Token) -> None:
        self._words.want("word", "by")
        self._query.steps.append(_sorted(self._keys(token), None))
        self._raw = False

    def _top(self, token: Token) -> None:
        number = self._number()
        self._words.want("word", "by")
        self._query.steps.append(_sorted(self._keys(token), number))
        self._raw = False

    def _take(self, _token: Token) -> None:
        self._query.steps.append(_first(self._number()))
        self._raw = False

    def _count(self, _token: Token) -> None:
        self._query.columns = {"Count": "long"}
        self._query.steps.append(_counted)
        self._raw = False

    def _number(self) -> int:
        token = self._words.want("long")
        if len(token.text) > 18:
            token.refuse()
        return int(token.text)

    def _keys(self, token: Token) -> list[tuple[Callable[[Row], Any], bool]]:
        found: list[tuple[Callable[[Row], Any], bool]] = []
        while not found or self._words.takes("op", ","):
            value = self._expressions(token).read()
            if value.kind == "dynamic":
                raise QueryError("SemanticError", "SEM0029", f"'{token.text}' operator: key can't be of dynamic type")
            ascending = self._words.takes("word", "asc", "desc")
            up = ascending is not None and ascending.text == "asc"
            first = up
            if self._words.takes("word", "nulls"):
                first = (self._words.takes("word", "first") or self._words.want("word", "last")).text == "first"
            found.append((_key(value.read, nulls_first=first == up), not up))
        return found


def _key(read: Callable[[Row], Any], *, nulls_first: bool) -> Callable[[Row], Any]:
    """A sort key with a place for null, in the sense of ascending order."""
    null = 0 if nulls_first else 2

    def key(row: Row) -> Any:
        value = read(row)
        return (null, 0) if value is None else (1, value)

    return key


def _narrow(bounds: Bounds, found: Expression) -> None:
    """What a predicate demands of each row of the table itself, so that others need not be read."""
    if found.parts and all(isinstance(part, Expression) for part in found.parts):
        for part in found.parts:
            _narrow(bounds, part)
        return
    if len(found.parts) != 3:
        return
    left, op, right = found.parts
    if not (isinstance(left, Expression) and isinstance(right, Expression) and right.constant):
        return
    value = right.read({})
    if left.name == "_ResourceId" and op in ("==", "=~", "in", "in~"):
        named = frozenset(name.lower() for name in (value if isinstance(value, list) else [value]))
        bounds.resources = named if bounds.resources is None else bounds.resources & named
    elif left.name == "TimeGenerated" and isinstance(value, int):
        if op in (">", ">=", "=="):
            bounds.since = max(bounds.since, value)
        if op in ("<", "<=", "=="):
            bounds.until = min(bounds.until, value)
    elif left.name == INGESTED and isinstance(value, int) and op in (">", ">=", "=="):
        bounds.ingested = max(bounds.ingested, value)


# --- the operators' work


async def _read(tables: Tables, table: str, bounds: Bounds) -> Rows:
    for number, row in enumerate(tables.rows(table, bounds)):
        if number % _SLICE == _SLICE - 1:
            await asyncio.sleep(0)
        yield row


def _where(test: Callable[[Row], Any]) -> Step:
    async def step(rows: Rows) -> Rows:
        async for row in rows:
            if test(row):
                yield row

    return step


def _map(work: Callable[[Row], Row]) -> Step:
    async def step(rows: Rows) -> Rows:
        async for row in rows:
            yield work(row)

    return step


def _first(number: int) -> Step:
    async def step(rows: Rows) -> Rows:
        left = number
        async for row in rows:
            if left <= 0:
                return
            left -= 1
            yield row

    return step


def _sorted(keys: list[tuple[Callable[[Row], Any], bool]], number: int | None) -> Step:
    async def step(rows: Rows) -> Rows:
        found = [row async for row in rows]
        for key, descending in reversed(keys):
            found.sort(key=key, reverse=descending)
        for row in found[:number]:
            yield row

    return step


async def _counted(rows: Rows) -> Rows:
    number = 0
    async for _row in rows:
        number += 1
    yield {"Count": number, INGESTED: None}
