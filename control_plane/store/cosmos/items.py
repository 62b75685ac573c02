"""How a document of ours lies in Cosmos: an item of one container, partitioned by tenant and collection.

`id` is the escaped key, `partition` the partition key, `body` JSON as text (see `bodies`), `tokens` the last writes
(see `revisions`), `at` microseconds that grow with each write. A deleted document stays for a while as an item with
`gone`: the change feed tells of writes only. `due` is when somebody has to look (`control_plane/due.py`; absent:
never). Queries use `partition`, `collection`, `id`, `gone` and `due`; all else may stay without an index.
"""

from __future__ import annotations

import base64
import time
from collections.abc import Mapping
from typing import Any

from control_plane.due import due_of
from control_plane.store import bodies
from control_plane.store.base import Collection, Document
from control_plane.store.keys import escape, unescape
from control_plane.store.revisions import Revision

LONGEST_ID = 1023
"""Characters of an item's id, Cosmos' limit."""
_LARGEST = 2 * 1024 * 1024
LARGEST_BODY = (_LARGEST - 64 * 1024) // 4 * 3
"""Bytes before base64."""


def partition_of(collection: Collection, tenant: str) -> str:
    """The partition key's value."""
    return f"{escape(tenant)}/{collection}"


def next_order(last: int) -> int:
    """The order of a write after `last`: microseconds, exact as the double that JSON numbers are there."""
    return max(last + 1, time.time_ns() // 1000)


def new_item(
    collection: Collection, tenant: str, key: str, order: int, tokens: str, lifetime: float | None
) -> dict[str, Any]:
    """An item without its content; `lifetime` in seconds, None for ever."""
    item: dict[str, Any] = {
        "id": escape(key),
        "partition": partition_of(collection, tenant),
        "collection": collection,
        "at": order,
        "tokens": tokens,
    }
    if lifetime is not None:
        item["ttl"] = max(int(lifetime), 1)
    return item


def content_of(collection: Collection, body: Mapping[str, Any]) -> dict[str, Any]:
    """What an item has besides: `body`, JSON or base64 of its compressed form, and `due`. Raises StoreFull."""
    written = bodies.encode(body, LARGEST_BODY)
    content: dict[str, Any] = {
        "body": (written if written.startswith(b"{") else base64.b64encode(written)).decode(),
    }
    due = due_of(collection, body)
    return content if due is None else {**content, "due": due}


def is_gone(item: Mapping[str, Any]) -> bool:
    """Whether the item stands for a deleted document."""
    return bool(item.get("gone"))


def revision(item: Mapping[str, Any]) -> Revision:
    """The item's revision."""
    return Revision(int(item["at"]), str(item["_etag"]), str(item["tokens"]))


def read_document(item: Mapping[str, Any]) -> Document:
    """The Document in an item that is not gone."""
    text: str = item["body"]
    body = bodies.decode(text.encode() if text.startswith("{") else base64.b64decode(text))
    tenant = unescape(str(item["partition"]).rsplit("/", 1)[0])
    return Document(item["collection"], tenant, unescape(item["id"]), str(revision(item)), body)
