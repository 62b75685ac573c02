"""The gRPC face of Cloud Logging v2: list, tail and write entries, list logs."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import re
import secrets
import time
from collections.abc import AsyncIterator
from typing import Any

from google.cloud.logging_v2.types import log_entry
from google.cloud.logging_v2.types import logging as types
from google.protobuf import json_format

from local_cloud.calls import Calls
from local_cloud.errors import ServiceError, invalid
from local_cloud.gcp.grpc_face import Message, Unary, bidi, unary
from local_cloud.gcp.logging import filter as filters
from local_cloud.gcp.logging import reading
from local_cloud.gcp.logging.lines import Entry
from local_cloud.gcp.logging.model import Logs
from local_cloud.options import PROJECT_NUMBER, Options
from local_cloud.quotas import Rate

SERVICE = "google.logging.v2.LoggingServiceV2"
_TO_DICT: Any = json_format.MessageToDict
_PARSE: Any = json_format.ParseDict
EntryMessage: Any = log_entry.LogEntry.pb()
_ORDERS = {"": False, "timestamp": False, "timestamp asc": False, "timestamp desc": True}
_LOG_NAME = re.compile(r"projects/[^/]+/logs/[A-Za-z0-9_.%~-]{1,511}")
_MAX_ENTRY = 256 << 10
_TAIL_BATCH = 1000
_EXTRA = ("operation", "source_location", "http_request")


class LoggingFace:
    """Requests in, entries out."""

    def __init__(self, logs: Logs, calls: Calls, project: str, options: Options) -> None:
        self._logs = logs
        self._calls = calls
        self._project = project
        self._delay = int(options.ingestion_delay * 1e9)
        self._sessions = options.quotas.log_tail_sessions
        quotas, service = options.quotas, "logging.googleapis.com"
        self._reads = Rate(quotas.log_reads_per_minute, "Read requests", service, PROJECT_NUMBER)
        self._writes = Rate(quotas.log_writes_per_minute, "Write requests", service, PROJECT_NUMBER)

    def methods(self) -> dict[str, Any]:
        """gRPC method → handler."""
        unaries: dict[str, tuple[Any, Unary]] = {
            "ListLogEntries": (types.ListLogEntriesRequest, self.list_entries),
            "WriteLogEntries": (types.WriteLogEntriesRequest, self.write_entries),
            "ListLogs": (types.ListLogsRequest, self.list_logs),
        }
        found = {
            name: unary(self._calls, f"LoggingServiceV2.{name}", kind.pb(), work)
            for name, (kind, work) in unaries.items()
        }
        tail = types.TailLogEntriesRequest.pb()
        found["TailLogEntries"] = bidi(self._calls, "LoggingServiceV2.TailLogEntries", tail, self.tail_entries)
        return found

    async def list_entries(self, request: Message) -> Message:
        """LoggingServiceV2.ListLogEntries."""
        self._reads.take()
        self._check_resources(request.resource_names)
        order = " ".join(request.order_by.split())
        if order not in _ORDERS:
            invalid('order_by must be "timestamp asc" or "timestamp desc".')
        if request.page_size < 0:
            invalid("page_size must not be negative.")
        await self._logs.catch_up()
        fingerprint = hashlib.sha256(f"{request.filter}\0{order}".encode()).hexdigest()[:16]
        query = reading.Query(
            filter=filters.parse(request.filter),
            newest_first=_ORDERS[order],
            size=min(request.page_size or 50, 1000),
            after=reading.read_token(request.page_token, fingerprint) if request.page_token else None,
            visible=time.time_ns() - self._delay,
        )
        found, more = await reading.page(self._logs, query, _decode, _measure)
        answer = types.ListLogEntriesResponse.pb()(entries=[_message(entry) for entry in found])
        if more:
            answer.next_page_token = reading.token_of(found[-1], fingerprint)
        return answer

    async def tail_entries(self, requests: AsyncIterator[Message]) -> AsyncIterator[Message]:
        """LoggingServiceV2.TailLogEntries: entries that arrive from now on."""
        request = await anext(aiter(requests), None)
        if request is None:
            return
        self._check_resources(request.resource_names)
        if self._sessions is not None and self._logs.tailers >= self._sessions:
            raise ServiceError(
                "RESOURCE_EXHAUSTED", f"Too many open live-tailing sessions: the limit is {self._sessions}."
            )
        wanted = filters.parse(request.filter)
        ended = asyncio.ensure_future(_drain(requests))
        chunk, row = self._logs.last_ids()
        self._logs.tailing(1)
        try:
            while not ended.done():
                visible = time.time_ns() - self._delay
                entries, chunk = self._new_lines(wanted, chunk, visible)
                more, row = self._new_written(wanted, row, visible)
                entries.extend(more)
                for start in range(0, len(entries), _TAIL_BATCH):
                    batch = [_message(entry) for entry in entries[start : start + _TAIL_BATCH]]
                    yield types.TailLogEntriesResponse.pb()(entries=batch)
                if entries:
                    await asyncio.sleep(0)
                else:
                    await self._logs.news(0.2 if self._delay else 5.0)
        finally:
            self._logs.tailing(-1)
            ended.cancel()

    def _new_lines(self, wanted: filters.Filter, after: int, visible: int) -> tuple[list[Entry], int]:
        found: list[Entry] = []
        for chunk in self._logs.newer_chunks(after, visible)[:4]:
            after = chunk.id
            file = self._logs.file(chunk.file)
            if file is not None:
                found.extend(entry for entry in self._logs.entries(file, chunk) if wanted.matches(entry))
        return found, after

    def _new_written(self, wanted: filters.Filter, after: int, visible: int) -> tuple[list[Entry], int]:
        found = []
        for number, received, body in self._logs.newer_written(after, visible):
            after = number
            entry = _decode(received, body)
            if wanted.matches(entry):
                found.append(entry)
        return found, after

    async def write_entries(self, request: Message) -> Message:
        """LoggingServiceV2.WriteLogEntries."""
        self._writes.take()
        now = time.time_ns()
        rows, refusal = [], None
        for number, entry in enumerate(request.entries):
            try:
                rows.append(self._row(request, entry, now))
            except ServiceError as error:
                if not request.partial_success:
                    raise
                refusal = refusal or ServiceError(error.code, f"Log entry {number}: {error.message}")
        if not request.dry_run:
            self._logs.write(rows)
        if refusal is not None:
            raise refusal
        return types.WriteLogEntriesResponse.pb()()

    def _row(self, request: Message, entry: Message, now: int) -> tuple[str, int, str, int, bytes]:
        entry.log_name = entry.log_name or request.log_name
        if not _LOG_NAME.fullmatch(entry.log_name) or entry.log_name.split("/")[1] != self._project:
            invalid(f"Invalid log name '{entry.log_name}': want projects/{self._project}/logs/[LOG_ID].")
        if not entry.HasField("resource"):
            if not request.HasField("resource"):
                invalid("Log entry without a monitored resource.")
            entry.resource.CopyFrom(request.resource)
        for key, value in request.labels.items():
            if key not in entry.labels:
                entry.labels[key] = value
        if not entry.HasField("timestamp"):
            entry.timestamp.FromNanoseconds(now)
        entry.receive_timestamp.FromNanoseconds(now)
        entry.insert_id = entry.insert_id or secrets.token_hex(10)
        size = entry.ByteSize()
        if size > _MAX_ENTRY:
            invalid(f"Log entry with size {size / 1024:.1f}K exceeds maximum size of 256.0K")
        return entry.log_name, entry.timestamp.ToNanoseconds(), entry.insert_id, now, entry.SerializeToString()

    async def list_logs(self, request: Message) -> Message:
        """LoggingServiceV2.ListLogs."""
        self._check_resources([*request.resource_names, *([request.parent] if request.parent else [])])
        return types.ListLogsResponse.pb()(log_names=self._logs.log_names(self._project))

    def _check_resources(self, resources: Any) -> None:
        if not resources:
            invalid("resource_names must name at least one resource.")
        for resource in resources:
            if resource.split("/")[:2] != ["projects", self._project]:
                raise ServiceError(
                    "PERMISSION_DENIED", f"Permission denied on {resource}: here is only projects/{self._project}."
                )


async def _drain(requests: AsyncIterator[Message]) -> None:
    """Reads until the client ends its side."""
    with contextlib.suppress(Exception):
        async for _ in requests:
            pass


def _decode(received: int, body: bytes) -> Entry:
    """A written entry, ready for filters."""
    message = EntryMessage.FromString(body)
    kind = message.WhichOneof("payload")
    return Entry(
        timestamp=message.timestamp.ToNanoseconds(),
        insert_id=message.insert_id,
        log_name=message.log_name,
        resource_type=message.resource.type,
        resource_labels=dict(message.resource.labels),
        labels=dict(message.labels),
        received=received,
        severity=message.severity,
        text=message.text_payload if kind == "text_payload" else None,
        json=_TO_DICT(message.json_payload) if kind == "json_payload" else None,
        trace=message.trace,
        span_id=message.span_id,
        message=message,
    )


def _measure(entry: Entry) -> int:
    """About an entry's size on the wire (bytes)."""
    if entry.message is not None:
        return int(entry.message.ByteSize())
    return 400 + len(entry.text or "") + (len(str(entry.json)) if entry.json is not None else 0)


def _message(entry: Entry) -> Message:
    if entry.message is not None:
        return entry.message
    message = EntryMessage(
        log_name=entry.log_name,
        insert_id=entry.insert_id,
        severity=entry.severity,
        labels=entry.labels,
        trace=entry.trace,
        span_id=entry.span_id,
        trace_sampled=entry.trace_sampled,
    )
    message.resource.type = entry.resource_type
    message.resource.labels.update(entry.resource_labels)
    message.timestamp.FromNanoseconds(entry.timestamp)
    message.receive_timestamp.FromNanoseconds(entry.received)
    if entry.json is not None:
        message.json_payload.SetInParent()
        with contextlib.suppress(ValueError, TypeError):  # what a Struct cannot hold (a surrogate, say) stays out
            message.json_payload.update(entry.json)
    else:
        message.text_payload = entry.text or ""
    for field in _EXTRA:
        if field in entry.extra:
            with contextlib.suppress(json_format.ParseError):
                _PARSE(entry.extra[field], getattr(message, field), ignore_unknown_fields=True)
    return message
