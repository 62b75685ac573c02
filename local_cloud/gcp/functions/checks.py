"""What Cloud Functions refuses in a function, before it builds anything.

Facts: the field comments of google.cloud.functions.v2.Function, functions/quotas, functions/docs/configuring/env-var
(reserved names).
"""

from __future__ import annotations

import re
from typing import Any

from local_cloud.errors import ServiceError, invalid, unserved
from local_cloud.gcp.functions.runtimes import RUNTIMES
from local_cloud.gcp.run import labels
from local_cloud.gcp.run import names as run_names
from local_cloud.gcp.services import sizes
from local_cloud.gcp.storage.model import Buckets

_ID = r"[a-z](?:[a-z0-9-]{0,61}[a-z0-9])?"
_FUNCTION_ID = re.compile(_ID)
_FUNCTION = re.compile(rf"(projects/[^/]+/locations/[^/]+)/functions/({_ID})")
_ENTRY_POINT = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,127}")
_RESERVED_ENV = labels.SERVICE_ENV | {"FUNCTION_TARGET", "FUNCTION_SIGNATURE_TYPE"}
_GEN_1 = 1
_MAX_TIMEOUT, _MAX_CONCURRENCY, _MAX_ENV_BYTES = 3600, 1000, 32 << 10
# Memory (MiB, at most) → CPUs: what is given when only the memory is named (functions/docs/configuring/memory).
_CPU_OF = ((128, "0.083"), (256, "0.1666"), (512, "0.3333"), (1024, "0.5833"), (2048, "1"), (8192, "2"), (16384, "4"))


def function_name(name: str, project: str) -> tuple[str, str]:
    """`…/functions/F` → (`projects/P/locations/R`, F); raises ServiceError INVALID_ARGUMENT."""
    match = _FUNCTION.fullmatch(name)
    if match is None:
        invalid(
            f"Invalid resource name '{name}': must be of the form "
            "projects/{project}/locations/{location}/functions/{function}."
        )
    run_names.location(match[1], project)
    return match[1], match[2]


def function_id(text: str) -> str:
    """A function id as the service accepts it."""
    if len(text) > 63 or not _FUNCTION_ID.fullmatch(text):
        invalid(
            f"Invalid function name '{text}': Function name must contain only lower case Latin letters, digits and a "
            "hyphen (-). It must start with letter, must not end with a hyphen, and must be at most 63 characters long."
        )
    return text


def check(function: Any) -> None:
    """Checks a whole Function message; raises ServiceError INVALID_ARGUMENT or UNIMPLEMENTED."""
    if function.environment == _GEN_1:
        unserved("1st gen functions; set environment to GEN_2.")
    if function.HasField("event_trigger") or function.kms_key_name:
        unserved("function.event_trigger and kms_key_name; functions are called by HTTP.")
    labels.check_labels(function.labels, "function.labels")
    for key in function.labels:
        if key.startswith("deployment"):
            invalid(f"function.labels: Invalid label key '{key}': keys that start with 'deployment' are reserved.")
    _check_build(function.build_config)
    _check_service(function.service_config)


def _check_build(build: Any) -> None:
    if not build.runtime:
        invalid("Invalid value for runtime: a runtime must be specified in function.build_config.runtime.")
    if build.runtime not in RUNTIMES:
        invalid(
            f"Invalid value for runtime: '{build.runtime}' is not a supported runtime of GEN_2 functions. "
            f"Supported runtimes: {', '.join(sorted(RUNTIMES))}."
        )
    if build.entry_point and not _ENTRY_POINT.fullmatch(build.entry_point):
        invalid(f"Invalid value for entry_point: '{build.entry_point[:80]}' is not a valid identifier.")
    source = build.source
    if source.WhichOneof("source") is None:
        invalid("Invalid value for source: function.build_config.source must be specified.")
    if not source.HasField("storage_source"):
        unserved("function.build_config.source: sources other than storage_source.")
    if source.storage_source.source_upload_url:
        unserved("function.build_config.source.storage_source.source_upload_url; name bucket and object.")
    if not source.storage_source.bucket or not source.storage_source.object_:
        invalid("Invalid value for source: storage_source must name a bucket and an object.")
    Buckets.check_bucket_name(source.storage_source.bucket)
    own = not build.docker_repository or build.docker_repository.endswith("/repositories/gcf-artifacts")
    if build.worker_pool or not own:
        unserved("function.build_config.worker_pool and docker_repository.")
    check_env(build.environment_variables, "build environment variables", frozenset())


def _check_service(config: Any) -> None:
    if not 0 <= config.timeout_seconds <= _MAX_TIMEOUT:
        invalid(
            f"Invalid value for timeout_seconds: must be between 1 and {_MAX_TIMEOUT}, got {config.timeout_seconds}."
        )
    if not 0 <= config.max_instance_request_concurrency <= _MAX_CONCURRENCY:
        invalid(f"Invalid value for max_instance_request_concurrency: must be between 1 and {_MAX_CONCURRENCY}.")
    if config.max_instance_count < 0 or config.min_instance_count < 0:
        invalid("Invalid value for max_instance_count or min_instance_count: must not be negative.")
    if config.min_instance_count:
        unserved("function.service_config.min_instance_count above 0: instances are started by requests.")
    if config.vpc_connector or config.secret_environment_variables or config.secret_volumes:
        unserved("function.service_config.vpc_connector, secret_environment_variables and secret_volumes.")
    if config.binary_authorization_policy:
        unserved("function.service_config.binary_authorization_policy.")
    check_env(config.environment_variables, "environment variables", _RESERVED_ENV)
    limits(config)


def check_env(env: Any, what: str, reserved: frozenset[str]) -> None:
    """Checks a map of environment variables."""
    for name, value in env.items():
        if name in reserved or name.startswith("X_GOOGLE_"):
            invalid(f"environment variable name {name} is reserved by the system: it cannot be set by users")
        if not name or "=" in name or "\0" in name or "\0" in value:
            invalid(f"Invalid {what}: the name '{name[:80]}' is malformed, or its value holds a NUL.")
    if sum(len(name.encode()) + len(value.encode()) for name, value in env.items()) > _MAX_ENV_BYTES:
        invalid(f"Invalid {what}: they are larger than {_MAX_ENV_BYTES} bytes.")


def limits(config: Any) -> dict[str, str]:
    """CPU and memory of the function's service; raises ServiceError INVALID_ARGUMENT."""
    memory = config.available_memory or "256M"
    size = sizes.amount(memory)
    if size is None or size <= 0 or memory.endswith("m"):
        invalid(f"Invalid value for available_memory: Could not parse '{memory}' as a quantity.")
    cpu = config.available_cpu or next((cpus for mib, cpus in _CPU_OF if size <= mib << 20), "8")
    found = {"cpu": cpu, "memory": memory}
    try:
        sizes.check_limits(
            found,
            "spec.template.spec.containers",
            concurrency=config.max_instance_request_concurrency,
            always_allocated=False,
            second_generation=False,
        )
    except ServiceError as error:
        raise ServiceError(error.code, f"Could not create or update Cloud Run service. {error.message}") from None
    return found
