"""The local cloud's Log Analytics workspace, queried with the official async client."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from azure.core.exceptions import HttpResponseError

from tests.contract.local_azure_fixtures import WORKSPACE, azure_cloud, push_application

LINES = [
    "plain text with a word-apart",
    'quote " and \\ backslash and \u00fc',
    '{"sockerless":{"container":"abc","seq":7},"message":"hello \U0001f600"}',
]


async def test_output_becomes_typed_rows(tmp_path: Path, monkeypatch: Any) -> None:
    async with azure_cloud(tmp_path, monkeypatch) as (cloud, azure):
        await azure.plan()
        await azure.site("tool", await push_application(cloud))
        await azure.get("tool")
        assert len((await azure.query("AppServiceConsoleLogs")).rows) == 1
        began = datetime.now(UTC)
        await azure.say("tool", "to stdout")
        await azure.say("tool", "to stderr", "stderr")
        table = await azure.query(
            "AppServiceConsoleLogs | where TimeGenerated > ago(1h) | order by TimeGenerated asc "
            "| project TimeGenerated, Level, ResultDescription, _ResourceId"
        )
        assert (table.columns, table.columns_types) == (
            ["TimeGenerated", "Level", "ResultDescription", "_ResourceId"],
            ["datetime", "string", "string", "string"],
        )
        found = [(row["Level"], row["ResultDescription"]) for row in table.rows]
        assert found[0] == ("Informational", "application starts")
        assert sorted(found[1:]) == [("Error", "to stderr"), ("Informational", "to stdout")]
        assert table.rows[0]["_ResourceId"].endswith("/resourcegroups/local/providers/microsoft.web/sites/tool")
        assert isinstance(table.rows[1]["TimeGenerated"], datetime)
        recent = await azure.query("AppServiceConsoleLogs", timespan=timedelta(hours=1))
        assert len(recent.rows) == 3
        past = (began - timedelta(hours=2), began - timedelta(hours=1))
        assert (await azure.query("AppServiceConsoleLogs", timespan=past)).rows == []
        late = began.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        counted = await azure.query(f"AppServiceConsoleLogs | where TimeGenerated >= datetime({late}) | count")
        assert (counted.columns, counted.columns_types, counted.rows[0][0]) == (["Count"], ["long"], 2)


@pytest.mark.parametrize(
    ("operators", "expected"),
    [
        ("where ResultDescription == 'plain text with a word-apart'", [0]),
        ("where ResultDescription =~ 'PLAIN TEXT with a word-apart'", [0]),
        ("where ResultDescription == 'PLAIN TEXT with a word-apart'", []),
        (r"""where ResultDescription == "quote \" and \\ backslash and \u00fc" """, [1]),
        ("""where ResultDescription == @'quote " and \\ backslash and \u00fc'""", [1]),
        ("where ResultDescription has 'word'", [0]),
        ("where ResultDescription has 'wor'", []),
        ("where ResultDescription contains 'WOR'", [0]),
        ("where ResultDescription contains_cs 'WOR'", []),
        ("where ResultDescription startswith 'Quote'", [1]),
        ("where ResultDescription !startswith 'quote' and not(ResultDescription has 'word')", [2]),
        ("where tostring(parse_json(ResultDescription).sockerless.container) == 'abc'", [2]),
        ("where tostring(parse_json(ResultDescription)['sockerless'].container) == 'abc'", [2]),
        ("extend o = parse_json(ResultDescription) | where tolong(o.sockerless.seq) > 6", [2]),
        ("extend o = parse_json(ResultDescription) | where tolong(o.sockerless.seq) > 7", []),
        ("where (ResultDescription has 'word' or ResultDescription has 'hello') and Level == 'Informational'", [0, 2]),
        ("where ResultDescription has 'word' or ResultDescription has 'hello' and Level == 'Error'", [0]),
        ("where Level in ('Error', 'Warning')", []),
        ("where Level in~ ('error', 'informational')", [0, 1, 2]),
        ("where _ResourceId =~ '/x'", []),
        ("where _ResourceId in~ ('/x', '/SUBSCRIPTIONS/s/X')", [0, 1, 2]),
        ("where _ResourceId in ('/subscriptions/s/x')", [0, 1, 2]),
        ("where _ResourceId !in ('/subscriptions/s/x')", []),
        (r"""where ResultDescription contains "\ud83d\ude00" """, [2]),
        (r"""where ResultDescription has "hello" | extend half = tostring(parse_json('["\\ud800"]')[0])""", [2]),
        ("where ingestion_time() > ago(1h) and ingestion_time() <= now()", [0, 1, 2]),
        ("where TimeGenerated > datetime(2999-01-01)", []),
        ("where TimeGenerated > ago(1h) between_never 1", None),
        ("order by TimeGenerated desc", [2, 1, 0]),
        ("sort by Level asc, TimeGenerated", [2, 1, 0]),
        ("order by TimeGenerated asc | take 2", [0, 1]),
        ("top 1 by TimeGenerated", [2]),
        ("limit 0", []),
        ("where true // all of it", [0, 1, 2]),
    ],
)
async def test_kusto(tmp_path: Path, monkeypatch: Any, operators: str, expected: list[int] | None) -> None:
    async with azure_cloud(tmp_path, monkeypatch) as (_cloud, azure):
        _write(_cloud, tmp_path, LINES)
        query = f"AppServiceConsoleLogs | {operators}"
        if expected is None:
            with pytest.raises(HttpResponseError, match="could not be parsed"):
                await azure.query(query)
            return
        table = await azure.query(query)
        assert [LINES.index(row["ResultDescription"]) for row in table.rows] == expected


def _write(cloud: Any, directory: Path, lines: list[str]) -> None:
    """Output of a container, without the container."""
    paths = (directory / "stdout", directory / "stderr")
    paths[0].write_text("".join(f"{line}\n" for line in lines))
    paths[1].touch()
    cloud._azure._tables.follow("1-x-0", "/subscriptions/s/x", *paths)


@pytest.mark.parametrize(
    ("query", "kind", "code"),
    [
        ("AppServiceConsoleLogs | summarize count()", "SyntaxError", "SYN0002"),
        ("AppServiceConsoleLogs | where", "SyntaxError", "SYN0002"),
        ("AppServiceConsoleLogs | where Level == 'open", "SyntaxError", "SYN0002"),
        ("AppServiceConsoleLogs where Level == 'a'", "SyntaxError", "SYN0002"),
        ("AppServiceConsoleLogs | where (Level == 'a'", "SyntaxError", "SYN0002"),
        ("AppServiceConsoleLogs | where " + "(" * 200, "SyntaxError", "SYN0002"),
        ("AppServiceConsoleLogs | take many", "SyntaxError", "SYN0002"),
        ("AppServiceConsoleLogs | where TimeGenerated > datetime(never)", "SyntaxError", "SYN0002"),
        (r"AppServiceConsoleLogs | where Level == '\q'", "SyntaxError", "SYN0002"),
        ("Nothing | take 1", "SemanticError", "SEM0100"),
        ("AppServiceConsoleLogs | where Nothing == 'a'", "SemanticError", "SEM0100"),
        ("AppServiceConsoleLogs | where Level == 1", "SemanticError", "SEM0064"),
        ("AppServiceConsoleLogs | where parse_json(Level).a == 'b'", "SemanticError", "SEM0064"),
        ("AppServiceConsoleLogs | where Level", "SemanticError", "SEM0139"),
    ],
)
async def test_other_queries_are_refused(tmp_path: Path, monkeypatch: Any, query: str, kind: str, code: str) -> None:
    async with azure_cloud(tmp_path, monkeypatch) as (_, azure):
        with pytest.raises(HttpResponseError) as caught:
            await azure.query(query)
        assert caught.value.status_code == 400
        response: Any = caught.value.response
        error = response.json()["error"]
        assert (error["code"], error["innererror"]["code"]) == ("BadArgumentError", kind)
        assert error["innererror"]["innererror"]["code"] == code


async def test_who_may_query_what(tmp_path: Path, monkeypatch: Any) -> None:
    async with azure_cloud(tmp_path, monkeypatch) as (_, azure):
        with pytest.raises(HttpResponseError, match="WorkspaceNotFound") as caught:
            await azure.logs.query_workspace(WORKSPACE[:-1] + "9", "AppServiceConsoleLogs", timespan=None)
        assert caught.value.status_code == 404
        arm = (await azure.credential.get_token("https://management.azure.com/.default")).token
        path, body = f"/v1/workspaces/{WORKSPACE}/query", {"query": "AppServiceConsoleLogs"}
        for header, status, code in (
            ({}, 401, "AuthenticationFailed"),
            ({"Authorization": "Bearer x"}, 403, "InvalidAuthenticationToken"),
            ({"Authorization": f"Bearer {arm}"}, 403, "InvalidAuthenticationTokenAudience"),
        ):
            answer = await azure.http.post(path, json=body, headers=header)
            assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
        faults = {"Monitor.Query": {"status": "RESOURCE_EXHAUSTED"}}
        assert (await azure.http.put("/_local/faults", json=faults)).status_code == 204
        with pytest.raises(HttpResponseError) as caught:
            await azure.query("AppServiceConsoleLogs")
        assert caught.value.status_code == 429


async def test_rows_stay_invisible_until_they_are_ingested(tmp_path: Path, monkeypatch: Any) -> None:
    async with azure_cloud(tmp_path, monkeypatch, azure_ingestion_delay=3) as (cloud, azure):
        _write(cloud, tmp_path, LINES)
        assert (await azure.query("AppServiceConsoleLogs")).rows == []
        for _ in range(400):
            table = await azure.query("AppServiceConsoleLogs | extend late = ingestion_time() - TimeGenerated")
            if table.rows:
                break
            await asyncio.sleep(0.05)
        assert len(table.rows) == 3
        assert table.columns_types[-1] == "timespan"


async def test_long_and_unfinished_lines_are_kept(tmp_path: Path, monkeypatch: Any) -> None:
    async with azure_cloud(tmp_path, monkeypatch) as (cloud, azure):
        _write(cloud, tmp_path, ["x" * 150_000, "y"])
        with (tmp_path / "stdout").open("a") as file:
            file.write("unfinished")
        query = "AppServiceConsoleLogs | extend n = strlen(ResultDescription) | project n"
        assert [row[0] for row in (await azure.query(query)).rows] == [65536, 65536, 18928, 1]
        cloud._azure._tables.close("1-x-0")
        assert [row[0] for row in (await azure.query(query)).rows][-1] == len("unfinished")
