"""What a connector has on its other side, in a process of its own: an endpoint that asks for a token, and whose front
end passes plain HTTP and websockets and no other upgrade.

The embedded endpoint does the work; its control plane and its relay are served on one TCP port behind a token check.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path
from typing import Any

import orjson

from agent_gateway.asgi import Receive, Scope, Send, read_body, respond, respond_message
from agent_gateway.front_door.http import HttpServer
from agent_gateway.relay.app import RelayApp
from agent_gateway.tickets import GatewayTokens

TOKEN = "skls_test_" + "s" * 32


class FarSide:
    """An ASGI app: control plane and relay of an `Embedded`, for the holder of `TOKEN`."""

    def __init__(self, embedded: Any, public: str) -> None:
        self._plane = embedded._control_plane
        self._public = public
        settings = embedded._gateway._settings
        self.relay = RelayApp(embedded._gateway._streams)
        self._tokens = GatewayTokens(settings.key, settings.url)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path: str = scope["path"]
        shown = dict(scope["headers"]).get(b"authorization", b"")
        if path.startswith("/internal/v1/streams/"):
            await self._answer(send, 200, {"relay_url": self._public})
        elif shown != f"Bearer {TOKEN}".encode():
            await self._answer(send, 401, {"message": "the token is not known"})
        elif path == "/internal/v1/tickets":
            await self._tickets(scope, receive, send)
        else:
            await self._plane.app(scope, receive, send)

    async def _answer(self, send: Send, status: int, body: Any) -> None:
        async def marked(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"].append((b"api-version", b"1.50"))
            await send(message)

        await respond(marked, status, orjson.dumps(body), b"application/json")

    async def _tickets(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As the control plane answers a user: here a gateway's token is shown to it in the user's place."""
        body = await read_body(receive, 1 << 20) or b""
        unread = [{"type": "http.request", "body": body, "more_body": False}]
        headers = [(name, value) for name, value in scope["headers"] if name != b"authorization"]
        headers.append((b"authorization", f"Bearer {self._tokens.current()}".encode()))
        told: dict[str, Any] = {"body": b""}

        async def again() -> Any:
            return unread.pop() if unread else await receive()

        async def keep(message: Any) -> None:
            if message["type"] == "http.response.start":
                told["status"] = message["status"]
            else:
                told["body"] += message.get("body", b"")

        await self._plane.app({**scope, "headers": headers}, again, keep)
        answer = orjson.loads(told["body"])
        if told["status"] == 200:
            answer["relay_url"] = self._public
        await self._answer(send, told["status"], answer)


async def _refuse_upgrades(app: FarSide, scope: Scope, receive: Receive, send: Send) -> None:
    if b"upgrade" in dict(scope["headers"]):
        await respond_message(send, 400, "this front end passes no upgrades but websockets")
    else:
        await app(scope, receive, send)


async def _serve(data: Path, listen: str, port: int, public: str) -> None:
    from control_plane.entrypoints.embedded import Embedded
    from control_plane.settings import Settings

    ended = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    embedded = Embedded(Settings(data=data, listen=[listen]))
    await embedded.start()
    app = FarSide(embedded, public)

    async def front_end(scope: Any, receive: Any, send: Any) -> None:
        await _refuse_upgrades(app, scope, receive, send)

    server = HttpServer(front_end, app.relay)
    listener = await asyncio.get_running_loop().create_server(server, "127.0.0.1", port, reuse_address=True)
    await ended.wait()
    listener.close()
    server.abort()
    await embedded.stop()


if __name__ == "__main__":
    asyncio.run(_serve(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4]))
