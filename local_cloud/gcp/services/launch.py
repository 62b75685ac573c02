"""From a revision to a container that can be started, and what is left of one that has ended."""

from __future__ import annotations

from pathlib import Path

from local_cloud.gcp.logging.model import Logs
from local_cloud.gcp.run.attempts import DEFAULT_PATH, argv_of
from local_cloud.gcp.run.volumes import Volumes
from local_cloud.gcp.services import template
from local_cloud.gcp.services.records import RevisionRecord
from local_cloud.images import Images
from local_cloud.instances import InstanceSpec
from local_cloud.runtime.api import MountSpec


class Launch:
    """Makes the specs of instances; their output goes into Cloud Logging."""

    def __init__(self, images: Images, volumes: Volumes, logs: Logs, directory: Path) -> None:
        self._images = images
        self._volumes = volumes
        self._logs = logs
        self._directory = directory

    async def spec(self, id: str, record: RevisionRecord) -> InstanceSpec:
        """What a new instance of a revision is started with, its log being followed.

        Raises ServiceError for its image, VolumeMissingError for its volumes.
        """
        revision = record.revision
        container = revision.containers[0]
        image = await self._images.load(container.image, record.repository, record.digest)
        binds = self._volumes.binds(revision, id)
        cpus, memory = template.limits(revision)
        env = {"PATH": DEFAULT_PATH}
        for entry in image.env:
            name, _, value = entry.partition("=")
            env[name] = value
        env.update((variable.name, variable.value) for variable in container.env)
        env.pop("PORT", None)
        env["K_SERVICE"] = env["K_CONFIGURATION"] = revision.service
        env["K_REVISION"] = revision.name.rpartition("/")[2]
        stdout, stderr = self._output(id)
        self._logs.follow(f"{revision.name}/instances/{id}", 0, stdout, stderr)
        return InstanceSpec(
            id=id,
            image=image,
            argv=argv_of(container, image),
            env=env,
            workdir=container.working_dir or image.workdir,
            user=image.user,
            mounts=tuple(MountSpec(source=bind.source, target=bind.target, read_only=bind.read_only) for bind in binds),
            memory_bytes=memory,
            cpus=cpus,
            stdout=stdout,
            stderr=stderr,
            port=template.port_of(container),
        )

    def _output(self, id: str) -> tuple[Path, Path]:
        directory = self._directory / id
        return directory / "stdout", directory / "stderr"

    async def clear(self, id: str) -> None:
        """Takes in the rest of an ended instance's output and frees its volumes."""
        output = self._output(id)
        await self._logs.drain(output)
        self._logs.close(output)
        self._volumes.clear(id)
