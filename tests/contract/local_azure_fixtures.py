"""The local cloud's Azure side for a test: the official async clients over plain HTTP, and sites that run for real."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
from azure.core.pipeline import PipelineRequest
from azure.core.pipeline.policies import SansIOHTTPPolicy
from azure.identity.aio import ManagedIdentityCredential
from azure.mgmt.web.aio import WebSiteManagementClient
from azure.monitor.query import LogsQueryResult
from azure.monitor.query.aio import LogsQueryClient

from local_cloud.server import LocalCloud
from tests.contract.local_gcp_fixtures import local_cloud, push

SUBSCRIPTION = "00000000-0000-0000-0000-000000000000"
WORKSPACE = "00000000-0000-0000-0000-000000000001"
GROUP = "local"
LOGS_AUDIENCE = "https://api.loganalytics.io"
"""Else the client takes it from its endpoint."""
STORAGE = "DefaultEndpointsProtocol=https;AccountName=local;AccountKey=bG9jYWw=;EndpointSuffix=core.windows.net"
SETTINGS = {
    "AzureWebJobsStorage": STORAGE,
    "FUNCTIONS_EXTENSION_VERSION": "~4",
    "WEBSITES_ENABLE_APP_SERVICE_STORAGE": "false",
}
APPLICATION = """
import http.server, json, os, signal, sys, time
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/slow":
            time.sleep(60)
        if self.path == "/exit":
            os._exit(7)
        self.answer(json.dumps(dict(os.environ)).encode() if self.path == "/env" else b"pid %d" % os.getpid())
    def do_POST(self):
        text = self.rfile.read(int(self.headers["Content-Length"])).decode()
        print(text, file=sys.stderr if self.path == "/stderr" else sys.stdout, flush=True)
        self.answer(b"said")
    def answer(self, body):
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_):
        pass
signal.signal(signal.SIGTERM, lambda *_: (print("terminated", flush=True), os._exit(0)))
print("application starts", flush=True)
http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"""


class PlainHttp(SansIOHTTPPolicy[Any, Any]):
    """Lets the clients send their tokens over plain HTTP: the local cloud is on this machine."""

    def on_request(self, request: PipelineRequest[Any]) -> None:
        request.context.options["enforce_https"] = False


class Azure:
    """The official async clients, with tokens of the local managed identity."""

    def __init__(self, cloud: LocalCloud, credential: Any) -> None:
        url = cloud.http_url
        self.credential = credential
        plain = [PlainHttp()]
        self.web = WebSiteManagementClient(
            credential, SUBSCRIPTION, base_url=url, per_call_policies=plain, retry_total=0, polling_interval=1,
            policies=None,
        )  # fmt: skip
        self.logs = LogsQueryClient(
            credential, endpoint=f"{url}/v1", audience=LOGS_AUDIENCE, per_call_policies=plain, retry_total=0
        )
        self.http = httpx.AsyncClient(base_url=url, timeout=30)

    async def close(self) -> None:
        for client in (self.web, self.logs, self.credential):
            await client.close()
        await self.http.aclose()

    async def plan(self, name: str = "plan", size: str = "EP1") -> Any:
        body = {"location": "eastus", "kind": "elastic", "sku": {"name": size}, "properties": {"reserved": True}}
        poller = await self.web.app_service_plans.begin_create_or_update(GROUP, name, body)  # type: ignore[call-overload]
        return await poller.result()

    async def site(self, name: str, image: str, *, plan: str = "plan", **properties: Any) -> Any:
        poller = await self.web.web_apps.begin_create_or_update(GROUP, name, site_body(image, plan, **properties))
        return await poller.result()

    async def get(self, site: str, path: str = "/", **options: Any) -> httpx.Response:
        return await self.http.get(path, headers={"Host": f"{site}.azurewebsites.net"}, **options)

    async def say(self, site: str, text: str, stream: str = "stdout") -> None:
        answer = await self.http.post(f"/{stream}", content=text, headers={"Host": f"{site}.azurewebsites.net"})
        assert answer.status_code == 200, answer.text

    async def query(self, text: str, timespan: Any = None) -> Any:
        result = await self.logs.query_workspace(WORKSPACE, text, timespan=timespan)
        assert isinstance(result, LogsQueryResult)
        return result.tables[0]

    async def platform_log(self, site: str) -> str:
        table = await self.query(
            f"AppServicePlatformLogs | where _ResourceId endswith '/sites/{site}' | project Message"
        )
        return "\n".join(row[0] for row in table.rows)

    async def environment(self, site: str) -> dict[str, str]:
        answer = await self.get(site, "/env")
        assert answer.status_code == 200, answer.text
        found: dict[str, str] = json.loads(answer.text)
        return found


def site_body(image: str, plan: str = "plan", settings: dict[str, str] | None = None, **properties: Any) -> Any:
    """A site with the settings that a Functions container needs; `properties` are added to its own."""
    config = {
        "linuxFxVersion": f"DOCKER|{image}",
        "appSettings": [{"name": name, "value": value} for name, value in (SETTINGS | (settings or {})).items()],
    }
    plan_id = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/{GROUP}/providers/Microsoft.Web/serverfarms/{plan}"
    own = {"serverFarmId": plan_id, "reserved": True, "siteConfig": config}
    return {"location": "eastus", "kind": "functionapp,linux,container", "properties": own | properties}


@asynccontextmanager
async def azure_cloud(data: Path, monkeypatch: Any, runtime: Any = None, **options: Any) -> AsyncIterator[Any]:
    """A running local cloud and Azure's clients for it: (LocalCloud, Azure)."""
    options = {"azure_restart_backoff": (0.05, 0.2)} | options
    async with local_cloud(data, runtime, **options) as (cloud, _sdk):
        endpoint, header = cloud.azure_identity
        monkeypatch.setenv("IDENTITY_ENDPOINT", endpoint)
        monkeypatch.setenv("IDENTITY_HEADER", header)
        azure = Azure(cloud, ManagedIdentityCredential())
        try:
            yield cloud, azure
        finally:
            await azure.close()


async def push_application(cloud: LocalCloud, script: str = APPLICATION) -> str:
    """Pushes an image whose container answers HTTP; returns its reference."""
    return await push(cloud.http_url, Entrypoint=[sys.executable, "-c", script])
