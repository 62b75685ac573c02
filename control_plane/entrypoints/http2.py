"""Hypercorn's HTTP/2, made fit for many clients on one connection, as a front end sends them.

As it is, a connection stands still while one upload waits for its application, an upload that is answered before its
end breaks the connection for everybody on it, and an answer whose application broke off is left open for ever. Here
data is acknowledged when the application takes it, so that a slow reader slows its own client alone; what comes late
is dropped; what breaks off is reset. `tests/contract/test_entrypoints_http2.py` tells when another version of
hypercorn makes this needless or wrong.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from starlette.types import Message, Receive

_TAKE = "sockerless.take"
_STREAM_WINDOW = 65_535
"""Bytes, HTTP/2's default: what one stream may have under way and untaken."""
_CONNECTION_WINDOWS = 256
"""As many of these has the whole connection, so that waiting streams do not stop others."""


def taking(receive: Receive) -> Receive:
    """`receive` for an application on such a connection; any other connection's goes through as it is."""

    async def taken() -> Message:
        message = await receive()
        take = message.pop(_TAKE, None)
        if take is not None:
            message["body"] = await take()
        return message

    return taken


def install() -> None:
    """From now on hypercorn serves HTTP/2 in this way, to applications that read through `taking`. Repeatable."""
    from h2.errors import ErrorCodes
    from h2.events import DataReceived
    from h2.exceptions import ProtocolError
    from hypercorn import protocol
    from hypercorn.protocol.events import StreamClosed
    from hypercorn.protocol.h2 import H2Protocol
    from hypercorn.protocol.http_stream import ASGIHTTPState, HTTPStream

    if getattr(protocol, "taking", False):
        return

    class Taking(H2Protocol):
        """One connection."""

        def __init__(self, *arguments: Any, **named: Any) -> None:
            super().__init__(*arguments, **named)
            self._untaken: dict[int, bytearray] = {}
            self._unacknowledged: dict[int, int] = {}

        async def initiate(self, *arguments: Any, **named: Any) -> None:
            await super().initiate(*arguments, **named)
            self.connection.increment_flow_control_window(_STREAM_WINDOW * (_CONNECTION_WINDOWS - 1))
            await self._flush()

        async def _handle_events(self, events: list[Any]) -> None:
            for event in events:
                if isinstance(event, DataReceived):
                    await self._data(event)
                else:
                    await super()._handle_events([event])
            await self._flush()

        async def _data(self, event: DataReceived) -> None:
            number, length = event.stream_id, event.flow_controlled_length
            stream = self.streams.get(number)
            if not isinstance(stream, HTTPStream) or stream.app_put is None or stream.closed:
                self._acknowledge(number, length)  # answered already: nobody wants it
                return
            self._unacknowledged[number] = self._unacknowledged.get(number, 0) + length
            waiting = self._untaken.setdefault(number, bytearray())
            told = bool(waiting)
            waiting += event.data
            if not told and waiting:
                # One message at a time tells of all that is there: the application's queue is never full of them.
                async def take() -> bytes:
                    return await self._take(number)

                message: Any = {"type": "http.request", "body": b"", "more_body": True, _TAKE: take}
                await stream.app_put(message)

        async def _take(self, number: int) -> bytes:
            data = bytes(self._untaken.pop(number, b""))
            self._acknowledge(number, self._unacknowledged.pop(number, 0))
            await self._flush()
            return data

        def _acknowledge(self, number: int, length: int) -> None:
            if not length:
                return
            try:
                self.connection.acknowledge_received_data(length, number)
            except (ProtocolError, KeyError):
                return  # the connection ends

        async def stream_send(self, event: Any) -> None:
            if isinstance(event, StreamClosed):
                await self._broken_off(event.stream_id)
            await super().stream_send(event)

        async def _close_stream(self, stream_id: int) -> None:
            await super()._close_stream(stream_id)
            # What was never taken counts for the connection all the same.
            self._untaken.pop(stream_id, None)
            self._acknowledge(stream_id, self._unacknowledged.pop(stream_id, 0))
            await self._flush()

        async def _broken_off(self, number: int) -> None:
            stream = self.streams.get(number)
            if isinstance(stream, HTTPStream) and stream.state == ASGIHTTPState.RESPONSE and not stream.closed:
                try:
                    self.connection.reset_stream(number, error_code=ErrorCodes.INTERNAL_ERROR)
                except ProtocolError:
                    return  # the client was faster

    # The name that hypercorn makes its connections by.
    vars(protocol).update(H2Protocol=Taking, taking=True)
