"""Cloud Logging v2 of the local cloud, driven by the official async client."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from google.api.monitored_resource_pb2 import MonitoredResource
from google.api_core import exceptions
from google.cloud.logging_v2.services.logging_service_v2 import LoggingServiceV2AsyncClient
from google.cloud.logging_v2.services.logging_service_v2.transports.grpc_asyncio import (
    LoggingServiceV2GrpcAsyncIOTransport,
)
from google.cloud.logging_v2.types import ListLogEntriesRequest, LogEntry, TailLogEntriesRequest, WriteLogEntriesRequest

from local_cloud.quotas import Quotas
from local_cloud.server import LocalCloud
from tests.contract.local_gcp_fixtures import ProcessRuntime, Sdk, job, local_cloud, push

NAMES = " OR ".join(f'logName="projects/local/logs/run.googleapis.com%2F{stream}"' for stream in ("stdout", "stderr"))


def logging_client(sdk: Sdk) -> LoggingServiceV2AsyncClient:
    return LoggingServiceV2AsyncClient(transport=LoggingServiceV2GrpcAsyncIOTransport(channel=sdk.channel))


async def entries(sdk: Sdk, text: str = "", **options: Any) -> list[LogEntry]:
    request = ListLogEntriesRequest(resource_names=["projects/local"], filter=text, **options)
    return [entry async for entry in await logging_client(sdk).list_log_entries(request)]


async def texts(sdk: Sdk, text: str, **options: Any) -> list[str]:
    return [entry.text_payload for entry in await entries(sdk, text, **options)]


async def run(cloud: LocalCloud, sdk: Sdk, script: str, name: str = "tool") -> str:
    """Runs a shell script to its end; returns the execution's id."""
    await sdk.create(name, job(await push(cloud.http_url), "sh", "-c", script))
    execution = await sdk.run(name)
    await sdk.ended(execution.name)
    return str(execution.name.rpartition("/")[2])


async def test_output_becomes_entries_as_cloud_run_makes_them(tmp_path: Path) -> None:
    async with local_cloud(tmp_path) as (cloud, sdk):
        execution = await run(cloud, sdk, "echo one; echo two; echo oops >&2; printf last")
        by_execution = f'labels."run.googleapis.com/execution_name"="{execution}"'
        found = await entries(
            sdk, f'resource.type="cloud_run_job" resource.labels.job_name="tool" {by_execution} ({NAMES})'
        )
        by_stream = {"stdout": [], "stderr": []}  # type: dict[str, list[str]]
        for entry in found:
            by_stream[entry.log_name.rpartition("%2F")[2]].append(entry.text_payload)
            assert dict(entry.resource.labels) == {"project_id": "local", "location": "us-central1", "job_name": "tool"}
            assert entry.labels["run.googleapis.com/task_index"] == "0"
            assert entry.severity == 0
        assert by_stream == {"stdout": ["one", "two", "last"], "stderr": ["oops"]}
        assert len({entry.insert_id for entry in found}) == 4
        assert [entry.timestamp for entry in found] == sorted(entry.timestamp for entry in found)
        assert await texts(sdk, f'{by_execution} logName:"stderr"') == ["oops"]


async def test_structured_lines_are_taken_apart(tmp_path: Path) -> None:
    lines = [
        {"message": "only a message", "severity": "ERROR"},
        {"message": "more", "user": {"id": 7}, "time": "2026-01-02T03:04:05.123456789Z", "severity": "warning"},
        {"logging.googleapis.com/labels": {"k": "v"}, "logging.googleapis.com/trace": "t", "n": 1},
    ]
    (tmp_path / "lines").write_text("\n".join([*map(json.dumps, lines), "{not json}", "plain"]) + "\n")
    async with local_cloud(tmp_path / "data") as (cloud, sdk):
        await run(cloud, sdk, f"cat {tmp_path}/lines")
        found = await entries(sdk)
        kinds = {(entry.text_payload or "", int(entry.severity)) for entry in found}
        assert {("only a message", 500), ("{not json}", 0), ("plain", 0)} <= kinds
        (user,) = await entries(sdk, "jsonPayload.user.id=7")
        assert user.json_payload["message"] == "more"
        assert int(user.severity) == 400
        (labelled,) = await entries(sdk, "labels.k=v")
        assert (labelled.trace, labelled.json_payload["n"]) == ("t", 1)


async def test_a_lines_own_time_is_its_timestamp(tmp_path: Path) -> None:
    async with local_cloud(tmp_path) as (cloud, sdk):
        await run(
            cloud,
            sdk,
            """echo second; printf '{"message":"first","time":"%s"}\n' $(date -u -d '-1 hour' +%Y-%m-%dT%H:%M:%SZ)""",
        )
        assert await texts(sdk, "", order_by="timestamp asc") == ["first", "second"]
        assert await texts(sdk, "", order_by="timestamp desc") == ["second", "first"]


