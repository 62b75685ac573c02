"""Sites of the local cloud that run: their container, the front end, stop, restart, and the local cloud's own end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from azure.core.exceptions import HttpResponseError

from local_cloud.runtime.api import RunSpec
from tests.contract.local_azure_fixtures import APPLICATION, GROUP, SETTINGS, azure_cloud, push_application
from tests.contract.local_gcp_fixtures import ProcessRuntime


async def until(true: Callable[[], Awaitable[object]], limit: float = 15.0) -> None:
    deadline = time.monotonic() + limit
    while not await true():
        assert time.monotonic() < deadline, "it does not come true"
        await asyncio.sleep(0.02)


async def running(runtime: ProcessRuntime) -> list[str]:
    return [id for id, runs in (await runtime.ids()).items() if runs]


async def test_a_started_site_answers_and_knows_what_it_is(tmp_path: Path, monkeypatch: Any) -> None:
    runtime = ProcessRuntime()
    async with azure_cloud(tmp_path, monkeypatch, runtime) as (cloud, azure):
        await azure.plan(size="EP2")
        settings = {"WEBSITES_PORT": "34117", "A.B": "c d"}
        await azure.site("tool", await push_application(cloud), settings=settings, enabled=False)
        stopped = await azure.get("tool")
        assert (stopped.status_code, "Error 403 - This web app is stopped." in stopped.text) == (403, True)
        assert await running(runtime) == []
        await azure.web.web_apps.start(GROUP, "tool")
        env = await azure.environment("tool")
        assert (env["WEBSITE_SITE_NAME"], env["WEBSITE_RESOURCE_GROUP"]) == ("tool", "local")
        assert env["WEBSITE_HOSTNAME"] == "tool.azurewebsites.net"
        assert (env["A_B"], env["APPSETTING_A_B"], env["WEBSITES_PORT"]) == ("c d", "c d", "34117")
        assert env["AzureWebJobsStorage"] == SETTINGS["AzureWebJobsStorage"]
        assert env["WEBSITE_INSTANCE_ID"]
        (spec,) = runtime.specs.values()
        assert (spec.memory_bytes, spec.cpus, spec.id[:7]) == (7 << 30, 2.0, "1-tool-")
        assert (await azure.web.web_apps.get(GROUP, "tool")).properties.state == "Running"
        assert (cloud.calls.counts()["Sites.Invoke"], cloud.resources()["instances"]) == (2, 1)
        assert (await azure.get("nothing")).status_code == 404
        await azure.web.web_apps.delete(GROUP, "tool")
        await until(lambda: _none(runtime))
        assert (await azure.get("tool")).status_code == 404
    await runtime.end()


async def _none(runtime: ProcessRuntime) -> bool:
    return not await runtime.ids()


async def test_stop_terminates_and_start_starts_afresh(tmp_path: Path, monkeypatch: Any) -> None:
    runtime = ProcessRuntime()
    async with azure_cloud(tmp_path, monkeypatch, runtime) as (cloud, azure):
        await azure.plan()
        await azure.site("tool", await push_application(cloud))
        first = (await azure.get("tool")).text
        await azure.web.web_apps.start(GROUP, "tool")
        assert (await azure.get("tool")).text == first
        await azure.web.web_apps.stop(GROUP, "tool")
        assert (await azure.get("tool")).status_code == 403
        await azure.web.web_apps.start(GROUP, "tool")
        second = (await azure.get("tool")).text
        await azure.web.web_apps.restart(GROUP, "tool")
        third = (await azure.get("tool")).text
        assert len({first, second, third}) == 3
        assert len(await running(runtime)) == 1
        table = await azure.query("AppServiceConsoleLogs | where ResultDescription == 'terminated' | count")
        assert table.rows[0][0] == 2
    await runtime.end()


async def test_a_changed_setting_restarts_the_site(tmp_path: Path, monkeypatch: Any) -> None:
    runtime = ProcessRuntime()
    async with azure_cloud(tmp_path, monkeypatch, runtime) as (cloud, azure):
        await azure.plan()
        await azure.site("tool", await push_application(cloud))
        first = (await azure.get("tool")).text
        await azure.web.web_apps.update_application_settings(GROUP, "tool", {"properties": SETTINGS | {"NEW": "1"}})
        assert (await azure.environment("tool"))["NEW"] == "1"
        assert (await azure.get("tool")).text != first
        changed = (await azure.get("tool")).text
        await azure.web.web_apps.update_application_settings(GROUP, "tool", {"properties": SETTINGS | {"NEW": "1"}})
        assert (await azure.get("tool")).text == changed
    await runtime.end()


async def test_a_process_that_ends_is_started_again(tmp_path: Path, monkeypatch: Any) -> None:
    runtime = ProcessRuntime()
    async with azure_cloud(tmp_path, monkeypatch, runtime) as (cloud, azure):
        await azure.plan()
        await azure.site("tool", await push_application(cloud))
        first = (await azure.get("tool")).text
        assert (await azure.get("tool", "/exit")).status_code == 502

        async def another() -> bool:
            again = await azure.get("tool")
            assert again.status_code in (200, 502)  # the process has ended, and nobody has noticed yet
            return bool(again.status_code == 200 and again.text != first)

        await until(another)
        assert "has exited. It will be started again." in await azure.platform_log("tool")
    await runtime.end()


async def test_a_container_that_does_not_answer_fails_the_start(tmp_path: Path, monkeypatch: Any) -> None:
    async with azure_cloud(tmp_path, monkeypatch) as (cloud, azure):
        await azure.plan()
        silent = await push_application(cloud, "import time; time.sleep(60)")
        await azure.site("silent", silent, settings={"WEBSITES_CONTAINER_START_TIME_LIMIT": "1"})
        ended = await push_application(cloud, "raise SystemExit(3)")
        await azure.site("ended", ended)
        for name, text in (
            ("silent", "didn't respond to HTTP pings on port"),
            ("ended", "has exited, failing site st"),
        ):
            answer = await azure.get(name)
            assert (answer.status_code, "Application Error" in answer.text) == (503, True)
            assert text in await azure.platform_log(name)


async def test_what_is_not_started_is_told_in_the_platform_log(tmp_path: Path, monkeypatch: Any) -> None:
    async with azure_cloud(tmp_path, monkeypatch) as (cloud, azure):
        await azure.plan()
        image = await push_application(cloud)
        host = image.partition("/")[0]
        cases = {
            "storage": (image, {"AzureWebJobsStorage": "nonsense"}, "'AzureWebJobsStorage' could not be parsed"),
            "version": (image, {"FUNCTIONS_EXTENSION_VERSION": "~1"}, "FUNCTIONS_EXTENSION_VERSION is '~1'"),
            "missing": (f"{host}/local/apps/none:latest", {}, "ImagePullFailure"),
            "elsewhere": ("example.com/none:latest", {}, "Image pull failed"),
        }
        for name, (reference, settings, text) in cases.items():
            await azure.site(name, reference, settings=settings)
            assert (await azure.get(name)).status_code == 503
            assert text in await azure.platform_log(name)
        without = {name: value for name, value in SETTINGS.items() if name != "AzureWebJobsStorage"}
        await azure.web.web_apps.update_application_settings(GROUP, "version", {"properties": without})
        assert (await azure.get("version")).status_code == 503
        assert "'AzureWebJobsStorage' does not exist" in await azure.platform_log("version")
        identity = without | {"AzureWebJobsStorage__accountName": "local"}
        await azure.web.web_apps.update_application_settings(GROUP, "version", {"properties": identity})
        assert (await azure.get("version")).status_code == 200


async def test_the_front_end_waits_and_gives_up(tmp_path: Path, monkeypatch: Any) -> None:
    slow = APPLICATION.replace("import http.server", "import time; time.sleep(0.5); import http.server")
    async with azure_cloud(tmp_path, monkeypatch, azure_front_end_seconds=2.0) as (cloud, azure):
        await azure.plan()
        await azure.site("tool", await push_application(cloud, slow))
        assert (await azure.get("tool")).status_code == 200
        assert (await azure.get("tool", "/slow")).status_code == 504
        assert (await azure.get("tool")).status_code == 200
        faults = {"Sites.Invoke": {"status": "UNAVAILABLE"}}
        assert (await azure.http.put("/_local/faults", json=faults)).status_code == 204
        assert (await azure.get("tool")).status_code == 503


async def test_a_client_that_goes_away_disturbs_nobody(tmp_path: Path, monkeypatch: Any) -> None:
    async with azure_cloud(tmp_path, monkeypatch) as (cloud, azure):
        await azure.plan()
        await azure.site("tool", await push_application(cloud))
        assert (await azure.get("tool")).status_code == 200
        try:
            await azure.get("tool", "/slow", timeout=0.2)
        except httpx.TimeoutException:
            pass
        else:
            raise AssertionError("it answered")
        assert (await azure.get("tool")).status_code == 200


async def test_running_sites_outlive_the_local_cloud(tmp_path: Path, monkeypatch: Any) -> None:
    runtime = ProcessRuntime()
    async with azure_cloud(tmp_path, monkeypatch, runtime) as (cloud, azure):
        await azure.plan()
        image = await push_application(cloud)
        for name in ("kept", "ended", "stopped"):
            await azure.site(name, image)
        before = {name: (await azure.get(name)).text for name in ("kept", "ended", "stopped")}
        await azure.say("kept", "before")
        await azure.web.web_apps.stop(GROUP, "stopped")
    (ended,) = (id for id in runtime.specs if id.startswith("1-ended-"))
    await runtime.kill(ended, 9)
    await runtime.wait(ended)
    async with azure_cloud(tmp_path, monkeypatch, runtime) as (_, azure):
        assert (await azure.get("kept")).text == before["kept"]
        assert (await azure.get("ended")).text != before["ended"]
        assert (await azure.get("stopped")).status_code == 403
        await azure.say("kept", "after")
        query = "AppServiceConsoleLogs | where _ResourceId endswith '/kept' | project ResultDescription"
        assert [row[0] for row in (await azure.query(query)).rows] == ["application starts", "before", "after"]
        assert len(await running(runtime)) == 2
    await runtime.end()


class Unheard(ProcessRuntime):
    """The container runs, and the local cloud ends before it hears so."""

    def __init__(self) -> None:
        super().__init__()
        self.begun = asyncio.Event()
        self.heard = False

    async def run(self, spec: RunSpec) -> int:
        started = await super().run(spec)
        self.begun.set()
        if not self.heard:
            await asyncio.Event().wait()
        return started


async def test_a_container_whose_start_nobody_heard_of_is_taken_up(tmp_path: Path, monkeypatch: Any) -> None:
    runtime = Unheard()
    async with azure_cloud(tmp_path, monkeypatch, runtime) as (cloud, azure):
        await azure.plan()
        await azure.site("tool", await push_application(cloud))
        await asyncio.wait_for(runtime.begun.wait(), 20)
    runtime.heard = True
    async with azure_cloud(tmp_path, monkeypatch, runtime) as (_, azure):
        assert (await azure.get("tool")).status_code == 200
        assert (len(runtime.specs), await running(runtime)) == (1, [*runtime.specs])
    await runtime.end()


async def test_the_command_line_replaces_the_images_command(tmp_path: Path, monkeypatch: Any) -> None:
    runtime = ProcessRuntime()
    async with azure_cloud(tmp_path, monkeypatch, runtime) as (cloud, azure):
        await azure.plan()
        await azure.site("tool", await push_application(cloud), enabled=False)
        body = {"properties": {"appCommandLine": "one 'two three'"}}
        changed = await azure.web.web_apps.create_or_update_configuration(GROUP, "tool", body)
        assert changed.properties.app_command_line == "one 'two three'"
        await azure.web.web_apps.start(GROUP, "tool")
        assert (await azure.get("tool")).status_code == 200
        (spec,) = runtime.specs.values()
        assert spec.argv[-2:] == ("one", "two three")
    await runtime.end()


async def test_a_container_that_ignores_sigterm_is_killed(tmp_path: Path, monkeypatch: Any) -> None:
    runtime = ProcessRuntime()
    deaf = APPLICATION.replace(
        "signal.signal(signal.SIGTERM, lambda *_: (",
        "signal.signal(signal.SIGTERM, lambda *_: print('deaf', flush=True)); (lambda: (",
    )
    async with azure_cloud(tmp_path, monkeypatch, runtime) as (cloud, azure):
        await azure.plan()
        settings = {"WEBSITES_CONTAINER_STOP_TIME_LIMIT": "1"}
        await azure.site("tool", await push_application(cloud, deaf), settings=settings)
        assert (await azure.get("tool")).status_code == 200
        await azure.web.web_apps.stop(GROUP, "tool")
        await until(lambda: _none(runtime))
        table = await azure.query("AppServiceConsoleLogs | where ResultDescription == 'deaf' | count")
        assert table.rows[0][0] == 1
    await runtime.end()


async def test_a_slow_start_delays_the_container_and_a_failing_one_starts_none(
    tmp_path: Path, monkeypatch: Any
) -> None:
    runtime = ProcessRuntime()
    async with azure_cloud(tmp_path, monkeypatch, runtime) as (cloud, azure):
        await azure.plan()
        await azure.site("tool", await push_application(cloud), enabled=False)
        faults: Any = {"Sites.Start": {"operation_error": "INTERNAL"}}
        assert (await azure.http.put("/_local/faults", json=faults)).status_code == 204
        with pytest.raises(HttpResponseError):
            await azure.web.web_apps.start(GROUP, "tool")
        assert (await azure.get("tool")).status_code == 403
        faults = {"Sites.Start": {"operation_delay": 0.3}}
        assert (await azure.http.put("/_local/faults", json=faults)).status_code == 204
        await azure.web.web_apps.start(GROUP, "tool")
        assert not runtime.specs
        assert (await azure.get("tool")).status_code == 200
    await runtime.end()
