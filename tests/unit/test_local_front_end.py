"""The local cloud's HTTP port: who answers for which name, which names are served at all, and how it ends."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path

import httpx
import pytest
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from local_cloud import ports
from local_cloud.front_end import FrontEnd
from local_cloud.http_server import HttpServer
from local_cloud.own_clients import OwnClients


def says(text: str) -> ASGIApp:
    return PlainTextResponse(text)


HOSTS = {".a.run.app": says("run"), ".azurewebsites.net": says("sites")}


def client(app: ASGIApp) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://127.0.0.1:4000")


@pytest.mark.parametrize(
    ("host", "answer"),
    [
        ("service-x.a.run.app", "run"),
        ("Service-X.A.Run.App:443", "run"),
        ("service-x.a.run.app.", "run"),
        ("site.azurewebsites.net:4000", "sites"),
        ("127.0.0.1:4000", "inner"),
        ("[::1]:4000", "inner"),
        (".a.run.app", "inner"),
        ("a.run.app", "inner"),
        ("x.a.run.app.example.com", "inner"),
        ("", "inner"),
    ],
)
async def test_the_name_chooses_the_app(host: str, answer: str) -> None:
    async with client(FrontEnd(says("inner"), HOSTS)) as web:
        assert (await web.get("/", headers={"host": host})).text == answer


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"host": "service-x.a.run.app"}, 200),
        ({"host": "site.azurewebsites.net"}, 200),
        ({"host": "service-x.a.run.app", "origin": "https://example.com"}, 403),
        ({"host": "site.azurewebsites.net.example.com"}, 403),
        ({"host": "rebound.example.com"}, 403),
        ({"host": "localhost"}, 200),
    ],
)
async def test_its_names_are_served_but_not_to_web_pages(headers: dict[str, str], status: int) -> None:
    async with client(OwnClients(FrontEnd(says("inner"), HOSTS), (), HOSTS)) as web:
        assert (await web.get("/", headers=headers)).status_code == status


async def test_the_end_cuts_held_requests_and_lets_others_finish(tmp_path: Path) -> None:
    listener = ports.listen("test", 0, tmp_path / "ports.json")
    begun, cut, may_finish = asyncio.Semaphore(0), asyncio.Event(), asyncio.Event()

    async def held(scope: Scope, receive: Receive, send: Send) -> None:
        begun.release()
        with suppress(ClientDisconnect):
            async for _ in Request(scope, receive).stream():
                pass
        while (await receive())["type"] != "http.disconnect":
            pass
        cut.set()

    async def inner(scope: Scope, receive: Receive, send: Send) -> None:
        begun.release()
        await may_finish.wait()
        await PlainTextResponse("finished")(scope, receive, send)

    front_end = FrontEnd(inner, {".a.run.app": held})
    server = HttpServer(front_end, front_end.holds)
    port = listener.getsockname()[1]
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    await server.listening.wait()
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=20) as web:
        holding = asyncio.create_task(web.post("/", headers={"host": "x.a.run.app"}, content=b"body"))
        asking = asyncio.create_task(web.get("/"))
        await begun.acquire()
        await begun.acquire()
        server.should_exit = True
        with pytest.raises(httpx.TransportError):  # no answer that could be taken for the container's
            await holding
        await cut.wait()
        assert not asking.done()
        may_finish.set()
        assert (await asking).text == "finished"
    await serving