async def test_pages_lose_and_double_nothing(tmp_path: Path) -> None:
    async with local_cloud(tmp_path) as (cloud, sdk):
        await run(cloud, sdk, "seq 1 1000; seq 1001 1500 >&2")
        client = logging_client(sdk)
        for order in ("timestamp asc", "timestamp desc"):
            found: list[str] = []
            request = ListLogEntriesRequest(resource_names=["projects/local"], order_by=order, page_size=97)
            pages = 0
            async for page in (await client.list_log_entries(request)).pages:
                pages += 1
                found += [entry.text_payload for entry in page.entries]
            assert pages == 16
            assert sorted(map(int, found)) == list(range(1, 1501))
            stdout = [int(text) for text in found if int(text) <= 1000]
            assert stdout == sorted(stdout, reverse=order.endswith("desc"))


async def test_filters_select(tmp_path: Path) -> None:
    async with local_cloud(tmp_path) as (cloud, sdk):
        await run(cloud, sdk, 'echo apple; echo banana; echo \'{"message":"cherry","severity":"ERROR"}\'')
        cases = {
            'textPayload="apple"': {"apple"},
            'textPayload:"AN"': {"banana"},
            "textPayload=apple OR textPayload=banana": {"apple", "banana"},
            "severity>=WARNING": {"cherry"},
            "severity<ERROR AND textPayload:a": {"apple", "banana"},
            "NOT textPayload:an": {"apple", "cherry"},
            "-textPayload=apple": {"banana", "cherry"},
            'textPayload!="apple"': {"banana", "cherry"},
            # OR binds tighter than AND in this language
            "severity=ERROR AND textPayload=apple OR textPayload=cherry": {"cherry"},
            '(textPayload=("apple" OR "cherry"))': {"apple", "cherry"},
            "textPayload=apple -- a comment\n": {"apple"},
            'timestamp>="2020-01-01T00:00:00Z" timestamp<"2120-01-01T00:00:00Z"': {"apple", "banana", "cherry"},
            'timestamp<"2020-01-01T00:00:00Z"': set(),
            'logName="projects/local/logs/other"': set(),
            'labels."run.googleapis.com/task_index":*': {"apple", "banana", "cherry"},
        }
        for text, wanted in cases.items():
            assert set(await texts(sdk, text)) == wanted, text


async def test_the_cursor_of_a_poller_sees_each_entry_once(tmp_path: Path) -> None:
    async with local_cloud(tmp_path) as (cloud, sdk):
        await sdk.create(
            "tool", job(await push(cloud.http_url), "sh", "-c", "for i in $(seq 200); do echo $i; sleep 0.002; done")
        )
        execution = (await sdk.run("tool")).name
        seen: dict[str, str] = {}
        since, ended = "1970-01-01T00:00:00Z", False
        while True:
            ended = ended or bool((await sdk.executions.get_execution(name=execution)).completion_time)
            for entry in await entries(sdk, f'timestamp>="{since}"', page_size=1000):
                seen[entry.insert_id] = entry.text_payload
                since = entry.timestamp.rfc3339()
            if ended:
                break
        assert sorted(map(int, seen.values())) == list(range(1, 201))


@pytest.mark.parametrize(
    "text", ["apple", "nonsense=1", "textPayload=~x", "(a=1", "timestamp>yesterday", 'textPayload="x', "a=1 OR", ")"]
)
async def test_what_it_cannot_filter_is_refused(tmp_path: Path, text: str) -> None:
    async with local_cloud(tmp_path) as (_, sdk):
        with pytest.raises(exceptions.InvalidArgument):
            await entries(sdk, text)


async def test_bad_requests_are_refused(tmp_path: Path) -> None:
    async with local_cloud(tmp_path) as (_, sdk):
        with pytest.raises(exceptions.InvalidArgument, match="order_by"):
            await entries(sdk, "", order_by="severity")
        with pytest.raises(exceptions.InvalidArgument, match="page_token"):
            await entries(sdk, "", page_token="AAAA")
        with pytest.raises(exceptions.PermissionDenied):
            await logging_client(sdk).list_log_entries(ListLogEntriesRequest(resource_names=["projects/other"]))


