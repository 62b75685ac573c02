"""`docker cp`: archive stat, get and put, through the agent; before the first start from the image and staged files."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any

from control_plane.errors import Conflict, DockerError, NotFound
from control_plane.model import Container
from control_plane.services.container_events import ContainerEvents
from control_plane.services.decompression import decompressed
from control_plane.services.ports import Agents, AgentUnreachable, Stream
from control_plane.services.records import Records
from control_plane.services.run_settings import RunSettings
from control_plane.services.runs import Resolver
from control_plane.services.staging import Staging
from control_plane.services.watching import reach


class Archives:
    """Bytes pass through unchanged in both directions; only compressed uploads are decompressed, as moby does."""

    def __init__(
        self,
        containers: Resolver,
        records: Records[Container],
        staging: Staging,
        agents: Agents,
        events: ContainerEvents,
        settings: RunSettings,
    ) -> None:
        self._resolve = containers.resolve
        self._records = records
        self._staging = staging
        self._agents = agents
        self._events = events
        self._settings = settings

    async def stat(self, tenant: str, reference: str, path: str) -> dict[str, Any]:
        """`HEAD …/archive`: Docker's PathStat. Raises NotFound, Conflict."""
        container = await self._settled(await self._resolve(tenant, reference))
        if _not_started(container):
            found = await self._staging.stat(container, path)
            if found is None:
                raise _missing(path, reference)
            return found
        _check_held(container)
        try:
            return await self._agents.call(container, "archive_stat", {"path": path})
        except DockerError as error:
            raise _translated(error, container, path, reference) from None

    async def get(self, tenant: str, reference: str, path: str) -> tuple[dict[str, Any], AsyncIterator[bytes]]:
        """`GET …/archive`: PathStat and the tar. Raises NotFound, Conflict."""
        container = await self._settled(await self._resolve(tenant, reference))
        if _not_started(container):
            return await self._staging.read(container, path)
        _check_held(container)
        stream = None
        try:
            stream = await self._agents.open(container, "archive_get", {"path": path})
            found = await stream.result()
        except DockerError as error:
            if stream is not None:
                await stream.close()
            raise _translated(error, container, path, reference) from None
        await self._events.publish(container, "archive-path")
        return found, _closing(stream)

    async def put(
        self, tenant: str, reference: str, path: str, params: Mapping[str, bool], body: AsyncIterator[bytes]
    ) -> None:
        """`PUT …/archive`: unpacks a tar (gzip, bzip2, xz, zstd too). Raises NotFound, InvalidParameter, Conflict."""
        container = await self._settled(await self._resolve(tenant, reference))
        tar = decompressed(body)
        if _not_started(container):
            if not await self._staging.put(container, path, params, tar):
                raise Conflict(f"container {container.id} was started while the archive was uploaded; copy again")
        else:
            _check_held(container)
            await self._push(container, path, reference, params, tar)
        await self._events.publish(container, "extract-to-dir")

    async def _push(
        self, container: Container, path: str, reference: str, params: Mapping[str, bool], tar: AsyncIterator[bytes]
    ) -> None:
        stream = None
        try:
            stream = await self._agents.open(container, "archive_put", {"path": path, **params})
            async for chunk in tar:
                await stream.send(chunk)
            await stream.send_eof()
            await stream.result()
        except DockerError as error:
            raise _translated(error, container, path, reference) from None
        finally:
            if stream is not None:
                await stream.close()

    async def _settled(self, container: Container) -> Container:
        """A container that is starting holds no file system yet: its start is waited for."""
        if container.state.status != "starting":
            return container
        timeout = self._settings.start_timeout
        try:
            found = await reach(self._records, container, lambda c: c.state.status != "starting", timeout)
        except TimeoutError:
            raise Conflict(f"container {container.id} is starting") from None
        if found is None:
            raise NotFound(f"No such container: {container.id}")
        return found


async def _closing(stream: Stream) -> AsyncIterator[bytes]:
    try:
        async for chunk in stream.chunks():
            yield chunk
    finally:
        await stream.close()


def _not_started(container: Container) -> bool:
    linked = container.agent is not None and container.agent.connected
    return container.state.status == "created" and not linked


def _check_held(container: Container) -> None:
    """Raises Conflict when nothing holds the container's file system (any more)."""
    if container.execution is not None and container.execution.agentless:
        raise Conflict(f"container {container.id} runs without an agent: files cannot be copied in or out")
    running = container.state.status in {"running", "paused"}
    if not running and (container.agent is None or not container.agent.connected):
        raise _released(container)


def _released(container: Container) -> Conflict:
    return Conflict(
        f"the file system of container {container.id} was released after its process ended and the linger time "
        "passed; copy files while it runs, or keep them in a volume"
    )


def _translated(error: DockerError, container: Container, path: str, reference: str) -> DockerError:
    """The agent's refusal in moby's words."""
    if isinstance(error, NotFound):
        return _missing(path, reference)
    if isinstance(error, AgentUnreachable) and container.state.status not in {"running", "paused"}:
        return _released(container)
    return error


def _missing(path: str, reference: str) -> NotFound:
    return NotFound(f"Could not find the file {path} in container {reference}")
