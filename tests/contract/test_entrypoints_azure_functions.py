"""The Azure Functions app, driven as the Python worker drives it: the app's own functions, with its own objects.

The Functions host is not here: what it reads of the app is checked (bindings, host.json), and each function is called
with what the host would give it. Not covered: the host's HTTP front end and its 230 seconds, schedules, Event Grid's
delivery and its validation handshake (which the host answers).
"""

from __future__ import annotations

import asyncio
import importlib
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import azure.functions as func
import pytest

from control_plane.store.sqlite import SqliteStore
from tests.contract.hosted_process import GATEWAY, environment, local_cloud, new_token
from tests.contract.test_entrypoints_gcp_functions import container

ROOT = Path("control_plane/entrypoints/azure_functions")
Run = Callable[..., Any]


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    with local_cloud(tmp_path_factory.mktemp("azure-cloud")) as variables:
        yield variables


@pytest.fixture
def app(cloud: Mapping[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    for name, value in environment(tmp_path, **cloud).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("control_plane.telemetry.logs.set_up", lambda: None)  # it would take the tests' own log
    name = "control_plane.entrypoints.azure_functions.function_app"
    sys.modules.pop(name, None)  # a new app: the worker, too, asks one for its functions once
    return importlib.import_module(name)


def functions(app: Any) -> dict[str, Any]:
    return {function.get_function_name(): function for function in app.app.get_functions()}


def bindings(function: Any) -> list[dict[str, Any]]:
    return [binding.get_dict_repr() for binding in function.get_bindings()]


async def test_what_the_host_reads(app: Any) -> None:
    found = functions(app)
    assert set(found) == {"api", "reconcile", "sweep", "site_changed"}
    http = next(b for b in bindings(found["api"]) if b["type"] == "httpTrigger")
    assert http["route"] == "/{*route}"
    assert str(getattr(http["authLevel"], "value", http["authLevel"])).upper() == "ANONYMOUS"
    assert {b["type"] for name in ("reconcile", "sweep") for b in bindings(found[name])} == {"timerTrigger"}
    assert bindings(found["reconcile"])[0]["schedule"] == "0 * * * * *"
    assert bindings(found["site_changed"])[0]["type"] == "eventGridTrigger"
    host = json.loads((ROOT / "host.json").read_text())
    assert host["version"] == "2.0"
    assert host["extensions"]["http"]["routePrefix"] == ""


class Timer(func.TimerRequest):
    @property
    def past_due(self) -> bool:
        return True


async def put(tmp_path: Path, **executions: str) -> None:
    store = SqliteStore(tmp_path / "state.sqlite")
    for name, execution in executions.items():
        one = container(name, execution, connected=False)
        if execution.startswith("site-"):
            assert one.execution is not None
            one = one.model_copy(update={"execution": one.execution.model_copy(update={"job": execution})})
        await store.create("containers", one.tenant, one.id, one.model_dump(mode="json"))
    await store.close()


async def statuses(tmp_path: Path) -> dict[str, str]:
    store = SqliteStore(tmp_path / "state.sqlite")
    found = {d.body["name"]: d.body["state"]["status"] for d in await store.list("containers")}
    await store.close()
    return found


async def test_the_timers(app: Any, tmp_path: Path) -> None:
    await put(tmp_path, a="gone-1")
    try:
        found = functions(app)
        await found["reconcile"].get_user_function()(Timer())
        assert await statuses(tmp_path) == {"container-a": "exited"}
        await found["sweep"].get_user_function()(Timer())
    finally:
        await app.host.close()


async def test_an_event_of_a_site(app: Any, tmp_path: Path) -> None:
    await put(tmp_path, a="site-one", b="site-two")
    site = "/subscriptions/s/resourceGroups/g/providers/Microsoft.Web/sites"
    handle = functions(app)["site_changed"].get_user_function()

    def event(subject: str) -> func.EventGridEvent:
        return func.EventGridEvent(
            id="1",
            data={"appEventTypeDetail": {"action": "Stopped"}},
            topic="/subscriptions/s",
            subject=subject,
            event_type="Microsoft.Web.AppUpdated",
            event_time=None,
            data_version="2",
        )

    try:
        await handle(event(f"{site}/site-one"))
        await handle(event(f"{site}/site-one"))
        await handle(event(f"{site}/somebody-elses"))
        await handle(event("/subscriptions/s"))
        assert await statuses(tmp_path) == {"container-a": "exited", "container-b": "running"}
    finally:
        await app.host.close()


async def test_the_api_for_short_calls(app: Any, tmp_path: Path) -> None:
    token = await asyncio.to_thread(new_token, tmp_path)
    await put(tmp_path, a="gone-1")
    api = functions(app)["api"].get_user_function()

    async def ask(method: str, path: str, query: Mapping[str, str] | None = None, *, proof: str = "") -> Any:
        request = func.HttpRequest(
            method,
            f"https://app.example{path}?{urlencode(query or {})}",
            headers={"host": "app.example", **({"authorization": f"Bearer {proof}"} if proof else {})},
            params=dict(query or {}),
            body=b"",
        )
        return await api(request, Context())

    try:
        listed = await ask("GET", "/v1.44/containers/json", proof=token)
        assert listed.status_code == 200
        assert [found["Names"] for found in json.loads(listed.get_body())] == [["/container-a"]]
        assert (await ask("GET", "/containers/json")).status_code == 401
        for method, path, query in (
            ("POST", "/containers/a/attach", {}),
            ("POST", "/exec/a/start", {}),
            ("GET", "/v1.44/events", {}),
            ("GET", "/containers/a/logs", {"follow": "1", "stdout": "1"}),
            ("POST", "/containers/a/wait", {}),
            ("POST", "/images/create", {"fromImage": "busybox"}),
            ("PUT", "/containers/a/archive", {"path": "/"}),
        ):
            refused = await ask(method, path, query, proof=token)
            assert refused.status_code == 501, path
            assert GATEWAY in json.loads(refused.get_body())["message"]
    finally:
        await app.host.close()


class Context(func.Context):
    """What the worker tells of an invocation."""

    thread_local_storage = trace_context = retry_context = None  # type: ignore[assignment]
    invocation_id = function_directory = ""
    function_name = "api"
