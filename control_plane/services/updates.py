"""`docker update`: limits and restart policy of a container that exists."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from control_plane.backends.base import Backend
from control_plane.errors import Conflict, DockerError, InvalidParameter, NotServed
from control_plane.model import Container
from control_plane.services.admission import Admission, NoBounds
from control_plane.services.container_events import ContainerEvents
from control_plane.services.containers import Containers
from control_plane.services.creation_validation import check_resources, check_restart_policy

Json = dict[str, Any]

_LIMIT_NAMES = (
    "BlkioWeight CpuShares NanoCpus CpuPeriod CpuQuota CpusetCpus CpusetMems Memory MemorySwap MemoryReservation"
)
_LIMITS = _LIMIT_NAMES.split()
_ALIVE = ("starting", "running", "paused", "restarting")


class Updates:
    """Changes records; a cloud run under way keeps the size it was started with."""

    def __init__(
        self,
        containers: Containers,
        events: ContainerEvents,
        backends: Mapping[str, Backend],
        admission: Admission | None = None,
    ) -> None:
        self._containers = containers
        self._events = events
        self._backends = backends
        self._admission = admission or NoBounds()

    async def update(self, tenant: str, reference: str, body: Json) -> list[str]:
        """`body` is Docker's UpdateConfig with every field present; zero means "leave as it is". Gives warnings.

        Raises InvalidParameter, NotFound, Conflict, NotServed, Forbidden.
        """
        policy = body["RestartPolicy"] or {"Name": "", "MaximumRetryCount": 0}
        check_resources(body, update=True)
        check_restart_policy(policy)
        container = await self._containers.resolve(tenant, reference)
        limits = {name: body[name] for name in _LIMITS if body[name]}
        if limits:
            # As it would be afterwards: a quota and a period may come one after the other.
            await self._admission.check_size(tenant, {**container.host_config, **limits})
        if body["PidsLimit"] is not None:
            limits["PidsLimit"] = body["PidsLimit"] if body["PidsLimit"] > 0 else None
        warnings: list[str] = []

        def change(current: Container) -> Container:
            updated = _changed(current, limits, policy)
            warnings[:] = self._backends[current.backend].check(updated) if limits else []
            return updated

        updated = await self._containers.update(container, change)
        await self._events.publish(updated, "update")
        return warnings


def _changed(current: Container, limits: Json, policy: Json) -> Container:
    host = current.host_config
    try:
        if current.state.status in ("removing", "dead"):
            raise Conflict('container is marked for removal and cannot be "update"')
        changed = {name: value for name, value in limits.items() if host.get(name) != value}
        if changed and current.state.status in _ALIVE:
            raise NotServed(
                f"{', '.join(sorted(changed))}: the platform does not resize a running container; "
                "stop it, update it, and start it again"
            )
        _check_conflicts(host, limits)
        if policy["Name"]:
            if host["AutoRemove"] and policy["Name"] != "no":
                raise InvalidParameter(
                    "Restart policy cannot be updated because AutoRemove is enabled for the container"
                )
            changed["RestartPolicy"] = policy
    except DockerError as error:
        raise type(error)(f"Cannot update container {current.id}: {error.message}") from None
    return current.model_copy(update={"host_config": {**host, **changed}})


def _check_conflicts(host: Json, limits: Json) -> None:
    for given, kept, text in (
        ("NanoCpus", "CpuPeriod", "Nano CPUs cannot be updated as CPU Period has already been set"),
        ("NanoCpus", "CpuQuota", "Nano CPUs cannot be updated as CPU Quota has already been set"),
        ("CpuPeriod", "NanoCpus", "CPU Period cannot be updated as NanoCPUs has already been set"),
        ("CpuQuota", "NanoCpus", "CPU Quota cannot be updated as NanoCPUs has already been set"),
    ):
        if limits.get(given, 0) > 0 and host.get(kept, 0) > 0:
            raise InvalidParameter(f"Conflicting options: {text}")
    if limits.get("Memory", 0) > host.get("MemorySwap", 0) and not limits.get("MemorySwap"):
        raise InvalidParameter(
            "Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same time"
        )
