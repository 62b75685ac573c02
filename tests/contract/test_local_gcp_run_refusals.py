"""What Cloud Run Admin v2 refuses, the local cloud refuses too: the same status, and its words where they are known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from google.api_core import exceptions
from google.cloud import run_v2

from local_cloud.quotas import Quotas
from tests.contract.local_gcp_fixtures import PARENT, job, local_cloud, push

REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"container": {"env": [{"name": "PORT", "value": "1"}]}}, "reserved env names were provided: PORT"),
    ({"container": {"env": [{"name": "A"}, {"name": "A"}]}}, "Duplicate environment variable"),
    ({"container": {"env": [{"name": "A=B"}]}}, "Invalid environment variable name"),
    ({"container": {"resources": {"limits": {"cpu": "3"}}}}, "Invalid value specified for cpu"),
    ({"container": {"resources": {"limits": {"cpu": "500m"}}}}, "Total cpu < 1 is not supported"),
    ({"container": {"resources": {"limits": {"memory": "256Mi"}}}}, "Total memory < 512 Mi is not supported"),
    ({"container": {"resources": {"limits": {"memory": "8Gi"}}}}, "must be between 512Mi and 4Gi inclusive"),
    (
        {"container": {"resources": {"limits": {"cpu": "8", "memory": "33Gi"}}}},
        "must be between 4Gi and 32Gi inclusive",
    ),
    ({"container": {"resources": {"limits": {"disk": "1Gi"}}}}, "Invalid resource"),
    ({"container": {"volume_mounts": [{"name": "no", "mount_path": "/x"}]}}, "volume 'no' is not defined"),
    ({"task": {"timeout": {"seconds": 168 * 3600 + 1}}}, "timeout"),
    ({"task": {"volumes": [{"name": "v", "gcs": {"bucket": "../etc"}}]}}, "Invalid bucket name"),
    (
        {"task": {"volumes": [{"name": "v", "nfs": {"server": "localhost", "path": "/a/../b"}}]}},
        "must be an absolute path",
    ),
    ({"retries": 11}, "max_retries"),
    ({"task_count": 10_001}, "task_count"),
]


@pytest.mark.parametrize(("wanted", "text"), REFUSED)
async def test_refuses_what_the_service_refuses(tmp_path: Path, wanted: dict[str, Any], text: str) -> None:
    async with local_cloud(tmp_path) as (cloud, sdk):
        image = f"{cloud.http_url.removeprefix('http://')}/local/apps/tool"
        with pytest.raises(exceptions.InvalidArgument) as refusal:
            await sdk.create("tool", job(image, "true", **wanted))
        assert text in refusal.value.message
        with pytest.raises(exceptions.NotFound):
            await sdk.jobs.get_job(name=f"{PARENT}/jobs/tool")


async def test_refuses_names_labels_and_foreign_images(tmp_path: Path) -> None:
    async with local_cloud(tmp_path) as (cloud, sdk):
        image = await push(cloud.http_url)
        named = job(image, "true")
        named.name = f"{PARENT}/jobs/tool"
        with pytest.raises(exceptions.InvalidArgument, match=r"job\.name"):
            await sdk.create("tool", named)
        for job_id in ("", "Tool", "1tool", "tool-", "a" * 64, "tool_x"):
            with pytest.raises(exceptions.InvalidArgument, match="job_id"):
                await sdk.create(job_id, job(image, "true"))
        for labels in (
            {"Key": "v"},
            {"key": "V"},
            {"run.googleapis.com/x": "y"},
            {"k": "v" * 64},
            {f"k{n}": "" for n in range(65)},
        ):
            labelled = job(image, "true")
            labelled.labels = labels
            with pytest.raises(exceptions.InvalidArgument, match="label"):
                await sdk.create("tool", labelled)
        with pytest.raises(exceptions.InvalidArgument, match="Expected an image path like"):
            await sdk.create("tool", job("example.org/x/y", "true"))
        await sdk.create("tool", job(image, "true"))
        with pytest.raises(exceptions.AlreadyExists):
            await sdk.create("tool", job(image, "true"))
        with pytest.raises(exceptions.PermissionDenied):
            await sdk.jobs.create_job(parent="projects/other/locations/us-central1", job=job(image, "true"), job_id="x")


async def test_refuses_by_name_what_it_does_not_serve(tmp_path: Path) -> None:
    async with local_cloud(tmp_path) as (cloud, sdk):
        image = await push(cloud.http_url)
        several = job(image, "true")
        several.template.template.containers.append(run_v2.Container(name="side", image=image))
        with pytest.raises(exceptions.MethodNotImplemented, match="several containers"):
            await sdk.create("tool", several)
        secret = job(image, "true", task={"volumes": [{"name": "v", "secret": {"secret": "s"}}]})
        with pytest.raises(exceptions.MethodNotImplemented, match="secret"):
            await sdk.create("tool", secret)


async def test_quotas_exhaust(tmp_path: Path) -> None:
    quotas = Quotas(jobs=2, running_executions=1, run_writes_per_minute=6)
    async with local_cloud(tmp_path, quotas=quotas) as (cloud, sdk):
        image = await push(cloud.http_url)
        await sdk.create("one", job(image, "sleep", "60"))
        await sdk.create("two", job(image, "true"))
        with pytest.raises(exceptions.ResourceExhausted, match="jobs"):
            await sdk.create("three", job(image, "true"))
        await sdk.run("one")
        with pytest.raises(exceptions.ResourceExhausted, match="running executions"):
            await sdk.run("two")
        with pytest.raises(exceptions.ResourceExhausted, match="running executions"):
            await sdk.run("two")
        with pytest.raises(exceptions.ResourceExhausted, match="write requests"):
            await sdk.run("two")
