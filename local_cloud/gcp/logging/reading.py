"""Answers queries: merges files and written entries in order of time, page by page."""

from __future__ import annotations

import asyncio
import base64
import binascii
import heapq
import json
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from local_cloud.errors import ServiceError
from local_cloud.gcp.logging.filter import Filter
from local_cloud.gcp.logging.lines import Entry
from local_cloud.gcp.logging.model import LogFile, Logs

_PAGE_BYTES = 3 << 20
"""A page ends before it outgrows gRPC's default message limit of 4 MiB."""
_SLICE = 2000
"""Entries looked at between two turns of the event loop."""
Decode = Callable[[int, bytes], Entry]
Key = tuple[int, str]


@dataclass(frozen=True, slots=True)
class Query:
    """One ListLogEntries request, checked."""

    filter: Filter
    newest_first: bool
    size: int
    after: Key | None
    visible: int
    """Entries received later than this (ns) are not shown."""


def _key(entry: Entry) -> Key:
    return entry.timestamp, entry.insert_id


def token_of(entry: Entry, fingerprint: str) -> str:
    """A page token: where the page ended, and which request it belongs to."""
    text = json.dumps([entry.timestamp, entry.insert_id, fingerprint], separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).decode()


def read_token(token: str, fingerprint: str) -> Key:
    """Where to go on; raises ServiceError INVALID_ARGUMENT for a token of another request."""
    try:
        timestamp, insert_id, owner = json.loads(base64.urlsafe_b64decode(token.encode()))
    except (ValueError, TypeError, binascii.Error):
        raise ServiceError("INVALID_ARGUMENT", "page_token is invalid.") from None
    if owner != fingerprint or not isinstance(timestamp, int) or not isinstance(insert_id, str):
        raise ServiceError("INVALID_ARGUMENT", "page_token does not belong to this request.")
    return timestamp, insert_id


async def page(logs: Logs, query: Query, decode: Decode, measure: Callable[[Entry], int]) -> tuple[list[Entry], bool]:
    """One page of matching entries, and whether there are more. `measure` tells an entry's bytes on the wire."""
    found: list[Entry] = []
    size = seen = 0
    for entry in _merged(logs, query, decode):
        seen += 1
        if seen % _SLICE == 0:
            await asyncio.sleep(0)
        if not query.filter.matches(entry):
            continue
        size += measure(entry)
        if len(found) >= query.size or (found and size > _PAGE_BYTES):
            return found, True
        found.append(entry)
    return found, False


def _merged(logs: Logs, query: Query, decode: Decode) -> Iterator[Entry]:
    bounds = query.filter.bounds
    since, until = bounds.since, bounds.until
    if query.after is not None and query.newest_first:
        until = min(until, query.after[0])
    elif query.after is not None:
        since = max(since, query.after[0])
    sources: list[Iterable[Entry]] = []
    for file in logs.files(bounds.execution, bounds.job, bounds.service, bounds.revision):
        if bounds.log_names is None or any(name.endswith(f"%2f{file.stream}") for name in bounds.log_names):
            sources.append(_of_file(logs, file, since, until, query))
    rows = logs.written(since, until, query.visible, newest_first=query.newest_first)
    sources.append(decode(received, body) for received, body in rows)
    merged = heapq.merge(*sources, key=_key, reverse=query.newest_first)
    after = query.after
    if after is None:
        return iter(merged)
    if query.newest_first:
        return (entry for entry in merged if _key(entry) < after)
    return (entry for entry in merged if _key(entry) > after)


def _of_file(logs: Logs, file: LogFile, since: int, until: int, query: Query) -> Iterator[Entry]:
    """A file's entries in order of time.

    Structured lines may carry any time, so a file with such lines is sorted whole.
    """
    chunks = list(logs.chunks(file.id, since, until, query.visible, newest_first=query.newest_first))
    if any(chunk.structured for chunk in chunks):
        entries = [entry for chunk in chunks for entry in logs.entries(file, chunk)]
        yield from sorted(entries, key=_key, reverse=query.newest_first)
        return
    for chunk in chunks:
        entries = logs.entries(file, chunk)
        if query.newest_first:
            end = len(entries) if query.after is None else bisect_left(entries, query.after, key=_key)
            yield from reversed(entries[:end])
        else:
            start = 0 if query.after is None else bisect_right(entries, query.after, key=_key)
            yield from entries[start:]
