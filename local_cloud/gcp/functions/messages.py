"""Function messages: completed with what the service says about a function, and turned into its Cloud Run service."""

from __future__ import annotations

import time
from typing import Any

from google.cloud import functions_v2, run_v2

from local_cloud.gcp.functions import built, checks
from local_cloud.gcp.services import names
from local_cloud.gcp.services.records import ServiceMessage
from local_cloud.options import PROJECT_NUMBER

FunctionMessage: Any = functions_v2.Function.pb()
MetadataMessage: Any = functions_v2.OperationMetadata.pb()
_State, _Stage = functions_v2.Function.State, functions_v2.Stage
ACTIVE, FAILED = int(_State.ACTIVE), int(_State.FAILED)
DEPLOYING, DELETING = int(_State.DEPLOYING), int(_State.DELETING)
_ERROR = int(functions_v2.StateMessage.Severity.ERROR)
_GEN_2 = int(functions_v2.Environment.GEN_2)
_SECURE = int(functions_v2.ServiceConfig.SecurityLevel.SECURE_ALWAYS)
_ARTIFACT_REGISTRY = int(functions_v2.BuildConfig.DockerRegistry.ARTIFACT_REGISTRY)
_Ingress, _Traffic = functions_v2.ServiceConfig.IngressSettings, run_v2.IngressTraffic
_INGRESS = {
    int(_Ingress.ALLOW_INTERNAL_ONLY): int(_Traffic.INGRESS_TRAFFIC_INTERNAL_ONLY),
    int(_Ingress.ALLOW_INTERNAL_AND_GCLB): int(_Traffic.INGRESS_TRAFFIC_INTERNAL_LOAD_BALANCER),
}
_TYPES = {
    "create": int(functions_v2.OperationType.CREATE_FUNCTION),
    "update": int(functions_v2.OperationType.UPDATE_FUNCTION),
    "delete": int(functions_v2.OperationType.DELETE_FUNCTION),
}
_STAGES = tuple(int(name) for name in (_Stage.Name.ARTIFACT_REGISTRY, _Stage.Name.BUILD, _Stage.Name.SERVICE))
_IN_PROGRESS, _COMPLETE = int(_Stage.State.IN_PROGRESS), int(_Stage.State.COMPLETE)


def complete(function: Any, generation: int) -> None:
    """Writes the service's defaults and output fields into a Function that is about to be deployed."""
    _, project, _, region, _, function_id = function.name.split("/")
    now = time.time_ns()
    if not function.HasField("create_time"):
        function.create_time.FromNanoseconds(now)
    function.update_time.FromNanoseconds(now)
    function.environment, function.state = _GEN_2, DEPLOYING
    del function.state_messages[:]
    function.url = f"https://{region}-{project}.cloudfunctions.net/{function_id}"
    build, config = function.build_config, function.service_config
    build.entry_point = build.entry_point or function_id
    build.source.storage_source.generation = generation
    build.source_provenance.resolved_storage_source.CopyFrom(build.source.storage_source)
    build.docker_registry = _ARTIFACT_REGISTRY
    build.docker_repository = f"projects/{project}/locations/{region}/repositories/gcf-artifacts"
    build.service_account = (
        build.service_account
        or f"projects/{project}/serviceAccounts/{PROJECT_NUMBER}-compute@developer.gserviceaccount.com"
    )
    limits = checks.limits(config)
    config.available_cpu, config.available_memory = limits["cpu"], limits["memory"]
    config.timeout_seconds = config.timeout_seconds or 60
    config.max_instance_count = config.max_instance_count or 100
    config.max_instance_request_concurrency = config.max_instance_request_concurrency or 1
    config.ingress_settings = config.ingress_settings or int(_Ingress.ALLOW_ALL)
    config.security_level = _SECURE
    config.all_traffic_on_latest_revision = True
    config.service_account_email = (
        config.service_account_email or f"{PROJECT_NUMBER}-compute@developer.gserviceaccount.com"
    )
    config.service = f"projects/{project}/locations/{region}/services/{function_id}"
    config.uri = f"https://{names.host(config.service)}"


def service_of(function: Any, version: int, generation: int) -> Any:
    """The Cloud Run service that a built function becomes, its revision named as Functions names it."""
    _, project, _, region, _, function_id = function.name.split("/")
    config, build = function.service_config, function.build_config
    service = ServiceMessage(name=config.service)
    service.labels.update(function.labels)
    service.labels["goog-managed-by"] = "cloudfunctions"
    service.labels["goog-cloudfunctions-runtime"] = build.runtime
    service.annotations["cloudfunctions.googleapis.com/function-id"] = function_id
    service.ingress = _INGRESS.get(config.ingress_settings, int(_Traffic.INGRESS_TRAFFIC_ALL))
    template = service.template
    template.revision = names.new_revision_id(function_id, generation)
    template.timeout.seconds = config.timeout_seconds
    template.service_account = config.service_account_email
    template.max_instance_request_concurrency = config.max_instance_request_concurrency
    template.scaling.max_instance_count = config.max_instance_count
    container = template.containers.add(name="worker", image=built.image(project, region, function_id, version))
    container.resources.limits.update({"cpu": config.available_cpu, "memory": config.available_memory})
    container.resources.cpu_idle = container.resources.startup_cpu_boost = True
    env = dict(config.environment_variables)
    env |= {"FUNCTION_TARGET": build.entry_point, "LOG_EXECUTION_ID": env.get("LOG_EXECUTION_ID", "true")}
    for name, value in env.items():
        container.env.add(name=name, value=value)
    return service


def failed(function: Any, text: str) -> None:
    """A deployment has failed."""
    function.state = FAILED
    function.state_messages.add(severity=_ERROR, type_="CloudRunServiceNotFound", message=text)


def metadata(function: Any, verb: str, build: str, *, done: bool) -> Any:
    """The OperationMetadata of a create, update or delete."""
    found = MetadataMessage(
        target=function.name, verb=verb, api_version="v2", build_name=build, operation_type=_TYPES[verb]
    )
    found.create_time.CopyFrom(function.update_time)
    found.request_resource.Pack(function)
    if verb != "delete":
        for name in _STAGES:
            found.stages.add(name=name, state=_COMPLETE if done else _IN_PROGRESS)
    if done:
        found.end_time.FromNanoseconds(time.time_ns())
    return found
