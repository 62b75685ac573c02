"""In front of the npm Cosmos server: puts right what it does otherwise than Cosmos, and makes trouble when asked.

Put right here, and only here:
- reading an item that is not there answers 500: 404;
- the change feed gives all items of all partitions every time: since the continuation, of one partition.
Left as it is: TTL is not enforced, a query is not paged nor kept to its partition key, no 2 MB limit, no request units.

Run as `python -m tests.contract.cosmos_proxy PORT UPSTREAM_PORT`. Trouble: POST /trouble {"lose": n} loses the answers
of the next n writes (they are carried out), {"throttle": n} answers 429 to the next n requests for items,
{"refuse": n} cuts the connection of the next n before they are carried out.
"""

from __future__ import annotations

import functools
import json
import re
import sys
import time
from typing import Any

import aiohttp
from aiohttp import web

_ITEM = re.compile(r"^/dbs/[^/]+/colls/[^/]+/docs/[^/]+/?$")
_ITEMS = re.compile(r"^(/dbs/[^/]+/colls/[^/]+)/docs/?$")
_OF_FEEDS = {"a-im", "if-none-match", "x-ms-max-item-count"}
"""Not passed on: the server knows no feed, and a page of its list would hide whatever comes after it."""
_HOP = {"connection", "transfer-encoding", "content-length", "content-encoding", "keep-alive"}


class Feed:
    """Numbers the changes of one collection in the order they are noticed."""

    def __init__(self) -> None:
        # Later than all numbers given before a restart.
        self._last = time.time_ns()
        self._seen: dict[str, tuple[str, int]] = {}

    def since(
        self, items: list[dict[str, Any]], start: str, asked: str | None, most: int
    ) -> tuple[int, list[dict[str, Any]]]:
        for item in items:
            if self._seen.get(item["_rid"], ("", 0))[0] != item["_etag"]:
                self._last += 1
                self._seen[item["_rid"]] = (item["_etag"], self._last)
        after = self._last if asked == "*" else int((asked or "0").strip('"'))
        changed = [i for i in items if _hash(i["partition"]) == start and self._seen[i["_rid"]][1] > after]
        changed.sort(key=lambda item: self._seen[item["_rid"]][1])
        page = changed[:most]
        return self._last if len(page) == len(changed) else self._seen[page[-1]["_rid"]][1], page


@functools.cache
def _hash(partition: str) -> str:
    """The SDK names a partition by its key's hash, which the server knows nothing of."""
    from azure.cosmos import PartitionKey

    return str(PartitionKey("/partition")._get_epk_range_for_partition_key(partition).min)


class Proxy:
    def __init__(self, upstream: str) -> None:
        self._upstream = upstream
        self._feeds: dict[str, Feed] = {}
        self._trouble = {"lose": 0, "throttle": 0, "refuse": 0}
        self._session: aiohttp.ClientSession | None = None

    async def serve(self, request: web.Request) -> web.StreamResponse:
        if request.path == "/trouble":
            self._trouble.update(await request.json())
            return web.json_response(self._trouble)
        items = _ITEMS.match(request.path)
        writes = request.method in ("PUT", "DELETE") or (
            items is not None and request.method == "POST" and "x-ms-documentdb-isquery" not in request.headers
        )
        if self._due("refuse", request):
            return self._cut(request)
        if self._due("throttle", request):
            body = {"code": "429", "message": "Request rate is large"}
            return web.json_response(body, status=429, headers={"x-ms-retry-after-ms": "20", "x-ms-substatus": "3200"})
        feed = items is not None and request.method == "GET" and "A-IM" in request.headers
        status, headers, body_bytes = await self._forward(request, without=_OF_FEEDS if feed else set())
        if feed and items is not None and status == 200:
            return self._change_feed(items[1], request, json.loads(body_bytes))
        if writes and self._due("lose", request):
            return self._cut(request)
        if status == 500 and request.method == "GET" and _ITEM.match(request.path):
            return web.json_response({"code": "NotFound", "message": "Resource Not Found."}, status=404)
        return web.Response(body=body_bytes, status=status, headers=headers)

    def _due(self, trouble: str, request: web.Request) -> bool:
        if self._trouble[trouble] <= 0 or "/docs" not in request.path:
            return False
        self._trouble[trouble] -= 1
        return True

    def _cut(self, request: web.Request) -> web.Response:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    def _change_feed(self, collection: str, request: web.Request, listed: dict[str, Any]) -> web.Response:
        feed = self._feeds.setdefault(collection, Feed())
        start = request.headers["x-ms-start-epk"]
        most = int(request.headers.get("x-ms-max-item-count", "100"))
        last, changed = feed.since(listed["Documents"], start, request.headers.get("If-None-Match"), most)
        headers = {"etag": f'"{last}"', "x-ms-request-charge": "1"}
        if not changed:
            return web.Response(status=304, headers=headers)
        return web.json_response({**listed, "Documents": changed, "_count": len(changed)}, headers=headers)

    async def _forward(self, request: web.Request, without: set[str]) -> tuple[int, dict[str, str], bytes]:
        if self._session is None:
            self._session = aiohttp.ClientSession(auto_decompress=True)
        dropped = _HOP | {"host"} | without
        headers = {name: value for name, value in request.headers.items() if name.lower() not in dropped}
        url = f"{self._upstream}{request.raw_path}"
        async with self._session.request(
            request.method, _url(url), headers=headers, data=await request.read()
        ) as answer:
            kept = {name: value for name, value in answer.headers.items() if name.lower() not in _HOP}
            return answer.status, kept, await answer.read()


def _url(text: str) -> Any:
    from yarl import URL

    return URL(text, encoded=True)


def main() -> None:
    port, upstream = int(sys.argv[1]), int(sys.argv[2])
    proxy = Proxy(f"http://127.0.0.1:{upstream}")
    app = web.Application(client_max_size=16 * 1024 * 1024)
    app.router.add_route("*", "/{path:.*}", proxy.serve)
    web.run_app(app, host="127.0.0.1", port=port, print=None, handle_signals=True)


if __name__ == "__main__":
    main()
