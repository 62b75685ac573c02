"""A service's revision template: checked, completed with the service's defaults, turned into a revision."""

from __future__ import annotations

import time
import uuid
from typing import Any
from urllib.parse import quote

from google.cloud import run_v2

from local_cloud.errors import invalid, unserved
from local_cloud.gcp.functions.built import is_built
from local_cloud.gcp.run import conditions, labels, volumes
from local_cloud.gcp.run.template import CREATOR, new_etag
from local_cloud.gcp.services import sizes
from local_cloud.gcp.services.records import RevisionMessage
from local_cloud.images import Images
from local_cloud.options import PROJECT_NUMBER

_GEN2 = int(run_v2.ExecutionEnvironment.EXECUTION_ENVIRONMENT_GEN2)
_MAX_TIMEOUT = 3600
_MAX_CONCURRENCY = 1000
_MAX_ARGUMENTS = 1000
_MAX_PROBE = 240
_DEFAULT_PORT = 8080
_PATH = "template.containers[0]"
_COPIED = ("scaling", "vpc_access", "timeout", "encryption_key_shutdown_duration")
_PLAIN = ("max_instance_request_concurrency", "service_account", "execution_environment", "session_affinity")


def check(template: Any, images: Images, nfs_servers: tuple[str, ...]) -> None:
    """Refuses what the service refuses in a RevisionTemplate, and by name what the local cloud lacks."""
    labels.check_labels(template.labels, "template.labels")
    labels.check_annotations(template.annotations, "template.annotations")
    if template.HasField("timeout") and not 0 < template.timeout.ToMilliseconds() <= _MAX_TIMEOUT * 1000:
        invalid(f"template.timeout: must be greater than 0 and at most {_MAX_TIMEOUT}s.")
    if not 0 <= template.max_instance_request_concurrency <= _MAX_CONCURRENCY:
        invalid(f"template.max_instance_request_concurrency: must be between 1 and {_MAX_CONCURRENCY}.")
    _check_scaling(template.scaling)
    if template.encryption_key or template.HasField("node_selector") or template.HasField("service_mesh"):
        unserved("template.encryption_key, node_selector and service_mesh.")
    if not template.containers:
        invalid("template.containers: should not be empty.")
    if len(template.containers) > 1:
        unserved("services with several containers (sidecars); use one container.")
    _check_container(template.containers[0], template, images)
    volumes.check(template, nfs_servers, "template")


def _check_scaling(scaling: Any) -> None:
    if scaling.min_instance_count < 0 or scaling.max_instance_count < 0:
        invalid("template.scaling: instance counts must not be negative.")
    if scaling.max_instance_count and scaling.min_instance_count > scaling.max_instance_count:
        invalid("template.scaling.min_instance_count: must not be greater than max_instance_count.")
    if scaling.min_instance_count:
        unserved("template.scaling.min_instance_count above 0: instances are started by requests.")


def _check_container(container: Any, template: Any, images: Images) -> None:
    if not container.image:
        invalid(f"{_PATH}.image: should not be empty.")
    if not is_built(container.image):
        images.check(container.image, _PATH)
    labels.check_env(container.env, _PATH, labels.SERVICE_ENV)
    limits(template)
    for field in ("command", "args"):
        values = getattr(container, field)
        if len(values) > _MAX_ARGUMENTS or any("\0" in value for value in values):
            invalid(f"{_PATH}.{field}: at most {_MAX_ARGUMENTS} values without NUL.")
    if len(container.ports) > 1:
        invalid(f"{_PATH}.ports: should contain at most one port.")
    for port in container.ports:
        if not 0 <= port.container_port <= 65535:
            invalid(f"{_PATH}.ports.container_port: must be between 1 and 65535, got {port.container_port}.")
        if port.name not in ("", "http1"):
            if port.name != "h2c":
                invalid(f"{_PATH}.ports.name: must be 'http1' or 'h2c', got '{port.name}'.")
            unserved(f"{_PATH}.ports.name 'h2c': requests are passed on as HTTP/1.")
    _check_probes(container)
    if container.depends_on or container.base_image_uri or container.HasField("source_code"):
        unserved(f"{_PATH}.depends_on, base_image_uri and source_code.")
    if container.working_dir and not container.working_dir.startswith("/"):
        invalid(f"{_PATH}.working_dir: '{container.working_dir}' must be an absolute path.")


