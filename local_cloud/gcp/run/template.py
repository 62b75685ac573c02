"""A job's template: checked, completed with the service's defaults, and turned into an execution and its tasks."""

from __future__ import annotations

import base64
import random
import secrets
import time
import uuid
from typing import Any
from urllib.parse import quote

from google.cloud import run_v2

from local_cloud.errors import invalid, unserved
from local_cloud.gcp.run import conditions, labels, resources, volumes
from local_cloud.gcp.run.records import ExecutionMessage, TaskMessage
from local_cloud.images import Images
from local_cloud.options import PROJECT_NUMBER

_ENVIRONMENT = run_v2.ExecutionEnvironment
_GEN1, _GEN2 = int(_ENVIRONMENT.EXECUTION_ENVIRONMENT_GEN1), int(_ENVIRONMENT.EXECUTION_ENVIRONMENT_GEN2)
_MAX_TIMEOUT = 168 * 3600
_MAX_TASKS = 10_000
_MAX_RETRIES = 10
_MAX_ARGUMENTS = 1000
_SUFFIX = "bcdfghjklmnpqrstvwxz2456789"
CREATOR = "local@localhost"


def new_etag() -> str:
    """A fingerprint of a version of a resource, quoted as the service does."""
    return f'"{base64.b64encode(secrets.token_bytes(12)).decode()}"'


def suffix() -> str:
    """Five characters that make an execution's name unique."""
    return "".join(random.choices(_SUFFIX, k=5))


def check(template: Any, images: Images, nfs_servers: tuple[str, ...]) -> None:
    """Refuses what the service refuses in an ExecutionTemplate, and by name what the local cloud lacks."""
    labels.check_labels(template.labels, "template.labels")
    labels.check_annotations(template.annotations, "template.annotations")
    if not 0 <= template.task_count <= _MAX_TASKS:
        invalid(f"template.task_count: must be between 1 and {_MAX_TASKS}, got {template.task_count}.")
    if not 0 <= template.parallelism <= _MAX_TASKS:
        invalid(f"template.parallelism: must be between 0 and {_MAX_TASKS}, got {template.parallelism}.")
    tasks = template.template
    if not 0 <= tasks.max_retries <= _MAX_RETRIES:
        invalid(f"template.template.max_retries: must be between 0 and {_MAX_RETRIES}, got {tasks.max_retries}.")
    _check_timeout(tasks, "template.template.timeout")
    if tasks.execution_environment == _GEN1:
        invalid(
            "template.template.execution_environment: Cloud Run jobs run in the second generation environment only."
        )
    if tasks.encryption_key or tasks.HasField("node_selector"):
        unserved("template.template.encryption_key and node_selector.")
    if not tasks.containers:
        invalid("template.template.containers: should not be empty.")
    if len(tasks.containers) > 1:
        unserved("jobs with several containers (sidecars); use one container.")
    _check_container(tasks.containers[0], images)
    volumes.check(tasks, nfs_servers)


def _check_timeout(holder: Any, path: str) -> None:
    if holder.HasField("timeout") and not 0 < holder.timeout.ToMilliseconds() <= _MAX_TIMEOUT * 1000:
        invalid(f"{path}: must be greater than 0 and at most {_MAX_TIMEOUT}s.")


def _check_container(container: Any, images: Images) -> None:
    path = "template.template.containers[0]"
    if not container.image:
        invalid(f"{path}.image: should not be empty.")
    images.check(container.image, path)
    labels.check_env(container.env, path)
    resources.check_limits(container.resources.limits, path)
    for field in ("command", "args"):
        values = getattr(container, field)
        if len(values) > _MAX_ARGUMENTS or any("\0" in value for value in values):
            invalid(f"{path}.{field}: at most {_MAX_ARGUMENTS} values without NUL.")
    if container.ports:
        invalid(f"{path}.ports: Cloud Run jobs do not listen on ports.")
    for field in ("liveness_probe", "startup_probe", "readiness_probe", "source_code", "build_info"):
        if container.HasField(field):
            unserved(f"{path}.{field}.")
    if container.depends_on or container.base_image_uri:
        unserved(f"{path}.depends_on and base_image_uri.")
    if container.working_dir and not container.working_dir.startswith("/"):
        invalid(f"{path}.working_dir: '{container.working_dir}' must be an absolute path.")


