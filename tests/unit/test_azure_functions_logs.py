"""Log Analytics: queries, rows as lines, readings without loss or doubling."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, cast

import pytest

from control_plane.backends.azure import kql, logs
from control_plane.backends.azure.clients import Clients
from control_plane.backends.azure.log_feed import LogFeed
from control_plane.backends.azure.log_rows import ReadLine, Row, line_of, numbered, row_of
from control_plane.backends.azure.logs import LogReader
from control_plane.backends.calls import CloudError

SITE = "/subscriptions/s/resourcegroups/g/providers/microsoft.web/sites/skls-1"
BOX = "c" * 64
SECOND = 1_000_000_000
START = 1_795_000_000 * SECOND


# --- the query


@pytest.mark.parametrize(
    "hostile", ['x" or 1==1 //', "x\\", 'x\\" | take 1', "a\nb", "\u2028", "\U0001f600", "'", "`", "\x00"]
)
def test_a_value_cannot_leave_its_literal(hostile: str) -> None:
    literal = kql.quoted(hostile)
    assert re.fullmatch(r'"(?:[ !#-\[\]-~]|\\["\\]|\\u[0-9a-f]{4})*"', literal)
    # KQL's escapes are JSON's.
    assert json.loads(literal) == hostile


def test_the_whole_query() -> None:
    query = kql.console_lines(
        ['/sites/A"', "/sites/b"], since=1_500_000_123, before=2 * SECOND, newest_first=False, limit=7
    )
    assert query == "\n| ".join(
        [
            "AppServiceConsoleLogs",
            "where TimeGenerated >= datetime(1970-01-01T00:00:01.5000001Z)",
            "where TimeGenerated < datetime(1970-01-01T00:00:02.0000000Z)",
            'where _ResourceId in~ ("/sites/a\\"", "/sites/b")',
            "project TimeGenerated, Level, ResultDescription, _ResourceId",
            "order by TimeGenerated asc",
            "take 7",
        ]
    )


# --- rows


def row(text: str, at: int = START, level: str = "Informational") -> Row:
    return Row(at, SITE, level, text)


def agents(message: str, at: str = "2026-11-23T01:02:03.000000004Z", **ours: Any) -> str:
    body = {"run": 1, "partial": False, "container": BOX, "stream": "stdout", "n": 1} | ours
    return json.dumps({"message": message, "time": at, "sockerless": body})


def read(found: Row) -> ReadLine:
    line = line_of(found, BOX)
    assert line is not None
    return line


def test_the_agents_lines_have_its_own_time_stream_and_bytes() -> None:
    line = read(row(agents("hello", stream="stderr"))).line
    assert (line.stream, line.text) == ("stderr", b"hello\n")
    assert line.at % SECOND == 4
    assert read(row(agents("no end", partial=True))).line.text == b"no end"
    encoded = {"base64": base64.b64encode(b"\xff\x00").decode(), "sockerless": {"container": BOX}}
    assert read(row(json.dumps(encoded))).line.text == b"\xff\x00\n"


def test_other_lines_stand_for_themselves() -> None:
    for text in ("plain", "{not json", "[1]", '{"message":"a program\'s own"}', '{"sockerless":"no"}', "{" * 50_000):
        line = read(row(text)).line
        assert (line.text, line.at, line.stream) == (text.encode() + b"\n", START, "stdout")
    assert read(row("oops", level="Error")).line.stream == "stderr"


def test_what_is_not_the_containers_output_is_left_out() -> None:
    assert line_of(row(agents("for the operator", agent=True)), BOX) is None
    assert line_of(row(agents("another's", container="d" * 64)), BOX) is None


@pytest.mark.parametrize("bad", [None, 5, "yesterday", {}])
def test_a_time_that_is_none_is_the_platforms(bad: Any) -> None:
    assert read(row(json.dumps({"message": "m", "time": bad, "sockerless": {"n": "x"}}))).line.at == START


def test_equal_rows_of_an_instant_are_told_apart_the_same_each_time() -> None:
    rows = [row("a"), row("a"), row("b"), row("a", START + 1000)]
    keys = [one.key for one in numbered(rows)]
    assert len(set(keys)) == 4
    assert [one.key for one in numbered(rows)] == keys


def test_times_are_those_of_the_sdk() -> None:
    at = datetime(2026, 11, 23, 1, 2, 3, 456789, tzinfo=UTC)
    assert row_of(at, "Error", "x", SITE.upper()).generated % SECOND == 456_789_000
    assert row_of("2026-11-23T01:02:03.4567891Z", None, None, None).generated % SECOND == 456_789_000


# --- readings


class Workspace:
    """A table behind `LogsQueryClient.query_workspace`: answers our own queries alone."""

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self.queries: list[str] = []

    def write(self, text: str, at: int) -> None:
        self.rows.append(Row(at, SITE, "Informational", text))

    async def query_workspace(self, workspace: str, query: str, *, timespan: None) -> Any:
        self.queries.append(query)
        found = [one for one in self.rows if f'"{one.resource}"' in query]
        for sign, keep in cast(
            "dict[str, Callable[[int, int], bool]]", {">=": lambda a, b: a >= b, "<": lambda a, b: a < b}
        ).items():
            bound = re.search(rf"where TimeGenerated {sign} datetime\(([^)]+)\)", query)
            if bound:
                limit = row_of(bound[1], "", "", "").generated
                found = [one for one in found if keep(one.generated, limit)]
        found.sort(key=lambda one: one.generated)
        if "desc" in query:
            found.reverse()
        take = re.search(r"take (\d+)$", query)
        assert take
        table = [
            {
                "TimeGenerated": datetime.fromtimestamp(one.generated // SECOND, UTC).replace(
                    microsecond=one.generated % SECOND // 1000
                ),
                "Level": one.level,
                "ResultDescription": one.text,
                "_ResourceId": one.resource,
            }
            for one in found[: int(take[1])]
        ]
        return type("Result", (), {"tables": [type("Table", (), {"rows": table})]})


class FakeClients:
    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace

    async def logs(self) -> Workspace:
        return self._workspace


@pytest.fixture
def workspace() -> Workspace:
    return Workspace()


@pytest.fixture
def reader(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> LogReader:
    monkeypatch.setattr(logs, "PAGE", 4)
    return LogReader(cast(Clients, FakeClients(workspace)), "w", reads_per_minute=0)


async def texts(reader: LogReader, **changes: Any) -> list[str]:
    wanted = {"since": START, "until": None, "tail": None} | changes
    return [one.line.text.decode().strip() async for one in reader.lines(SITE, BOX, **wanted)]


async def test_pages_meet_in_an_instant_without_loss(workspace: Workspace, reader: LogReader) -> None:
    # Instants of one to seven rows: pages of four end in the middle of them, and one instant is larger than a page.
    wanted = []
    for instant in range(12):
        for number in range(instant % 7 + 1):
            text = f"{instant}-{number // 2}"  # some are equal
            workspace.write(text, START + instant * 1_000_000)
            wanted.append(text)
    assert await texts(reader) == wanted
    for count in (0, 1, 3, 4, 5, 17, 1000):
        assert await texts(reader, tail=count) == wanted[len(wanted) - min(count, len(wanted)) :]


async def test_times_choose_after_tail_as_in_moby(workspace: Workspace, reader: LogReader) -> None:
    for number in range(10):
        workspace.write(str(number), START + number * SECOND)
    assert await texts(reader, since=START + 3 * SECOND, until=START + 6 * SECOND) == ["3", "4", "5", "6"]
    assert await texts(reader, since=START + 3 * SECOND, tail=2) == ["8", "9"]
    assert await texts(reader, since=START + 9 * SECOND, tail=2) == ["9"]


async def test_the_agents_order_counts_within_an_instant(workspace: Workspace, reader: LogReader) -> None:
    for number in (3, 1, 2):
        workspace.write(agents(str(number), n=number), START)
    assert await texts(reader, since=0) == ["1", "2", "3"]


async def test_more_rows_than_can_be_read_in_one_instant_are_an_error(
    workspace: Workspace, reader: LogReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "_LARGEST_PAGE", 8)
    for number in range(20):
        workspace.write(str(number), START)
    with pytest.raises(CloudError, match="carry one time"):
        await texts(reader)


async def test_following_brings_late_rows_once_and_one_query_serves_all(
    workspace: Workspace, reader: LogReader
) -> None:
    feed = LogFeed(reader, interval=0.01)
    workspace.write("given", START)
    given = [one async for one in reader.lines(SITE, BOX, since=START, until=None, tail=None)]
    try:
        async with feed.follow(SITE, BOX, START, given) as first, feed.follow(SITE, BOX, START) as second:
            line = await second.next_line(5)
            assert line is not None
            assert line.text == b"given\n"
            workspace.write("new", START + 5 * SECOND)
            assert [(await one.next_line(5)).text for one in (first, second)] == [b"new\n"] * 2  # type: ignore[union-attr]
            # Taken in after a later one: within the overlap it is still found.
            workspace.write("late", START + 2 * SECOND)
            assert [(await one.next_line(5)).text for one in (first, second)] == [b"late\n"] * 2  # type: ignore[union-attr]
            before = first.readings
            while first.readings < before + 3:
                assert await first.next_line(0.01) is None
            assert len(workspace.queries) <= first.readings + second.readings
    finally:
        await feed.close()