async def test_tail_streams_new_entries(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    async with local_cloud(tmp_path / "data") as (cloud, sdk):
        await run(cloud, sdk, "echo before", "earlier")
        done = asyncio.Event()

        async def requests() -> AsyncIterator[TailLogEntriesRequest]:
            yield TailLogEntriesRequest(resource_names=["projects/local"], filter='logName:"run.googleapis.com"')
            await done.wait()

        found: list[str] = []
        stream = await logging_client(sdk).tail_log_entries(requests())
        script = f"echo a; while [ ! -e {gate} ]; do sleep 0.02; done; echo b >&2"
        await sdk.create("tool", job(await push(cloud.http_url), "sh", "-c", script))
        await asyncio.sleep(0.05)  # the session is open once its request has arrived
        await sdk.run("tool")
        async for answer in stream:
            found += [entry.text_payload for entry in answer.entries]
            if found == ["a"]:
                gate.touch()  # the first line arrives while the container runs
            if len(found) == 2:
                break
        assert found == ["a", "b"]
        done.set()


async def test_ingestion_takes_its_delay(tmp_path: Path) -> None:
    async with local_cloud(tmp_path, ingestion_delay=0.4) as (cloud, sdk):
        await run(cloud, sdk, "echo late")
        assert await entries(sdk) == []
        for _ in range(200):
            if found := await texts(sdk, ""):
                break
            await asyncio.sleep(0.02)
        assert found == ["late"]


async def test_written_entries_are_listed_with_the_rest(tmp_path: Path) -> None:
    async with local_cloud(tmp_path) as (cloud, sdk):
        client = logging_client(sdk)
        await run(cloud, sdk, "echo from a container")
        request = WriteLogEntriesRequest(
            log_name="projects/local/logs/mine",
            resource=MonitoredResource(type="global"),
            labels={"a": "b"},
            entries=[LogEntry(text_payload="hello", severity=300, insert_id="x")],
        )
        await client.write_log_entries(request)
        found = await entries(sdk, 'logName="projects/local/logs/mine" labels.a=b')
        assert [(entry.text_payload, int(entry.severity), entry.insert_id) for entry in found] == [("hello", 300, "x")]
        assert set(await texts(sdk, "")) == {"hello", "from a container"}
        big = WriteLogEntriesRequest(
            log_name=request.log_name, resource=request.resource, entries=[LogEntry(text_payload="x" * (256 << 10))]
        )
        with pytest.raises(exceptions.InvalidArgument, match=r"exceeds maximum size of 256\.0K"):
            await client.write_log_entries(big)
        logs = [name async for name in await client.list_logs(parent="projects/local")]
        assert "projects/local/logs/mine" in logs


async def test_long_lines_and_odd_bytes_are_kept(tmp_path: Path) -> None:
    (tmp_path / "long").write_bytes("ä".encode() * 400_000 + b"\nbad \xff byte\n\nend")
    async with local_cloud(tmp_path / "data") as (cloud, sdk):
        await run(cloud, sdk, f"cat {tmp_path}/long")
        found = await texts(sdk, "")
        assert "".join(found[:-3]) == "ä" * 400_000
        assert found[-3:] == ["bad \ufffd byte", "", "end"]
        assert all(len(text.encode()) < 256 << 10 for text in found)


async def test_a_flood_is_taken_in_whole_while_others_are_served(tmp_path: Path) -> None:
    async with local_cloud(tmp_path) as (cloud, sdk):
        await sdk.create(
            "tool",
            job(
                await push(cloud.http_url), "sh", "-c", "yes 0123456789012345678901234567890123456789 | head -n 1000000"
            ),
        )
        execution = await sdk.run("tool")
        await sdk.ended(execution.name)
        client = logging_client(sdk)
        request = ListLogEntriesRequest(resource_names=["projects/local"], order_by="timestamp desc", page_size=1000)
        pages = aiter((await client.list_log_entries(request)).pages)
        found = [entry.insert_id for _ in range(20) for entry in (await anext(pages)).entries]
        assert len(set(found)) == 20_000
        assert cloud._google is not None
        taken = cloud._google._state.one("SELECT taken FROM log_files WHERE stream = 'stdout'")
        assert taken == (41_000_000,)


async def test_entries_survive_a_restart_and_what_was_written_meanwhile_is_found(tmp_path: Path) -> None:
    gates = [tmp_path / "first", tmp_path / "second"]
    waits = "; ".join(f"while [ ! -e {gate} ]; do sleep 0.02; done; echo after {gate.name}" for gate in gates)
    runtime = ProcessRuntime()
    async with local_cloud(tmp_path / "data", runtime) as (cloud, sdk):
        await sdk.create("tool", job(await push(cloud.http_url), "sh", "-c", f"echo start; {waits}"))
        execution = (await sdk.run("tool")).name
        for _ in range(1000):
            if await texts(sdk, "") == ["start"]:
                break
            await asyncio.sleep(0.01)
    gates[0].touch()
    await asyncio.sleep(0.1)
    async with local_cloud(tmp_path / "data", runtime) as (_, sdk):
        gates[1].touch()
        await sdk.ended(execution)
        assert await texts(sdk, "") == ["start", "after first", "after second"]
    async with local_cloud(tmp_path / "data", runtime) as (_, sdk):
        assert await texts(sdk, "") == ["start", "after first", "after second"]


async def test_read_quotas_exhaust(tmp_path: Path) -> None:
    async with local_cloud(tmp_path, quotas=Quotas(log_reads_per_minute=2)) as (_, sdk):
        client = logging_client(sdk)
        request = ListLogEntriesRequest(resource_names=["projects/local"])
        for _ in range(2):
            await client.list_log_entries(request, retry=None)
        with pytest.raises(exceptions.ResourceExhausted, match="Read requests"):
            await client.list_log_entries(request, retry=None)
