"""Cloud Logging and Cloud Storage as the backend uses them, through the official SDKs against the local cloud."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from control_plane.backends.base import LogLine
from control_plane.backends.gcp.archive import Archive
from control_plane.backends.gcp.clients import Clients, Endpoint
from control_plane.backends.gcp.log_entries import Source
from control_plane.backends.gcp.log_feed import LogFeed
from control_plane.backends.gcp.logs import LogReader
from control_plane.backends.gcp.storage import BucketBlobs, ObjectStorage
from control_plane.backends.gcp.volume_storage import BucketVolumes, NfsVolumes
from control_plane.backends.location import Location
from control_plane.errors import NotFound, Unavailable
from control_plane.model import Container, Execution, RunState, Volume
from local_cloud.server import LocalCloud

SOURCE = Source("sockerless-j", "sockerless-j-abcde")
START = datetime(2026, 3, 1, tzinfo=UTC)


class NoRuntime:
    async def ids(self) -> dict[str, bool]:
        return {}

    async def remove_unused(self, keep: set[str]) -> None:
        assert not keep

    def __getattr__(self, name: str) -> Any:
        raise AssertionError("nothing runs here")


@pytest.fixture
async def cloud(tmp_path: Path) -> AsyncIterator[LocalCloud]:
    nothing: Any = NoRuntime()
    made = LocalCloud(tmp_path / "cloud", project="p", runtime=nothing, layers=nothing)
    await made.start()
    yield made
    await made.stop()


@pytest.fixture
async def clients(cloud: LocalCloud) -> AsyncIterator[Clients]:
    made = Clients(Endpoint(grpc=cloud.grpc_target, storage=cloud.http_url))
    yield made
    await made.close()


class Output:
    """Writes log entries as Cloud Run does."""

    def __init__(self, clients: Clients) -> None:
        self._clients = clients
        self._written = 0

    async def write(
        self, *texts: str | dict[str, Any], stream: str = "stdout", at: datetime = START, **more: Any
    ) -> None:
        entries = []
        for number, text in enumerate(texts):
            self._written += 1
            payload: dict[str, Any] = {"text_payload": text} if isinstance(text, str) else {"json_payload": text}
            entries.append(
                {
                    "log_name": f"projects/p/logs/{more.get('log', 'run.googleapis.com%2F' + stream)}",
                    "resource": {
                        "type": "cloud_run_job",
                        "labels": {"job_name": SOURCE.resource, "location": "us-central1", "project_id": "p"},
                    },
                    "labels": {"run.googleapis.com/execution_name": more.get("execution", SOURCE.key)},
                    "timestamp": at + timedelta(milliseconds=number),
                    "insert_id": f"id{self._written:06d}",
                    **payload,
                }
            )
        client = await self._clients.logging()
        await client.write_log_entries(request={"entries": entries})


@pytest.fixture
def output(clients: Clients) -> Output:
    return Output(clients)


class Outcomes:
    """Stands for the executions: finished when told so."""

    def __init__(self, finished: bool = False) -> None:
        self.finished = finished

    async def of(self, container: Container) -> bool:
        return self.finished


def container(status: Any = "running") -> Container:
    execution = Execution(
        name=f"projects/p/locations/us-central1/jobs/{SOURCE.resource}/executions/{SOURCE.key}",
        job=SOURCE.resource,
        first_run=1,
        created_at="2026-03-01T00:00:00.000000Z",
    )
    return Container(
        id="ab" * 32, tenant="t", name="c", created_at="", image="i", image_id="sha256:1", config={}, host_config={},
        backend="cloudrun", gateway="http://g", execution=execution, state=RunState(status=status, run=1),
    )  # fmt: skip


def archive(clients: Clients, outcomes: Outcomes) -> Archive:
    def origin(container: Container) -> tuple[Source, str] | None:
        return None if container.execution is None else (SOURCE, container.execution.created_at)

    return Archive(LogReader(clients, "p", reads_per_minute=0), origin, outcomes.of, drain=0.3)


async def read(
    archive: Archive, *, since: int | None = None, until: int | None = None, tail: int | None = None
) -> list[LogLine]:
    lines = archive.lines(container("exited"), since=since, until=until, tail=tail, follow=False)
    return [line async for line in lines]


def nanoseconds(at: datetime) -> int:
    return int(at.timestamp()) * 1_000_000_000 + at.microsecond * 1000


def text(lines: list[LogLine]) -> bytes:
    return b"".join(line.text for line in lines)


async def test_lines_come_in_order_byte_for_byte_with_their_streams(clients: Clients, output: Output) -> None:
    ours = {"run": 1, "partial": False}
    await output.write("first", {"message": "half ", "sockerless": {"run": 1, "partial": True}})
    await output.write({"message": "whole", "sockerless": ours}, at=START + timedelta(seconds=1))
    raw = base64.b64encode(b"\xff\x00").decode()
    await output.write({"base64": raw, "sockerless": ours}, stream="stderr", at=START + timedelta(seconds=2))
    await output.write("another container's", execution="sockerless-j-other")
    await output.write("an audit entry", log="cloudaudit.googleapis.com%2Factivity")
    made = archive(clients, Outcomes(True))
    lines = await read(made)
    assert text(lines) == b"first\nhalf whole\n\xff\x00\n"
    assert [line.stream for line in lines] == ["stdout"] * 3 + ["stderr"]
    assert lines[0].at == nanoseconds(START)


async def test_since_until_and_tail(clients: Clients, output: Output) -> None:
    for second in range(10):
        await output.write(f"line {second}", at=START + timedelta(seconds=second))
    made = archive(clients, Outcomes(True))
    at = [nanoseconds(START + timedelta(seconds=second)) for second in range(10)]
    assert text(await read(made, since=at[7])) == b"line 7\nline 8\nline 9\n"
    assert text(await read(made, until=at[1])) == b"line 0\nline 1\n"
    assert text(await read(made, since=at[2], until=at[8], tail=2)) == b"line 8\n"
    assert text(await read(made, tail=3)) == b"line 7\nline 8\nline 9\n"
    assert text(await read(made, tail=0)) == b""
    assert len(await read(made, tail=100)) == 10


async def test_tail_counts_parts_of_long_lines_as_the_agent_and_moby_do(clients: Clients, output: Output) -> None:
    for second in range(30):
        partial = second % 3 != 2
        await output.write(
            {"message": f"{second} ", "sockerless": {"run": 1, "partial": partial}},
            at=START + timedelta(seconds=second),
        )
    made = archive(clients, Outcomes(True))
    assert text(await read(made, tail=2)) == b"28 29 \n"


async def test_more_entries_than_a_page(clients: Clients, output: Output) -> None:
    for page in range(5):
        texts = [f"{page * 500 + number}" for number in range(500)]
        await output.write(*texts, at=START + timedelta(seconds=page))
    lines = await read(archive(clients, Outcomes(True)))
    assert [int(line.text) for line in lines] == list(range(2500))
    assert len(await read(archive(clients, Outcomes(True)), tail=2400)) == 2400


async def test_follow_brings_old_and_new_lines_once_and_ends_with_the_execution(
    clients: Clients, output: Output
) -> None:
    await output.write("old", "older", at=datetime.now(UTC))
    outcomes = Outcomes()
    made = archive(clients, outcomes)
    found: list[bytes] = []
    async for line in made.lines(container(), since=None, until=None, tail=None, follow=True):
        found.append(line.text)
        if line.text == b"older\n":
            await output.write("new", at=datetime.now(UTC))
        if line.text == b"new\n":
            outcomes.finished = True
            await output.write("last", stream="stderr", at=datetime.now(UTC))
    assert found == [b"old\n", b"older\n", b"new\n", b"last\n"]
    await made.close()


async def test_follow_after_a_tail_brings_nothing_older(clients: Clients, output: Output) -> None:
    now = datetime.now(UTC)
    await output.write("a", "b", "c", at=now)
    made = archive(clients, Outcomes(True))
    lines = made.lines(container(), since=None, until=None, tail=1, follow=True)
    assert [line.text async for line in lines] == [b"c\n"]
    await made.close()


async def test_followers_share_their_list_calls(cloud: LocalCloud, clients: Clients, output: Output) -> None:
    reader = LogReader(clients, "p", reads_per_minute=0)
    feed = LogFeed(reader, interval=0.1)
    sources = [Source(SOURCE.resource, f"{SOURCE.resource}-{number}") for number in range(20)]

    async def first(source: Source) -> bytes:
        async with feed.follow(source, nanoseconds(START)) as follower:
            while True:
                line = await follower.next_line(5)
                if line is not None:
                    return line.text

    waiting = [asyncio.create_task(first(source)) for source in sources]
    await asyncio.sleep(0.3)
    before = reader_calls(cloud)
    for source in sources:
        await output.write(source.key, execution=source.key, at=datetime.now(UTC))
    assert await asyncio.gather(*waiting) == [f"{source.key}\n".encode() for source in sources]
    assert reader_calls(cloud) - before < len(sources)
    await feed.close()


def reader_calls(cloud: LocalCloud) -> int:
    return sum(count for name, count in cloud.calls.counts().items() if name.endswith("ListLogEntries"))


async def test_a_slow_follower_does_not_hold_up_another_and_loses_nothing(
    clients: Clients, output: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("control_plane.backends.log_following.QUEUE", 10)
    feed = LogFeed(LogReader(clients, "p", reads_per_minute=0), interval=0.05)
    begin = time.time_ns() - 1_000_000_000
    async with feed.follow(SOURCE, begin) as slow, feed.follow(Source(SOURCE.resource, "other"), begin) as quick:
        for burst in range(5):
            await output.write(*[f"{burst * 10 + number}" for number in range(10)], at=datetime.now(UTC))
        await output.write("through", execution="other", at=datetime.now(UTC))
        line = await quick.next_line(10)
        assert line is not None
        assert line.text == b"through\n"
        found: set[int] = set()
        while len(found) < 50:
            line = await slow.next_line(5)
            assert line is not None, f"only {len(found)} of 50 lines"
            assert int(line.text) not in found
            found.add(int(line.text))
    await feed.close()


async def test_a_container_that_never_ran_has_no_lines(clients: Clients) -> None:
    made = archive(clients, Outcomes())
    never = container().model_copy(update={"execution": None})
    assert [line async for line in made.lines(never, since=None, until=None, tail=None, follow=True)] == []


# --- storage ---


@pytest.fixture
async def storage(cloud: LocalCloud) -> AsyncIterator[ObjectStorage]:
    made = ObjectStorage("p", "p-sockerless", endpoint=cloud.http_url)
    yield made
    await made.close()


async def pieces(*content: bytes) -> AsyncIterator[bytes]:
    for piece in content:
        yield piece


@pytest.mark.parametrize("size", [0, 1, 8 << 20, (20 << 20) + 7])
async def test_blobs_keep_bytes(storage: ObjectStorage, size: int) -> None:
    blobs = BucketBlobs(storage)
    data = bytes(range(256)) * (size // 256 + 1)
    content = [data[start : min(start + 100_000, size)] for start in range(0, size, 100_000)]
    assert await blobs.put("t/a b%c", pieces(*content)) == size
    assert b"".join([piece async for piece in blobs.get("t/a b%c")]) == data[:size]
    await blobs.delete("t/a b%c")
    await blobs.delete("t/a b%c")
    with pytest.raises(NotFound):
        [piece async for piece in blobs.get("t/a b%c")]


async def test_nothing_is_kept_of_a_broken_upload(storage: ObjectStorage) -> None:
    async def breaking() -> AsyncIterator[bytes]:
        yield b"x" * (9 << 20)
        raise ConnectionResetError("client gone")

    blobs = BucketBlobs(storage)
    with pytest.raises(ConnectionResetError):
        await blobs.put("broken", breaking())
    with pytest.raises(NotFound):
        [piece async for piece in blobs.get("broken")]


async def test_storage_that_is_away_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("control_plane.backends.gcp.storage._TOTAL", 0.2)
    storage = ObjectStorage("p", "b", endpoint="http://127.0.0.1:1")
    with pytest.raises(Unavailable):
        await BucketBlobs(storage).delete("x")
    await storage.close()


def volume(name: str, tenant: str = "t") -> Volume:
    return Volume(name=name, tenant=tenant, created_at="")


async def test_bucket_volumes_are_prefixes(storage: ObjectStorage) -> None:
    volumes = BucketVolumes(storage)
    for made in (volume("data"), volume("data2"), volume("data", "u")):
        await volumes.create(made)
        await volumes.create(made)
    bucket = storage.bucket()
    place = "volumes/t/data/inner/file"
    await asyncio.to_thread(lambda: bucket.blob(place).upload_from_string(b"x"))
    assert volumes.mountpoint(volume("data")) == "gs://p-sockerless/volumes/t/data"
    await volumes.remove(volume("data"))
    await volumes.remove(volume("data"))
    left = await asyncio.to_thread(lambda: [blob.name for blob in bucket.list_blobs()])
    assert not [name for name in left if name.startswith("volumes/t/data/")]
    assert [name for name in left if name.startswith("volumes/u/data/")]
    assert [name for name in left if name.startswith("volumes/t/data2/")]


async def test_nfs_volumes_are_directories(tmp_path: Path) -> None:
    volumes = NfsVolumes(Location.parse("nfs://server/export"), tmp_path)
    await volumes.create(volume("data"))
    await volumes.create(volume("data"))
    (tmp_path / "volumes/t/data/file").write_text("x")
    assert volumes.mountpoint(volume("data")) == "nfs://server/export/volumes/t/data"
    await volumes.remove(volume("data"))
    await volumes.remove(volume("data"))
    assert list((tmp_path / "volumes/t").iterdir()) == []
