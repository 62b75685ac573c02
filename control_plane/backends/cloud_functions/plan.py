"""One container, image and settings as a function and the service below it: pure, plain data.

A function is made from a stub; then the service that Cloud Functions made for it gets the container's image. Nothing of
the user's is in either (command, environment and secrets travel over the agent's link), so a function can serve one
container after another of the same tenant, image and shape.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from control_plane.backends import sizes
from control_plane.backends.agent_image import AGENT_PATH
from control_plane.backends.binds import platform_volumes
from control_plane.backends.cloud_functions.host_config import AGENT_PORT, TITLE
from control_plane.backends.cloud_functions.settings import CloudFunctionsSettings
from control_plane.backends.gcp import labels, resources
from control_plane.backends.gcp.volumes import run_volume
from control_plane.model import Container

RUNTIME = "python312"
ENTRY_POINT = "main"

AGENT_MODE = "SOCKERLESS_AGENT_MODE"
INVOKE_KEY = "SOCKERLESS_INVOKE_KEY"
CONTAINER_ID = "SOCKERLESS_CONTAINER_ID"
AGENT_TOKEN = "SOCKERLESS_AGENT_TOKEN"  # noqa: S105 (a name)
CALLBACK_URL = "SOCKERLESS_AGENT_CALLBACK_URL"

_ATTEMPT = "sockerless-attempt"
_ANONYMOUS = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Shape:
    """What is fixed when a function is deployed: the same for all containers that one function can serve."""

    tenant: str
    digest: str
    limits: resources.Limits
    template: Mapping[str, Any]
    """`run_v2.RevisionTemplate` as a mapping, its container without environment."""


@dataclass(frozen=True, slots=True)
class FunctionPlan:
    """A function's name and content."""

    name: str
    """Short; the service is called the same."""
    container: str
    """Empty: for whoever comes."""
    shape: Shape
    function: Mapping[str, Any]
    """`functions_v2.Function` as a mapping, without name and source."""
    env: Mapping[str, str]

    def template(self) -> dict[str, Any]:
        """`run_v2.RevisionTemplate` as a mapping, with the environment and without a name."""
        plain = dict(self.shape.template)
        env = [{"name": name, "value": value} for name, value in self.env.items()]
        plain["containers"] = [{**plain["containers"][0], "env": env}]
        plain["labels"] = dict(self.function["labels"])
        return plain

    def is_in(self, service: Any) -> bool:
        """Whether a service (`run_v2.Service`) has this plan's image and identity already.

        By whom it is for, not by its token: that may be another one of the same container's.
        """
        containers = service.template.containers
        if len(containers) != 1:
            return False
        wanted = self.shape.template["containers"][0]
        env = {variable.name: variable.value for variable in containers[0].env}
        same = (INVOKE_KEY, CONTAINER_ID)
        return (
            str(containers[0].image) == wanted["image"]
            and list(containers[0].command) == wanted["command"]
            and all(env.get(name) == self.env.get(name) for name in same)
        )


def function_name(identity: str) -> str:
    """Of a container's function (by its id), or of a spare one (by random digits)."""
    return f"skls-{identity[:12]}"


def invoke_key(key: bytes, name: str) -> str:
    """What an invocation shows to the agent in the function `name`: every control plane can compute it."""
    return hmac.new(key, f"invoke:{name}".encode(), hashlib.sha256).hexdigest()


def can_be_shared(container: Container) -> bool:
    """Whether its function can serve another container later: anonymous volumes are nobody else's."""
    return not any(mount.type == "volume" and _ANONYMOUS.fullmatch(mount.name) for mount in container.mounts)


def shape_of(container: Container, image: str, settings: CloudFunctionsSettings) -> Shape:
    """`image` is the reference, with digest, of the image that has the agent. Raises as `Backend.check`."""
    volumes, _ = platform_volumes(container, settings.rules, settings.volume_root)
    limits = resources.limits(sizes.asked(container.host_config, settings.default_resources), TITLE)
    template: dict[str, Any] = {
        "containers": [
            {
                "image": image,
                "command": [AGENT_PATH],
                "resources": {
                    "limits": limits.as_cloud(),
                    # The process runs on when the agent has answered an invocation: its CPU must not be taken away.
                    "cpu_idle": False,
                    "startup_cpu_boost": True,
                },
                "ports": [{"name": "http1", "container_port": AGENT_PORT}],
                "volume_mounts": [{"name": volume.name, "mount_path": volume.path} for volume in volumes],
            }
        ],
        "volumes": [run_volume(volume, settings.mount_options) for volume in volumes],
        "scaling": {"min_instance_count": 0, "max_instance_count": 1},
        "max_instance_request_concurrency": 1,
        "timeout": timedelta(seconds=settings.timeout),
        "execution_environment": "EXECUTION_ENVIRONMENT_GEN2",
    }
    if settings.service_account:
        template["service_account"] = settings.service_account
    if settings.connector:
        template["vpc_access"] = {"connector": settings.connector}
    digest = labels.fingerprint([template, container.tenant, settings.endpoint_name, settings.parent])
    return Shape(container.tenant, digest, limits, template)


def plan_of(
    shape: Shape,
    name: str,
    key: bytes,
    settings: CloudFunctionsSettings,
    container: str = "",
    env: Mapping[str, str] | None = None,
) -> FunctionPlan:
    """The function `name` of a shape; `env` is the container's own part of its environment."""
    size = shape.limits.as_cloud()
    service: dict[str, Any] = {
        "timeout_seconds": settings.timeout,
        "available_memory": size["memory"],
        "available_cpu": size["cpu"],
        "max_instance_count": 1,
        "max_instance_request_concurrency": 1,
        "all_traffic_on_latest_revision": True,
    }
    if settings.service_account:
        service["service_account_email"] = settings.service_account
    if settings.connector:
        service["vpc_connector"] = settings.connector
    function = {
        "environment": "GEN_2",
        "labels": labels.labels(settings.endpoint_name, shape.tenant, shape.digest, container),
        "build_config": {"runtime": RUNTIME, "entry_point": ENTRY_POINT},
        "service_config": service,
    }
    own = {AGENT_MODE: "function", INVOKE_KEY: invoke_key(key, name)}
    return FunctionPlan(name, container, shape, function, own | dict(env or {}))


def put_into(service: Any, plan: FunctionPlan) -> None:
    """Changes a service as it was read (`run_v2.Service`, with its etag) into the one that runs the container's image.

    The revision gets no name, so that the service gives it a new one; what was known of the stub's build goes: a
    service with a base image is patched by the platform, and its own image is not run.
    """
    kept = dict(service.template.labels)
    own = dict(plan.function["labels"])
    if plan.is_in(service):
        # It has failed: without any difference the service would make no new revision.
        own[_ATTEMPT] = secrets.token_hex(4)
    service.template = {**plan.template(), "labels": kept | own}
    service.labels.update(plan.function["labels"])
    service.build_config = None
    service.traffic = [{"type_": "TRAFFIC_TARGET_ALLOCATION_TYPE_LATEST", "percent": 100}]


def environment_names() -> dict[str, str]:
    """What a function's environment holds, for the documentation."""
    return {
        AGENT_MODE: "`function`: the agent waits for an invocation",
        INVOKE_KEY: "what an invocation must show: made from the endpoint's key and the function's name",
        CALLBACK_URL: "where the agent dials: the container's gateway, then others, with spaces between (only in a "
        "function that was made for a container; what the invocation brings counts)",
        CONTAINER_ID: "which container it was made for (likewise)",
        AGENT_TOKEN: "its token for the gateway (likewise)",
    }
