"""Labels, annotations and environment variables: what Cloud Run takes.

Facts: the field comments of google.cloud.run.v2.Job (reserved namespaces), Google's label rules (63 characters, 64
labels), run/docs/configuring/jobs/environment-variables and run/docs/container-contract (reserved names).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from local_cloud.errors import invalid, unserved

_PREFIX = re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?")
_KEY = re.compile(r"[a-z][a-z0-9_-]{0,62}")
_VALUE = re.compile(r"[a-z0-9_-]{0,63}")
_RESERVED = ("run.googleapis.com", "cloud.googleapis.com", "serving.knative.dev", "autoscaling.knative.dev")
_ENV_NAME = re.compile(r"[^=\x00]{1,32768}")
SERVICE_ENV = frozenset({"PORT", "K_SERVICE", "K_REVISION", "K_CONFIGURATION"})
"""What services may not set."""
JOB_ENV = SERVICE_ENV | {
    f"CLOUD_RUN_{part}" for part in ("JOB", "EXECUTION", "TASK_INDEX", "TASK_ATTEMPT", "TASK_COUNT")
}
"""What jobs may not set."""
_MAX_LABELS = 64
_MAX_ENV = 1000
_MAX_ENV_VALUE = 32768
_MAX_ANNOTATIONS = 256 << 10


def _reserved(prefix: str) -> bool:
    return any(prefix == name or prefix.endswith(f".{name}") for name in _RESERVED)


def check_labels(labels: Mapping[str, str], path: str) -> None:
    """Raises ServiceError INVALID_ARGUMENT for labels the service refuses."""
    if len(labels) > _MAX_LABELS:
        invalid(f"{path}: a resource can have at most {_MAX_LABELS} labels, got {len(labels)}.")
    for key, value in labels.items():
        prefix, slash, name = key.rpartition("/")
        if slash and _reserved(prefix):
            invalid(f"{path}: The label '{key}' uses a reserved namespace: {', '.join(_RESERVED)} are not supported.")
        if not _KEY.fullmatch(name) or (slash and not _PREFIX.fullmatch(prefix)):
            invalid(
                f"{path}: Invalid label key '{key}'. Keys start with a lowercase letter, contain only lowercase "
                "letters, numeric "
                "characters, underscores and dashes, and are at most 63 characters long."
            )
        if not _VALUE.fullmatch(value):
            invalid(
                f"{path}: Invalid label value '{value[:80]}' of '{key}'. Values contain only lowercase letters, "
                "numeric characters, "
                "underscores and dashes, and are at most 63 characters long."
            )


def check_annotations(annotations: Mapping[str, str], path: str) -> None:
    """Raises ServiceError INVALID_ARGUMENT for annotations the service refuses."""
    if sum(len(key) + len(value) for key, value in annotations.items()) > _MAX_ANNOTATIONS:
        invalid(f"{path}: annotations are larger than {_MAX_ANNOTATIONS} bytes.")
    for key in annotations:
        if "/" in key and _reserved(key.rpartition("/")[0]):
            invalid(
                f"{path}: The annotation '{key}' uses a reserved namespace: {', '.join(_RESERVED)} are not supported."
            )


def check_env(env: Iterable[Any], path: str, taken: frozenset[str] = JOB_ENV) -> None:
    """Raises ServiceError for environment variables the service refuses (`env` are EnvVar messages)."""
    seen: set[str] = set()
    reserved: list[str] = []
    for variable in env:
        name = variable.name
        if not _ENV_NAME.fullmatch(name) or name.startswith("X_GOOGLE_"):
            invalid(f"{path}.env: Invalid environment variable name '{name[:80]}'.")
        if name in seen:
            invalid(f"{path}.env: Duplicate environment variable name '{name}'.")
        seen.add(name)
        if name in taken:
            reserved.append(name)
        if variable.HasField("value_source"):
            unserved(f"{path}.env '{name}' takes its value from Secret Manager.")
        if len(variable.value.encode()) > _MAX_ENV_VALUE or "\0" in variable.value:
            invalid(f"{path}.env: The value of '{name}' is longer than {_MAX_ENV_VALUE} bytes or holds a NUL.")
    if reserved:
        names = ", ".join(sorted(reserved))
        invalid(
            f"{path}.env: The following reserved env names were provided: {names}. "
            "These values are automatically set by the system."
        )
    if len(seen) > _MAX_ENV:
        invalid(f"{path}.env: at most {_MAX_ENV} environment variables per container, got {len(seen)}.")
