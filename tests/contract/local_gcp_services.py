"""Clients of services and functions for tests: the official SDKs, a small HTTP server as the container, callers."""

from __future__ import annotations

import io
import zipfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
from google.cloud import functions_v2, run_v2
from google.cloud.functions_v2.services.function_service.transports.grpc_asyncio import (
    FunctionServiceGrpcAsyncIOTransport,
)
from google.cloud.run_v2.services.revisions.transports.grpc_asyncio import RevisionsGrpcAsyncIOTransport
from google.cloud.run_v2.services.services.transports.grpc_asyncio import ServicesGrpcAsyncIOTransport

from local_cloud.server import LocalCloud
from tests.contract.local_gcp_fixtures import PARENT, Sdk, local_cloud

SERVER = """
import os, sys, time, signal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
class Handler(BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    def do_GET(self):
        print('asked for', self.path, flush=True)
        if self.path == '/exit':
            os._exit(3)
        if self.path.startswith('/hold'):
            while not os.path.exists(os.environ['GATE']):
                time.sleep(0.01)
        names = ('K_SERVICE', 'K_REVISION', 'K_CONFIGURATION', 'TOLD')
        told = '|'.join([os.environ.get(name, '-') for name in names] + [self.path, str(os.getpid()),
            self.headers.get('Authorization', '-')])
        self.send_response(200)
        self.send_header('Content-Length', str(len(told)))
        self.end_headers()
        self.wfile.write(told.encode())
    do_POST = do_GET
    def log_message(self, *_):
        pass
ThreadingHTTPServer(('127.0.0.1', int(os.environ['PORT'])), Handler).serve_forever()
"""


class ServiceSdk:
    """The official async clients of services, revisions and functions, and an HTTP client for what they serve."""

    def __init__(self, sdk: Sdk, cloud: LocalCloud) -> None:
        channel = sdk.channel
        self.services = run_v2.ServicesAsyncClient(transport=ServicesGrpcAsyncIOTransport(channel=channel))
        self.revisions = run_v2.RevisionsAsyncClient(transport=RevisionsGrpcAsyncIOTransport(channel=channel))
        self.functions = functions_v2.FunctionServiceAsyncClient(
            transport=FunctionServiceGrpcAsyncIOTransport(channel=channel)
        )
        self.sdk = sdk
        self.http = httpx.AsyncClient(base_url=cloud.http_url, timeout=30)

    async def create(self, service_id: str, service: run_v2.Service) -> run_v2.Service:
        operation = await self.services.create_service(parent=PARENT, service=service, service_id=service_id)
        made: run_v2.Service = await operation.result()
        return made

    async def update(self, service: run_v2.Service) -> run_v2.Service:
        made: run_v2.Service = await (await self.services.update_service(service=service)).result()
        return made

    async def identity(self, audience: str) -> str:
        """An identity token of the metadata server."""
        answer = await self.http.get(
            "/computeMetadata/v1/instance/service-accounts/default/identity",
            params={"audience": audience, "format": "full"},
            headers={"Metadata-Flavor": "Google"},
        )
        assert answer.status_code == 200, answer.text
        return answer.text

    async def ask(self, uri: str, path: str = "/", token: str | None = "", method: str = "GET") -> httpx.Response:
        """One request to a service's URL. `token`: its own identity token when empty, none when None."""
        headers = {"Host": uri.removeprefix("https://").partition("/")[0]}
        if token is not None:
            headers["Authorization"] = f"Bearer {token or await self.identity(uri)}"
        return await self.http.request(method, path, headers=headers)

    async def upload(self, source: bytes) -> functions_v2.Source:
        """Uploads a function's source by a signed URL."""
        answer = await self.functions.generate_upload_url({"parent": PARENT})
        put = await self.http.put(answer.upload_url, content=source, headers={"Content-Type": "application/zip"})
        assert put.status_code == 200, put.text
        return functions_v2.Source(storage_source=answer.storage_source)

    async def make(self, function_id: str, function: functions_v2.Function) -> functions_v2.Function:
        operation = await self.functions.create_function(parent=PARENT, function=function, function_id=function_id)
        made: functions_v2.Function = await operation.result()
        return made


@asynccontextmanager
async def serving(data: Path, runtime: Any = None, **options: Any) -> AsyncIterator[tuple[LocalCloud, ServiceSdk]]:
    """A running local cloud and clients for its services and functions."""
    async with local_cloud(data, runtime, **options) as (cloud, sdk):
        clients = ServiceSdk(sdk, cloud)
        try:
            yield cloud, clients
        finally:
            await clients.http.aclose()


def service(image: str, gate: Path | None = None, *, told: str = "", script: str = SERVER, **template: Any) -> Any:
    """A service of one container that answers GET and POST; `/hold` waits for the gate, `/exit` ends the process."""
    env = [run_v2.EnvVar(name="GATE", value=str(gate or "/")), run_v2.EnvVar(name="TOLD", value=told)]
    container = run_v2.Container(image=image, command=["/usr/bin/env", "python3"], args=["-c", script], env=env)
    for name in ("resources", "ports", "volume_mounts", "startup_probe"):
        if name in template:
            setattr(container, name, template.pop(name))
    container.env.extend(template.pop("env", []))
    return run_v2.Service(template=run_v2.RevisionTemplate(containers=[container], **template))


def source(text: str = "def main(request):\n    return 'ok'\n", name: str = "main.py") -> bytes:
    """A function's source archive."""
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        archive.writestr(name, text)
    return data.getvalue()


def function(where: functions_v2.Source, **config: Any) -> functions_v2.Function:
    """A python312 function with the entry point `main`."""
    build = {"runtime": "python312", "entry_point": "main", "source": where} | config.pop("build", {})
    return functions_v2.Function(build_config=build, environment=functions_v2.Environment.GEN_2, **config)
