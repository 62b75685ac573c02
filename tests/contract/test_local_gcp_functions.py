"""Cloud Functions v2 of the local cloud, driven by the official async client over a plain channel."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from google.api_core import exceptions
from google.cloud import functions_v2
from google.protobuf import field_mask_pb2

from local_cloud.quotas import Quotas
from tests.contract.local_gcp_fixtures import PARENT, ProcessRuntime, push
from tests.contract.local_gcp_services import ServiceSdk, function, service, serving, source

NAME = f"{PARENT}/functions/greet"
SERVICE = f"{PARENT}/services/greet"
State = functions_v2.Function.State
_Mask: Any = getattr(field_mask_pb2, "FieldMask")  # noqa: B009 - the class is made at run time
Stage = functions_v2.Stage


async def made(sdk: ServiceSdk, name: str = "greet", **config: Any) -> functions_v2.Function:
    return await sdk.make(name, function(await sdk.upload(source()), **config))


async def test_a_function_becomes_a_service_that_answers_by_itself(tmp_path: Path) -> None:
    runtime = ProcessRuntime()
    async with serving(tmp_path, runtime) as (cloud, sdk):
        where = await sdk.upload(source())
        operation = await sdk.functions.create_function(
            parent=PARENT, function=function(where, labels={"kind": "pool"}), function_id="greet"
        )
        found = await operation.result()
        assert (found.name, found.state) == (NAME, State.ACTIVE)
        assert found.environment == functions_v2.Environment.GEN_2
        assert found.service_config.service == SERVICE
        assert found.service_config.uri.endswith(".a.run.app")
        assert found.url == "https://us-central1-local.cloudfunctions.net/greet"
        config = found.service_config
        assert (config.timeout_seconds, config.available_memory, config.max_instance_request_concurrency) == (
            60,
            "256M",
            1,
        )
        about = operation.metadata
        assert (about.target, about.verb, about.api_version) == (NAME, "create", "v2")
        assert about.operation_type == functions_v2.OperationType.CREATE_FUNCTION
        assert {stage.state for stage in about.stages} == {Stage.State.COMPLETE}
        made_service = await sdk.services.get_service(name=SERVICE)
        assert made_service.labels["goog-managed-by"] == "cloudfunctions"
        assert made_service.labels["kind"] == "pool"
        assert made_service.template.revision == config.revision
        env = {variable.name: variable.value for variable in made_service.template.containers[0].env}
        assert env["FUNCTION_TARGET"] == "main"
        answer = await sdk.ask(config.uri)
        assert answer.status_code == 200
        assert "does not run a function's own code" in answer.text
        assert (await sdk.ask(config.uri, token=None)).status_code == 403
        assert cloud.calls.counts()["Functions.Invoke"] == 2
        assert not runtime.specs
        assert cloud.resources()["functions"] == cloud.resources()["run.services"] == 1


async def test_the_services_image_can_be_swapped_and_stays(tmp_path: Path) -> None:
    async with serving(tmp_path) as (cloud, sdk):
        found = await made(sdk)
        swapped = await sdk.services.get_service(name=SERVICE)
        wanted = service(await push(cloud.http_url), told="swapped")
        swapped.template.containers[0] = wanted.template.containers[0]
        with pytest.raises(exceptions.AlreadyExists, match="with different configuration already exists"):
            await sdk.services.update_service(service=swapped)
        swapped.template.revision = ""
        await sdk.update(swapped)
        answer = await sdk.ask(found.service_config.uri, "/run", method="POST")
        assert answer.text.split("|")[3:5] == ["swapped", "/run"]
        token = await sdk.identity(found.url)
        by_name = await sdk.ask(found.url, "/greet/api/run?a=b", token=token)
        assert by_name.text.split("|")[4] == "/api/run?a=b"
        again = await sdk.functions.get_function(name=NAME)
        assert (again.state, again.service_config.revision) == (State.ACTIVE, found.service_config.revision)
        deleting = await sdk.functions.delete_function(name=NAME)
        await deleting.result()
        with pytest.raises(exceptions.NotFound):
            await sdk.functions.get_function(name=NAME)
        with pytest.raises(exceptions.NotFound):
            await sdk.services.get_service(name=SERVICE)
        await sdk.sdk.until(lambda: not cloud.resources()["run.instances"])


async def test_an_update_builds_and_deploys_again(tmp_path: Path) -> None:
    async with serving(tmp_path) as (_, sdk):
        first = await made(sdk)
        change = functions_v2.Function(name=NAME, service_config={"timeout_seconds": 600})
        mask = _Mask(paths=["service_config.timeout_seconds"])
        after = await (await sdk.functions.update_function(function=change, update_mask=mask)).result()
        assert after.service_config.timeout_seconds == 600
        assert after.build_config.runtime == "python312"
        assert after.service_config.revision != first.service_config.revision
        changed = await sdk.services.get_service(name=SERVICE)
        assert changed.template.timeout.total_seconds() == 600
        assert changed.template.containers[0].image.endswith(":version_2")


async def test_lists_functions_and_runtimes(tmp_path: Path) -> None:
    async with serving(tmp_path) as (_, sdk):
        await made(sdk)
        await made(sdk, "other")
        for parent in (PARENT, "projects/local/locations/-"):
            pager = await sdk.functions.list_functions({"parent": parent, "page_size": 1})
            assert [found.name async for found in pager] == [NAME, f"{PARENT}/functions/other"]
        answer = await sdk.functions.list_runtimes({"parent": PARENT})
        names = {runtime.name for runtime in answer.runtimes}
        assert "python312" in names
        assert "docker" not in names


async def test_a_second_function_of_the_name_exists_already(tmp_path: Path) -> None:
    async with serving(tmp_path) as (cloud, sdk):
        where = await sdk.upload(source())
        faults = {"Functions.CreateFunction": {"lost_response": True}}
        await sdk.http.put("/_local/faults", json=faults)
        with pytest.raises(exceptions.ServiceUnavailable):
            await sdk.functions.create_function(parent=PARENT, function=function(where), function_id="greet")
        await sdk.http.delete("/_local/faults")
        with pytest.raises(exceptions.AlreadyExists):
            await sdk.functions.create_function(parent=PARENT, function=function(where), function_id="greet")
        assert (await sdk.functions.get_function(name=NAME)).state == State.ACTIVE
        await sdk.create("plain", service(await push(cloud.http_url)))
        with pytest.raises(exceptions.AlreadyExists):
            await sdk.make("plain", function(where))


async def write_often(sdk: ServiceSdk) -> None:
    for _ in range(10):
        with suppress(exceptions.NotFound):
            await sdk.functions.delete_function(name=f"{PARENT}/functions/nothing")
        await (await sdk.functions.delete_function(name=NAME)).result()
        await made(sdk)


BROKEN = [
    (source(name="app.py"), "missing main.py and GOOGLE_FUNCTION_SOURCE not specified"),
    (source("def other(request): pass\n"), "contain a function named 'main'"),
    (source("def main(:\n"), "google.python.runtime"),
    (b"not a zip", "not a readable zip archive"),
]


@pytest.mark.parametrize(("archive", "text"), BROKEN)
async def test_a_source_that_does_not_build_fails_the_operation(tmp_path: Path, archive: bytes, text: str) -> None:
    async with serving(tmp_path) as (_, sdk):
        where = await sdk.upload(archive)
        operation = await sdk.functions.create_function(parent=PARENT, function=function(where), function_id="greet")
        with pytest.raises(exceptions.GoogleAPICallError, match="Build failed with status: FAILURE") as failure:
            await operation.result()
        assert text in failure.value.message
        found = await sdk.functions.get_function(name=NAME)
        assert found.state == State.FAILED
        assert text in found.state_messages[0].message
        with pytest.raises(exceptions.NotFound):
            await sdk.services.get_service(name=SERVICE)
        await (await sdk.functions.delete_function(name=NAME)).result()


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"build": {"runtime": "docker"}}, "Invalid value for runtime"),
    ({"build": {"runtime": ""}}, "Invalid value for runtime"),
    ({"build": {"source": functions_v2.Source()}}, "Invalid value for source"),
    ({"service_config": {"timeout_seconds": 3601}}, "Invalid value for timeout_seconds"),
    ({"service_config": {"max_instance_request_concurrency": 1001}}, "max_instance_request_concurrency"),
    (
        {"service_config": {"max_instance_request_concurrency": 2}},
        "Total cpu < 1 is not supported with concurrency > 1",
    ),
    ({"service_config": {"available_memory": "much"}}, "Invalid value for available_memory"),
    ({"service_config": {"available_memory": "64Gi"}}, "memory must be between"),
    ({"service_config": {"max_instance_count": -1}}, "max_instance_count"),
    ({"service_config": {"environment_variables": {"PORT": "1"}}}, "PORT is reserved by the system"),
    ({"service_config": {"environment_variables": {"FUNCTION_TARGET": "x"}}}, "FUNCTION_TARGET is reserved"),
    ({"labels": {"Key": "v"}}, "Invalid label key"),
    ({"labels": {"deployment-x": "v"}}, "reserved"),
]


@pytest.mark.parametrize(("config", "text"), REFUSED)
async def test_refuses_what_the_service_refuses(tmp_path: Path, config: dict[str, Any], text: str) -> None:
    async with serving(tmp_path) as (_, sdk):
        where = functions_v2.Source(storage_source={"bucket": "some-bucket", "object_": "x.zip"})
        with pytest.raises(exceptions.InvalidArgument) as refusal:
            await sdk.make("greet", function(where, **config))
        assert text in refusal.value.message
        with pytest.raises(exceptions.NotFound):
            await sdk.functions.get_function(name=NAME)


async def test_refuses_names_missing_sources_and_more_than_the_quota(tmp_path: Path) -> None:
    async with serving(tmp_path, quotas=Quotas(services=1, function_writes_per_minute=10)) as (_, sdk):
        where = await sdk.upload(source())
        for function_id in ("Greet", "1greet", "greet-", "a" * 64, "greet_x"):
            with pytest.raises(exceptions.InvalidArgument, match="Invalid function name"):
                await sdk.make(function_id, function(where))
        missing = functions_v2.Source(storage_source={"bucket": "some-bucket", "object_": "x.zip"})
        with pytest.raises(exceptions.NotFound, match=r"gs://some-bucket/x\.zip"):
            await sdk.make("greet", function(missing))
        first_generation = function(where)
        first_generation.environment = functions_v2.Environment(1)
        with pytest.raises(exceptions.MethodNotImplemented, match="GEN_2"):
            await sdk.make("greet", first_generation)
        await sdk.make("greet", function(where))
        with pytest.raises(exceptions.ResourceExhausted, match="services per region"):
            await sdk.make("more", function(where))
        with pytest.raises(exceptions.ResourceExhausted, match="write requests"):
            await write_often(sdk)


async def test_upload_urls_are_signed(tmp_path: Path) -> None:
    async with serving(tmp_path) as (_, sdk):
        answer = await sdk.functions.generate_upload_url({"parent": PARENT})
        url, where = answer.upload_url, answer.storage_source
        assert where.bucket.startswith("gcf-v2-uploads-")
        for bad, code in (
            (url.partition("?")[0], "AccessDenied"),
            (url[:-4] + "0000", "SignatureDoesNotMatch"),
            (url.replace("X-Goog-Expires=1800", "X-Goog-Expires=9999"), "SignatureDoesNotMatch"),
            (url.replace(where.object_, "0" * 32 + ".zip"), "SignatureDoesNotMatch"),
        ):
            refused = await sdk.http.put(bad, content=b"x")
            assert refused.status_code == 403
            assert code in refused.text
        assert (await sdk.http.put(url, content=source())).status_code == 200
        key = tmp_path / "keys" / "uploads"
        assert key.stat().st_mode & 0o777 == 0o600


async def test_an_interrupted_build_is_taken_up_by_the_next_process(tmp_path: Path) -> None:
    async with serving(tmp_path, build_delay=30) as (_, sdk):
        where = await sdk.upload(source())
        operation = await sdk.functions.create_function(parent=PARENT, function=function(where), function_id="greet")
        assert not operation.operation.done
        assert (await sdk.functions.get_function(name=NAME)).state == State.DEPLOYING
        with pytest.raises(exceptions.Aborted, match="unable to queue the operation"):
            await sdk.functions.delete_function(name=NAME)
    async with serving(tmp_path) as (_, sdk):
        assert (await sdk.sdk.wait(operation.operation.name, 10)).done
        assert (await sdk.functions.get_function(name=NAME)).state == State.ACTIVE


async def test_faults_delay_and_fail_operations(tmp_path: Path) -> None:
    async with serving(tmp_path) as (_, sdk):
        where = await sdk.upload(source())
        await sdk.http.put("/_local/faults", json={"Functions.CreateFunction": {"operation_error": "INTERNAL"}})
        failed = await sdk.functions.create_function(parent=PARENT, function=function(where), function_id="greet")
        assert failed.operation.error.code == 13
        with pytest.raises(exceptions.NotFound):
            await sdk.services.get_service(name=SERVICE)
        await sdk.http.put("/_local/faults", json={"Functions.DeleteFunction": {"operation_delay": 0.1}})
        deleting = await sdk.functions.delete_function(name=NAME)
        assert not deleting.operation.done
        assert (await sdk.sdk.wait(deleting.operation.name, 10)).done
        with pytest.raises(exceptions.NotFound):
            await sdk.functions.get_function(name=NAME)