def _check_probes(container: Any) -> None:
    for field in ("liveness_probe", "readiness_probe"):
        if container.HasField(field):
            unserved(f"{_PATH}.{field}.")
    if not container.HasField("startup_probe"):
        return
    probe = container.startup_probe
    if probe.WhichOneof("probe_type") not in (None, "tcp_socket"):
        unserved(f"{_PATH}.startup_probe: probes other than tcp_socket.")
    if probe.tcp_socket.port not in (0, port_of(container)):
        unserved(f"{_PATH}.startup_probe.tcp_socket.port: another port than the container's.")
    numbers = (probe.initial_delay_seconds, probe.timeout_seconds, probe.period_seconds)
    if min(*numbers, probe.failure_threshold) < 0 or max(numbers) > _MAX_PROBE:
        invalid(f"{_PATH}.startup_probe: delays, timeouts and periods must be between 0 and {_MAX_PROBE} seconds.")


def port_of(container: Any) -> int:
    """The port a container has to listen on."""
    return int(container.ports[0].container_port) or _DEFAULT_PORT if container.ports else _DEFAULT_PORT


def limits(template: Any) -> tuple[float, int]:
    """CPUs and bytes of a template's (or revision's) container; raises ServiceError INVALID_ARGUMENT."""
    resources = template.containers[0].resources
    given = template.containers[0].HasField("resources")
    return sizes.check_limits(
        resources.limits,
        "template.containers",
        concurrency=template.max_instance_request_concurrency,
        always_allocated=given and bool(resources.limits) and not resources.cpu_idle,
        second_generation=template.execution_environment == _GEN2,
    )


def startup_seconds(container: Any) -> float:
    """How long a container has to begin to listen."""
    if not container.HasField("startup_probe"):
        return float(_MAX_PROBE)
    probe = container.startup_probe
    return float(probe.initial_delay_seconds + (probe.period_seconds or 10) * (probe.failure_threshold or 3))


def complete(template: Any) -> None:
    """Writes the service's defaults into a RevisionTemplate: 1 CPU, 512 MiB, 300 s, 80 requests, port 8080."""
    container = template.containers[0]
    cpus, _ = limits(template)
    if not container.HasField("resources") or not container.resources.limits:
        container.resources.cpu_idle = True
        container.resources.startup_cpu_boost = True
    wanted = container.resources.limits
    wanted["cpu"], wanted["memory"] = wanted.get("cpu") or "1000m", wanted.get("memory") or "512Mi"
    if not template.HasField("timeout"):
        template.timeout.seconds = 300
    if not template.max_instance_request_concurrency:
        template.max_instance_request_concurrency = 80 if cpus >= 1 else 1
    if not template.scaling.max_instance_count:
        template.scaling.max_instance_count = 100
    template.service_account = template.service_account or f"{PROJECT_NUMBER}-compute@developer.gserviceaccount.com"
    if not container.ports:
        container.ports.add(name="http1")
    container.ports[0].name = container.ports[0].name or "http1"
    container.ports[0].container_port = port_of(container)
    if not container.HasField("startup_probe"):
        probe = container.startup_probe
        probe.timeout_seconds, probe.period_seconds, probe.failure_threshold = _MAX_PROBE, _MAX_PROBE, 1
        probe.tcp_socket.port = port_of(container)


def same(template: Any, other: Any) -> bool:
    """Whether two templates make the same revision, whatever its name."""
    first, second = type(template)(), type(template)()
    first.CopyFrom(template)
    second.CopyFrom(other)
    first.revision = second.revision = ""
    return bool(first == second)


def new_revision(service: Any, revision_id: str) -> Any:
    """The Revision message of a service's present template."""
    template = service.template
    revision = RevisionMessage(
        name=f"{service.name}/revisions/{revision_id}",
        uid=str(uuid.uuid4()),
        generation=1,
        service=service.name.rpartition("/")[2],
        launch_stage=service.launch_stage,
        containers=template.containers,
        volumes=template.volumes,
        creator=CREATOR,
        reconciling=True,
        etag=new_etag(),
    )
    for field in _COPIED:
        if template.HasField(field):
            getattr(revision, field).CopyFrom(getattr(template, field))
    for field in _PLAIN:
        setattr(revision, field, getattr(template, field))
    revision.labels.update(template.labels)
    revision.annotations.update(template.annotations)
    for field in ("create_time", "update_time"):
        getattr(revision, field).FromNanoseconds(time.time_ns())
    revision.log_uri = log_uri(revision)
    conditions.put(revision, "Ready", conditions.RECONCILING)
    return revision


def log_uri(revision: Any) -> str:
    """Where a revision's logs are shown."""
    _, project, _, region, _, service, _, name = revision.name.split("/")
    query = (
        f'resource.type="cloud_run_revision" resource.labels.service_name="{service}" '
        f'resource.labels.revision_name="{name}" resource.labels.location="{region}"'
    )
    return f"https://console.cloud.google.com/logs/viewer?project={project}&advancedFilter={quote(query, safe='')}"
