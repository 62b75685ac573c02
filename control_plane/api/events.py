"""`GET /events`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import orjson
from starlette.responses import Response

from control_plane.api.chunked import ChunkedResponse
from control_plane.api.http import DockerRequest
from control_plane.errors import InvalidParameter
from control_plane.model import Event
from control_plane.services.event_filters import EventFilters
from control_plane.timestamps import unix_timestamp


async def events(request: DockerRequest) -> Response:
    """Past events with `since` or `until`, live ones until `until`; one JSON object a line."""
    since = unix_timestamp(request.query.get("since"))
    until = unix_timestamp(request.query.get("until"))
    if since is not None and until is not None and until < since:
        raise InvalidParameter(
            f"`since` time ({request.query['since']}) cannot be after `until` time ({request.query['until']})"
        )
    stream = request.services.events.stream(request.tenant, since, until, EventFilters(request.filters()))
    lines = _lines(stream, image_creates=request.api_version >= (1, 46))
    # The headers tell the client that it listens, so it must.
    await anext(lines)
    return ChunkedResponse(lines)


async def _lines(stream: AsyncIterator[Event | None], *, image_creates: bool) -> AsyncIterator[bytes]:
    async with aclosing(stream) as events:  # type: ignore[type-var]
        async for event in events:
            if event is None:
                yield b""
            elif image_creates or (event.type, event.action) != ("image", "create"):
                yield orjson.dumps(event_json(event), option=orjson.OPT_APPEND_NEWLINE)


def event_json(event: Event) -> dict[str, Any]:
    """Docker's line, with the old fields containers and images have."""
    shown: dict[str, Any] = {}
    if event.type in ("container", "image"):
        shown |= {"status": event.action, "id": event.actor}
    if event.type == "container" and event.attributes.get("image"):
        shown["from"] = event.attributes["image"]
    return shown | {
        "Type": event.type,
        "Action": event.action,
        "Actor": {"ID": event.actor, "Attributes": event.attributes},
        "scope": "local",
        "time": event.time_nano // 1_000_000_000,
        "timeNano": event.time_nano,
    }
