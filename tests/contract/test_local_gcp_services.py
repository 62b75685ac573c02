"""Cloud Run services of the local cloud, driven by the official async clients and called over HTTP."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from google.api_core import exceptions
from google.cloud import run_v2
from google.cloud.logging_v2.services.logging_service_v2 import LoggingServiceV2AsyncClient
from google.cloud.logging_v2.services.logging_service_v2.transports.grpc_asyncio import (
    LoggingServiceV2GrpcAsyncIOTransport,
)
from google.protobuf import field_mask_pb2

from local_cloud.quotas import Quotas
from tests.contract.local_gcp_fixtures import PARENT, ProcessRuntime, push
from tests.contract.local_gcp_services import ServiceSdk, service, serving

NAME = f"{PARENT}/services/web"
State = run_v2.Condition.State
_Mask: Any = getattr(field_mask_pb2, "FieldMask")  # noqa: B009 - the class is made at run time
ONE: dict[str, Any] = {"max_instance_request_concurrency": 1, "scaling": {"max_instance_count": 1}}


async def test_a_service_gets_the_defaults_and_its_first_revision(tmp_path: Path) -> None:
    async with serving(tmp_path) as (cloud, sdk):
        made = await sdk.create("web", service(await push(cloud.http_url)))
        assert made.name == NAME
        assert made.uri.startswith("https://web-")
        assert made.uri.endswith(".a.run.app")
        assert made.uri in made.urls
        template = made.template
        assert (template.timeout.total_seconds(), template.max_instance_request_concurrency) == (300, 80)
        assert dict(template.containers[0].resources.limits) == {"cpu": "1000m", "memory": "512Mi"}
        assert template.containers[0].ports[0].container_port == 8080
        assert made.generation == made.observed_generation == 1
        assert made.terminal_condition.state == State.CONDITION_SUCCEEDED
        assert made.latest_ready_revision == made.latest_created_revision
        assert made.traffic_statuses[0].percent == 100
        revision = await sdk.revisions.get_revision(name=made.latest_ready_revision)
        assert revision.service == "web"
        assert (await sdk.services.get_service(name=NAME)).etag == made.etag
        assert [found.name async for found in await sdk.services.list_services(parent=PARENT)] == [NAME]
        assert cloud.resources()["run.services"] == 1


async def test_a_request_starts_an_instance_and_the_next_uses_it(tmp_path: Path) -> None:
    runtime = ProcessRuntime()
    async with serving(tmp_path, runtime) as (cloud, sdk):
        made = await sdk.create("web", service(await push(cloud.http_url), told="this"))
        assert not runtime.specs
        first = await sdk.ask(made.uri, "/a/b?c=d")
        assert first.status_code == 200, first.text
        revision = made.latest_ready_revision.rpartition("/")[2]
        assert first.text.split("|")[:5] == ["web", revision, "web", "this", "/a/b?c=d"]
        assert first.text.rpartition("|")[2].endswith(".SIGNATURE_REMOVED_BY_GOOGLE")
        again = await sdk.ask(made.uri)
        assert again.text.split("|")[5] == first.text.split("|")[5]
        (spec,) = runtime.specs.values()
        assert spec.id.startswith("0-web-")
        assert (spec.memory_bytes, spec.cpus) == (512 << 20, 1.0)
        assert cloud.resources()["instances"] == 1
        assert cloud.calls.counts()["Services.Invoke"] == 2
    await runtime.end()


async def test_only_callers_with_a_token_for_it_get_in(tmp_path: Path) -> None:
    async with serving(tmp_path) as (cloud, sdk):
        made = await sdk.create("web", service(await push(cloud.http_url)))
        refused = await sdk.ask(made.uri, token=None)
        assert refused.status_code == 403
        assert "Your client does not have permission to get URL" in refused.text
        good = await sdk.identity(made.uri)
        head, claims, signature = good.split(".")
        for bad in ("nonsense", f"{head}.{claims}.{signature[:-4]}AAAA", await sdk.identity("https://other.a.run.app")):
            answer = await sdk.ask(made.uri, token=bad)
            assert answer.status_code == 401, answer.text
            assert "invalid_token" in answer.headers["www-authenticate"]
        assert (await sdk.ask(made.uri, token=await sdk.identity(f"{made.uri}/"))).status_code == 200
        assert (await sdk.ask("https://nobody-here.a.run.app", token=None)).status_code == 404
        made.invoker_iam_disabled = True
        await sdk.update(made)
        assert (await sdk.ask(made.uri, token=None)).status_code == 200


async def test_one_request_at_a_time_and_one_instance(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    async with serving(tmp_path / "data") as (cloud, sdk):
        made = await sdk.create("web", service(await push(cloud.http_url), gate, **ONE))
        held = asyncio.create_task(sdk.ask(made.uri, "/hold"))
        await sdk.sdk.until(lambda: cloud.calls.counts().get("Services.Invoke"))
        refused = await sdk.ask(made.uri)
        assert refused.status_code == 429
        assert "no available instance" in refused.text
        gate.touch()
        assert (await held).status_code == 200
        assert (await sdk.ask(made.uri)).status_code == 200


async def test_the_timeout_ends_the_request_and_not_the_instance(tmp_path: Path) -> None:
    runtime = ProcessRuntime()
    async with serving(tmp_path / "data", runtime) as (cloud, sdk):
        wanted = service(await push(cloud.http_url), tmp_path / "never", timeout={"seconds": 1}, **ONE)
        made = await sdk.create("web", wanted)
        late = await sdk.ask(made.uri, "/hold")
        assert (late.status_code, late.text) == (504, "upstream request timeout")
        assert (await sdk.ask(made.uri)).status_code == 200
        assert len(runtime.specs) == 1
    await runtime.end()


async def test_an_instance_that_ends_or_does_not_listen_is_told(tmp_path: Path) -> None:
    async with serving(tmp_path) as (cloud, sdk):
        image = await push(cloud.http_url)
        made = await sdk.create("web", service(image))
        assert (await sdk.ask(made.uri, "/exit")).status_code == 503
        assert (await sdk.ask(made.uri)).status_code == 200
        silent = await sdk.create("silent", service(image, script="import sys; sys.exit(1)"))
        answer = await sdk.ask(silent.uri)
        assert answer.status_code == 503
        assert "failed to start and listen on the port" in answer.text
        await sdk.sdk.until(lambda: cloud.resources()["run.instances"] == 1)


async def test_an_idle_instance_is_stopped(tmp_path: Path) -> None:
    runtime = ProcessRuntime()
    async with serving(tmp_path, runtime, idle_instance_seconds=0.05) as (cloud, sdk):
        made = await sdk.create("web", service(await push(cloud.http_url)))
        assert (await sdk.ask(made.uri)).status_code == 200
        await sdk.sdk.until(lambda: cloud.resources()["run.instances"] == 0)
        assert runtime.removed
        assert (await sdk.ask(made.uri)).status_code == 200
    await runtime.end()


async def test_a_replaced_revision_ends_with_its_last_request(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    runtime = ProcessRuntime()
    async with serving(tmp_path / "data", runtime) as (cloud, sdk):
        made = await sdk.create("web", service(await push(cloud.http_url), gate, told="old", **ONE))
        held = asyncio.create_task(sdk.ask(made.uri, "/hold"))
        await sdk.sdk.until(lambda: runtime.specs)
        made.template.containers[0].env[1].value = "new"
        changed = await sdk.update(made)
        assert changed.generation == 2
        assert changed.latest_ready_revision != made.latest_ready_revision
        assert (await sdk.ask(made.uri)).text.split("|")[3] == "new"
        gate.touch()
        assert (await held).text.split("|")[3] == "old"
        await sdk.sdk.until(lambda: runtime.removed)
        assert cloud.resources()["run.instances"] == 1
        names = [found.name async for found in await sdk.revisions.list_revisions(parent=NAME)]
        assert names == [changed.latest_ready_revision, made.latest_ready_revision]
        await (await sdk.revisions.delete_revision(name=made.latest_ready_revision)).result()
        with pytest.raises(exceptions.FailedPrecondition):
            await sdk.revisions.delete_revision(name=changed.latest_ready_revision)
    await runtime.end()


async def test_deleting_a_service_stops_its_instances_at_once(tmp_path: Path) -> None:
    runtime = ProcessRuntime()
    async with serving(tmp_path / "data", runtime) as (cloud, sdk):
        made = await sdk.create("web", service(await push(cloud.http_url), tmp_path / "never"))
        held = asyncio.create_task(sdk.ask(made.uri, "/hold"))
        await sdk.sdk.until(lambda: cloud.resources()["instances"])
        gone = await (await sdk.services.delete_service(name=NAME)).result()
        assert gone.delete_time
        assert (await held).status_code == 503
        with pytest.raises(exceptions.NotFound, match="'web' of kind 'SERVICE' in region 'us-central1'"):
            await sdk.services.get_service(name=NAME)
        assert (await sdk.ask(made.uri, token=None)).status_code == 404
        await sdk.sdk.until(lambda: not cloud.resources()["run.instances"])
    await runtime.end()


async def test_a_restarted_local_cloud_goes_on_with_its_instances(tmp_path: Path) -> None:
    runtime = ProcessRuntime()
    async with serving(tmp_path, runtime) as (cloud, sdk):
        made = await sdk.create("web", service(await push(cloud.http_url)))
        before = (await sdk.ask(made.uri)).text.split("|")[5]
        token = await sdk.identity(made.uri)
    async with serving(tmp_path, runtime) as (cloud, sdk):
        assert (await sdk.ask(made.uri, token=token)).text.split("|")[5] == before
        assert cloud.resources()["run.instances"] == 1
    await runtime.remove(next(iter(runtime.specs)))
    async with serving(tmp_path, runtime) as (cloud, sdk):
        assert cloud.resources()["run.instances"] == 0
        assert (await sdk.ask(made.uri)).text.split("|")[5] != before
    await runtime.end()


async def test_output_goes_into_the_revisions_log(tmp_path: Path) -> None:
    async with serving(tmp_path) as (cloud, sdk):
        image = await push(cloud.http_url)
        made = await sdk.create("web", service(image))
        other = await sdk.create("other", service(image))
        for uri in (made.uri, other.uri):
            assert (await sdk.ask(uri, "/x")).status_code == 200
        client = LoggingServiceV2AsyncClient(transport=LoggingServiceV2GrpcAsyncIOTransport(channel=sdk.sdk.channel))
        wanted = 'resource.type="cloud_run_revision" resource.labels.service_name="web"'
        pager = await client.list_log_entries(resource_names=["projects/local"], filter=wanted)
        (entry,) = [entry async for entry in pager]
        assert entry.text_payload == "asked for /x"
        assert entry.log_name == "projects/local/logs/run.googleapis.com%2Fstdout"
        assert dict(entry.resource.labels) == {
            "service_name": "web",
            "revision_name": made.latest_ready_revision.rpartition("/")[2],
            "configuration_name": "web",
            "location": "us-central1",
            "project_id": "local",
        }


async def test_a_revision_named_once_is_not_named_again(tmp_path: Path) -> None:
    async with serving(tmp_path) as (cloud, sdk):
        wanted = service(await push(cloud.http_url))
        wanted.template.revision = "web-one"
        made = await sdk.create("web", wanted)
        assert made.latest_ready_revision.endswith("/web-one")
        made.template.containers[0].env[1].value = "new"
        with pytest.raises(exceptions.AlreadyExists, match="'web-one' with different configuration already exists"):
            await sdk.services.update_service(service=made)
        made.template.revision = "other-two"
        with pytest.raises(exceptions.InvalidArgument, match=r"template\.revision"):
            await sdk.services.update_service(service=made)
        made.template.revision = ""
        assert not (await sdk.update(made)).latest_ready_revision.endswith("/web-one")


async def test_update_obeys_etag_mask_and_validate_only(tmp_path: Path) -> None:
    async with serving(tmp_path) as (cloud, sdk):
        image = await push(cloud.http_url)
        made = await sdk.create("web", service(image))
        changed = run_v2.Service(name=NAME, description="new", template=service("example.org/x").template)
        mask = _Mask(paths=["description"])
        after = await (await sdk.services.update_service(service=changed, update_mask=mask)).result()
        assert (after.description, after.template.containers[0].image) == ("new", image)
        assert after.latest_ready_revision == made.latest_ready_revision
        with pytest.raises(exceptions.Aborted, match="etag"):
            await sdk.services.update_service(service=made)
        dry = run_v2.UpdateServiceRequest(service=after, validate_only=True)
        await sdk.services.update_service(dry)
        assert (await sdk.services.get_service(name=NAME)).generation == 2
        with pytest.raises(exceptions.NotFound):
            await sdk.services.update_service(service=run_v2.Service(name=f"{NAME}x", template=made.template))


async def test_a_missing_image_fails_the_operation_and_leaves_the_old_revision(tmp_path: Path) -> None:
    async with serving(tmp_path) as (cloud, sdk):
        made = await sdk.create("web", service(await push(cloud.http_url)))
        made.template.containers[0].image += "missing"
        operation = await sdk.services.update_service(service=made)
        with pytest.raises(exceptions.GoogleAPICallError, match="not found"):
            await operation.result()
        found = await sdk.services.get_service(name=NAME)
        assert found.terminal_condition.state == State.CONDITION_FAILED
        assert "is not ready and cannot serve traffic" in found.terminal_condition.message
        assert found.latest_ready_revision == made.latest_ready_revision
        assert (await sdk.ask(made.uri)).status_code == 200


async def update_often(sdk: ServiceSdk, image: str) -> None:
    for _ in range(20):
        await sdk.services.update_service(service=run_v2.Service(name=NAME, template=service(image).template))


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"env": [{"name": "PORT", "value": "1"}]}, "reserved env names were provided: PORT"),
    ({"env": [{"name": "K_SERVICE", "value": "1"}]}, "reserved env names were provided: K_SERVICE"),
    ({"resources": {"limits": {"cpu": "3"}}}, "Invalid value specified for cpu"),
    (
        {"resources": {"limits": {"cpu": "500m"}, "cpu_idle": True}, "max_instance_request_concurrency": 2},
        "Total cpu < 1 is not supported with concurrency > 1.",
    ),
    ({"resources": {"limits": {"cpu": "500m"}}, **ONE}, "cpu always allocated"),
    ({"resources": {"limits": {"cpu": "500m", "memory": "2Gi"}, "cpu_idle": True}}, "memory must be between"),
    ({"resources": {"limits": {"memory": "256Mi"}}}, "Total memory < 512 Mi is not supported"),
    ({"timeout": {"seconds": 3601}}, "template.timeout"),
    ({"max_instance_request_concurrency": 1001}, "max_instance_request_concurrency"),
    ({"ports": [{"container_port": 70000}]}, "container_port"),
    ({"ports": [{"container_port": 1}, {"container_port": 2}]}, "at most one port"),
    ({"volume_mounts": [{"name": "no", "mount_path": "/x"}]}, "volume 'no' is not defined"),
    ({"volumes": [{"name": "v", "gcs": {"bucket": "../etc"}}]}, "Invalid bucket name"),
]


@pytest.mark.parametrize(("template", "text"), REFUSED)
async def test_refuses_what_the_service_refuses(tmp_path: Path, template: dict[str, Any], text: str) -> None:
    async with serving(tmp_path) as (cloud, sdk):
        wanted = service(f"{cloud.http_url.removeprefix('http://')}/local/apps/tool", **template)
        with pytest.raises(exceptions.InvalidArgument) as refusal:
            await sdk.create("web", wanted)
        assert text in refusal.value.message


async def test_refuses_names_quotas_and_what_it_does_not_serve(tmp_path: Path) -> None:
    quotas = Quotas(services=1, run_writes_per_minute=20)
    async with serving(tmp_path, quotas=quotas) as (cloud, sdk):
        image = await push(cloud.http_url)
        for service_id in ("", "Web", "1web", "web-", "a" * 50, "web_x"):
            with pytest.raises(exceptions.InvalidArgument, match="service_id"):
                await sdk.create(service_id, service(image))
        with pytest.raises(exceptions.MethodNotImplemented, match="min_instance_count"):
            await sdk.create("web", service(image, scaling={"min_instance_count": 1}))
        halved = service(image)
        halved.traffic = [run_v2.TrafficTarget(type_=1, percent=50)]
        with pytest.raises(exceptions.InvalidArgument, match="sum of traffic"):
            await sdk.create("web", halved)
        await sdk.create("web", service(image))
        with pytest.raises(exceptions.ResourceExhausted, match="services per region"):
            await sdk.create("more", service(image))
        with pytest.raises(exceptions.ResourceExhausted, match="write requests"):
            await update_often(sdk, image)


async def test_faults_delay_and_fail_operations(tmp_path: Path) -> None:
    async with serving(tmp_path) as (cloud, sdk):
        image = await push(cloud.http_url)

        async def faults(value: dict[str, Any]) -> None:
            assert (await sdk.http.put("/_local/faults", json=value)).status_code == 204

        await faults({"Services.CreateService": {"operation_delay": 0.1}})
        operation = await sdk.services.create_service(parent=PARENT, service=service(image), service_id="web")
        assert not operation.operation.done
        assert (await sdk.sdk.wait(operation.operation.name, 10)).done
        await faults({"Services.DeleteService": {"operation_error": "INTERNAL"}})
        failed = await sdk.services.delete_service(name=NAME)
        assert failed.operation.error.code == 13
        made = await sdk.services.get_service(name=NAME)
        await faults({"Services.Invoke": {"status": "UNAVAILABLE"}})
        assert (await sdk.ask(made.uri)).status_code == 503
        await faults({})
        assert (await sdk.ask(made.uri)).status_code == 200