def complete(template: Any) -> None:
    """Writes the service's defaults into an ExecutionTemplate: one task, 3 retries, 10 minutes, 1 CPU, 512 MiB."""
    template.task_count = template.task_count or 1
    tasks = template.template
    if tasks.WhichOneof("retries") is None:
        tasks.max_retries = 3
    if not tasks.HasField("timeout"):
        tasks.timeout.seconds = 600
    tasks.execution_environment = _GEN2
    tasks.service_account = tasks.service_account or f"{PROJECT_NUMBER}-compute@developer.gserviceaccount.com"
    limits = tasks.containers[0].resources.limits
    for key, value in resources.defaults(dict(limits)).items():
        limits[key] = value


def override(execution: Any, overrides: Any) -> None:
    """Applies RunJobRequest.Overrides to an execution; raises ServiceError INVALID_ARGUMENT."""
    container = execution.template.containers[0]
    for change in overrides.container_overrides:
        if change.name and change.name != container.name:
            invalid(f"overrides.container_overrides: Container '{change.name}' does not exist in the job.")
        if change.clear_args and change.args:
            invalid("overrides.container_overrides: args and clear_args are mutually exclusive.")
        if change.args or change.clear_args:
            del container.args[:]
            container.args.extend(change.args)
        labels.check_env(change.env, "overrides.container_overrides[0]")
        for variable in change.env:
            known = next((old for old in container.env if old.name == variable.name), None)
            (known or container.env.add()).CopyFrom(variable)
    if not 0 <= overrides.task_count <= _MAX_TASKS:
        invalid(f"overrides.task_count: must be between 1 and {_MAX_TASKS}, got {overrides.task_count}.")
    execution.task_count = overrides.task_count or execution.task_count
    if overrides.HasField("timeout"):
        _check_timeout(overrides, "overrides.timeout")
        execution.template.timeout.CopyFrom(overrides.timeout)


def new_execution(job: Any, ending: str) -> Any:
    """An Execution message of a job, not yet started."""
    job_id = job.name.rpartition("/")[2]
    now = time.time_ns()
    execution = ExecutionMessage(
        name=f"{job.name}/executions/{job_id[:57].rstrip('-') if len(job_id) > 57 else job_id}-{ending}",
        uid=str(uuid.uuid4()),
        creator=CREATOR,
        generation=1,
        job=job.name,
        launch_stage=job.launch_stage,
        parallelism=job.template.parallelism,
        task_count=job.template.task_count,
        reconciling=True,
        etag=new_etag(),
    )
    execution.template.CopyFrom(job.template.template)
    for key, value in job.template.labels.items():
        execution.labels[key] = value
    for key, value in job.template.annotations.items():
        execution.annotations[key] = value
    execution.labels["run.googleapis.com/job"] = job_id
    execution.labels["run.googleapis.com/jobUid"] = job.uid
    execution.labels["run.googleapis.com/jobGeneration"] = str(job.generation)
    execution.create_time.FromNanoseconds(now)
    execution.update_time.FromNanoseconds(now)
    execution.log_uri = _log_uri(execution)
    conditions.put(execution, "Completed", conditions.RECONCILING)
    conditions.put(execution, "ResourcesAvailable", conditions.RECONCILING)
    conditions.put(execution, "Started", conditions.RECONCILING)
    return execution


def new_task(execution: Any, number: int) -> Any:
    """The Task message of one index of an execution."""
    name = execution.name.rpartition("/")[2]
    template = execution.template
    task = TaskMessage(
        name=f"{execution.name}/tasks/{name}-task{number}",
        uid=str(uuid.uuid4()),
        generation=1,
        job=execution.job.rpartition("/")[2],
        execution=name,
        containers=template.containers,
        volumes=template.volumes,
        max_retries=template.max_retries,
        service_account=template.service_account,
        execution_environment=template.execution_environment,
        reconciling=True,
        index=number,
        log_uri=execution.log_uri,
        etag=new_etag(),
    )
    task.timeout.CopyFrom(template.timeout)
    if template.HasField("vpc_access"):
        task.vpc_access.CopyFrom(template.vpc_access)
    for key, value in execution.labels.items():
        task.labels[key] = value
    task.labels["run.googleapis.com/execution"] = name
    task.labels["run.googleapis.com/executionUid"] = execution.uid
    task.labels["run.googleapis.com/taskIndex"] = str(number)
    for field in ("create_time", "update_time", "scheduled_time"):
        getattr(task, field).CopyFrom(execution.create_time)
    conditions.put(task, "Completed", conditions.RECONCILING)
    return task


def _log_uri(execution: Any) -> str:
    _, project, _, region, _, job, _, name = execution.name.split("/")
    query = (
        f'resource.type="cloud_run_job" resource.labels.job_name="{job}" resource.labels.location="{region}" '
        f'labels."run.googleapis.com/execution_name"="{name}"'
    )
    return f"https://console.cloud.google.com/logs/viewer?project={project}&advancedFilter={quote(query, safe='')}"
