"""One container, image and settings as a Cloud Run job: pure, plain data in the shape of `run_v2.Job`.

With the agent, nothing of the user's is in the job (command, environment and secrets travel over the agent's link):
so all containers of one image and shape share a job, and starting the second costs one RunJob call.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from control_plane.backends import sizes
from control_plane.backends.agent_image import image_reference
from control_plane.backends.binds import PlatformVolume, place, platform_volumes
from control_plane.backends.cloud_run import without_agent
from control_plane.backends.cloud_run.injection import AGENT_VOLUME_PATH, Launch
from control_plane.backends.cloud_run.settings import CloudRunSettings
from control_plane.backends.gcp import labels, resources
from control_plane.backends.gcp.volumes import run_volume
from control_plane.errors import NotServed
from control_plane.model import Container, Image

CONTAINER_NAME = "main"
_ANONYMOUS = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class JobPlan:
    """A job's id and content."""

    job_id: str
    job: dict[str, Any]
    """`run_v2.Job` as a mapping; without a name, which CreateJob refuses."""
    shared: bool
    """Whether other containers may run in it; else it is removed with its container."""

    @property
    def template(self) -> str:
        """The fingerprint in its labels."""
        return str(self.job["labels"][labels.TEMPLATE])


def agent_job(container: Container, launch: Launch, settings: CloudRunSettings) -> JobPlan:
    """The job whose first process is the agent."""
    volumes, _ = platform_volumes(container, settings.rules, settings.volume_root)
    if launch.agent_volume is not None:
        volumes.append(PlatformVolume("agent", AGENT_VOLUME_PATH, launch.agent_volume, read_only=True))
    body = {"image": launch.image, "command": list(launch.command), "args": list(launch.args)}
    task = _task(container, body, volumes, settings)
    digest = labels.fingerprint([task, container.tenant, settings.endpoint_name, settings.parent])
    shared = not any(mount.type == "volume" and _ANONYMOUS.fullmatch(mount.name) for mount in container.mounts)
    job_id = labels.template_job(digest) if shared else labels.container_job(container.id, digest)
    return _plan(job_id, task, digest, container, settings, shared)


def plain_job(container: Container, image: Image, settings: CloudRunSettings) -> JobPlan:
    """The job that runs the user's own command without agent. Raises NotServed for what only the agent can do."""
    config = container.config
    refused = without_agent.refusals(container, image)
    if refused:
        raise NotServed(f"the command cannot run without agent: {'; '.join(refused)}")
    argv = [*(config.get("Entrypoint") or []), *(config.get("Cmd") or [])]
    body: dict[str, Any] = {
        "image": image_reference(image),
        "command": argv[:1],
        "args": argv[1:],
        "env": [{"name": name, "value": value} for name, value in _environment(config.get("Env") or []).items()],
    }
    if config.get("WorkingDir"):
        body["working_dir"] = str(config["WorkingDir"])
    volumes = [
        PlatformVolume(f"volume-{number}", mount.destination, location.below(subpath), mount.read_only)
        for number, (mount, location, subpath) in enumerate(place(container, settings.rules, settings.volume_root))
    ]
    task = _task(container, body, volumes, settings)
    for number, mount in enumerate(mount for mount in container.mounts if mount.type == "tmpfs"):
        name = f"memory-{number}"
        task["volumes"].append({"name": name, "empty_dir": {"medium": "MEMORY"}})
        task["containers"][0]["volume_mounts"].append({"name": name, "mount_path": mount.destination})
    digest = labels.fingerprint([task, container.tenant, settings.endpoint_name, settings.parent])
    return _plan(labels.container_job(container.id), task, digest, container, settings, shared=False)


def _plan(
    job_id: str, task: dict[str, Any], digest: str, container: Container, settings: CloudRunSettings, shared: bool
) -> JobPlan:
    own = labels.labels(settings.endpoint_name, container.tenant, digest, "" if shared else container.id)
    job = {"labels": own, "template": {"labels": dict(own), "task_count": 1, "template": task}}
    return JobPlan(job_id, job, shared)


def _task(
    container: Container, body: dict[str, Any], volumes: Iterable[PlatformVolume], settings: CloudRunSettings
) -> dict[str, Any]:
    limits = resources.limits(sizes.asked(container.host_config, settings.default_resources))
    volumes = list(volumes)
    task: dict[str, Any] = {
        "containers": [
            {
                "name": CONTAINER_NAME,
                **body,
                "resources": {"limits": limits.as_cloud()},
                "volume_mounts": [{"name": volume.name, "mount_path": volume.path} for volume in volumes],
            }
        ],
        "volumes": [_volume(volume, settings) for volume in volumes],
        # The default is 3: the platform would run the user's command again.
        "max_retries": 0,
        # The default is ten minutes.
        "timeout": timedelta(seconds=settings.timeout),
        "execution_environment": "EXECUTION_ENVIRONMENT_GEN2",
    }
    if settings.service_account:
        task["service_account"] = settings.service_account
    if settings.connector:
        task["vpc_access"] = {"connector": settings.connector}
    return task


def _volume(volume: PlatformVolume, settings: CloudRunSettings) -> dict[str, Any]:
    if volume.name == "agent":
        return run_volume(volume, ("implicit-dirs", "dir-mode=755", "file-mode=755"))
    return run_volume(volume, settings.mount_options)


def _environment(env: Iterable[str]) -> dict[str, str]:
    """`NAME=value` entries; the last of a name counts, one without `=` is Docker's "unset"."""
    found: dict[str, str] = {}
    for entry in env:
        name, equals, value = entry.partition("=")
        if equals:
            found[name] = value
        else:
            found.pop(name, None)
    return found
