"""`docker ps`: which containers, in which order; all of moby's filters."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from control_plane.errors import InvalidParameter, NotFound
from control_plane.model import ZERO_TIME, Container
from control_plane.services.containers import Containers
from control_plane.services.creation import ImageLookup as OneImage
from control_plane.services.creation_validation import valid_port
from control_plane.services.event_filters import matches_labels
from control_plane.services.patterns import found
from control_plane.timestamps import nanoseconds

_FILTERS = "ancestor before expose exited health id is-task isolation label name network publish since status volume"
ACCEPTED = _FILTERS.split()
_STATES = ("created", "running", "paused", "restarting", "removing", "exited", "dead")
_HEALTHS = ("none", "starting", "healthy", "unhealthy")
_RUNNING = ("running", "paused", "restarting")

Test = Callable[[Container], bool]
Filters = Mapping[str, Sequence[str]]
Shown = tuple[Container, str]
"""A container and the image text to show for it."""


@dataclass(frozen=True, slots=True)
class ListRequest:
    """Query of `GET /containers/json`."""

    all: bool = False
    limit: int = 0
    filters: Filters = field(default_factory=dict)


class ImageLookup(OneImage, Protocol):
    """`services.images.Images`, as far as it is needed here."""

    async def ids(self, tenant: str, texts: Collection[str]) -> dict[str, str]:
        """The ids of the images that these mean now, by text; what means none is left out."""
        ...


class Listing:
    """Lists containers without leaving the store."""

    def __init__(self, containers: Containers, images: ImageLookup) -> None:
        self._containers = containers
        self._images = images

    async def list(self, tenant: str, request: ListRequest) -> Sequence[Shown]:
        """Newest first, each with the image to show: its reference while that still means the same image, else the id.

        Raises InvalidParameter for a wrong filter, NotFound when `before` or `since` name nothing.
        """
        chosen: Sequence[Container] = [
            container
            for container in sorted(await self._containers.list(tenant), key=_created, reverse=True)
            if container.state.status != "dead" or request.all
        ]
        filters = request.filters
        if filters:
            chosen = await self._filter(tenant, chosen, filters)
        if not (request.all or request.limit > 0 or filters.get("status")):
            chosen = [container for container in chosen if container.state.status in _RUNNING]
        if request.limit > 0:
            chosen = chosen[: request.limit]
        return await self._with_images(tenant, chosen)

    async def _filter(self, tenant: str, chosen: Sequence[Container], filters: Filters) -> Sequence[Container]:
        for name in filters:
            if name not in ACCEPTED:
                raise InvalidParameter(f"invalid filter '{name}'")
        for reference in filters.get("before", ()):
            chosen = chosen[await self._position(tenant, chosen, reference) + 1 :]
        for reference in filters.get("since", ()):
            chosen = chosen[: await self._position(tenant, chosen, reference)]
        tests = [test for name, make in _TESTS.items() if filters.get(name) for test in (make(filters[name]),)]
        if filters.get("ancestor"):
            tests.append(await self._ancestor(tenant, filters["ancestor"]))
        if filters.get("expose") or filters.get("publish"):
            tests.append(_ports(filters))
        if "is-task" in filters:
            tests.append(_is_task(filters["is-task"]))
        return [container for container in chosen if all(test(container) for test in tests)]

    async def _position(self, tenant: str, chosen: Sequence[Container], reference: str) -> int:
        wanted = await self._containers.resolve(tenant, reference)
        return next((index for index, container in enumerate(chosen) if container.id == wanted.id), len(chosen))

    async def _ancestor(self, tenant: str, references: Sequence[str]) -> Test:
        ids = set()
        for reference in references:
            try:
                ids.add((await self._images.resolve(tenant, reference)).id)
            except (NotFound, InvalidParameter):
                continue
        return lambda container: container.image_id in ids

    async def _with_images(self, tenant: str, chosen: Sequence[Container]) -> Sequence[Shown]:
        current = await self._images.ids(tenant, list(dict.fromkeys(one.image for one in chosen)))
        return [
            (container, container.image if current.get(container.image) == container.image_id else container.image_id)
            for container in chosen
        ]


def _created(container: Container) -> int:
    return nanoseconds(container.created_at)


def _matches(patterns: Sequence[str], text: str) -> bool:
    """moby's Match: equal, or found as a regular expression."""
    return any(pattern == text or found(pattern, text) for pattern in patterns)


def _name(patterns: Sequence[str]) -> Test:
    return lambda container: _matches(patterns, f"/{container.name}") or _matches(patterns, container.name)


def _id(prefixes: Sequence[str]) -> Test:
    return lambda container: any(prefix and container.id.startswith(prefix) for prefix in prefixes)


def _exited(values: Sequence[str]) -> Test:
    codes = set()
    for value in values:
        try:
            codes.add(int(value))
        except ValueError:
            raise InvalidParameter(
                f"invalid filter 'exited={value}': strconv.Atoi: parsing \"{value}\": invalid syntax"
            ) from None
    return lambda container: (
        container.state.status not in (*_RUNNING, "starting")
        and container.state.started_at != ZERO_TIME
        and container.state.exit_code in codes
    )


def shown_state(container: Container) -> str:
    """The state word a client is shown."""
    state = container.state
    if state.status == "starting":
        return "created" if state.started_at == ZERO_TIME else "exited"
    return state.status


def _status(values: Sequence[str]) -> Test:
    for value in values:
        if value not in _STATES:
            raise InvalidParameter(
                f"invalid filter 'status={value}': invalid value for state ({value}): "
                f"must be one of {', '.join(_STATES)}"
            )
    return lambda container: shown_state(container) in values


def _health(values: Sequence[str]) -> Test:
    for value in values:
        if value not in _HEALTHS:
            raise InvalidParameter(
                f"invalid filter 'health={value}': invalid value for health ({value}): "
                f"must be one of {', '.join(_HEALTHS)}"
            )
    return lambda container: (container.state.health.status if container.state.health else "none") in values


def _label(values: Sequence[str]) -> Test:
    return lambda container: matches_labels(values, container.labels)


def _isolation(values: Sequence[str]) -> Test:
    return lambda container: any(value in ("", "default") for value in values)


def _volume(values: Sequence[str]) -> Test:
    return lambda container: any(
        value in (mount.destination, mount.name or mount.source) for mount in container.mounts for value in values
    )


def _network(values: Sequence[str]) -> Test:
    def test(container: Container) -> bool:
        for value in values:
            if value in container.networking:
                return True
            for endpoint in container.networking.values():
                network_id = (endpoint or {}).get("NetworkID") or ""
                if value and network_id.startswith(value):
                    return True
        return False

    return test


def _is_task(values: Sequence[str]) -> Test:
    false, true = {"0", "false"} & set(values), {"1", "true"} & set(values)
    if bool(false) == bool(true):
        shown = " ".join(values)
        raise InvalidParameter(f"invalid filter 'is-task=[{shown}]'")
    return lambda container: bool(false)


def _ports(filters: Filters) -> Test:
    exposed = _port_set("expose", filters.get("expose", ()))
    publish = _port_set("publish", filters.get("publish", ()))

    def test(container: Container) -> bool:
        if container.state.status not in _RUNNING:
            return False
        ports = container.config.get("ExposedPorts") or {}
        published = {} if container.published is None else container.published.ports
        if publish & {f"{entry['HostPort']}/tcp" for entries in published.values() for entry in entries}:
            return True
        return any((port if "/" in port else f"{port}/tcp").lower() in exposed for port in (*ports, *published))

    return test


def _port_set(name: str, values: Sequence[str]) -> set[str]:
    ports = set()
    for value in values:
        if ":" in value:
            raise InvalidParameter(f"filter for '{name}' should not contain ':': {value}")
        if not valid_port(value):
            raise InvalidParameter(f"error while looking up for {name} {value}: {_port_fault(value)}")
        numbers, _, protocol = value.lower().partition("/")
        first, _, last = numbers.partition("-")
        ports |= {f"{number}/{protocol or 'tcp'}" for number in range(int(first), int(last or first) + 1)}
    return ports


def _port_fault(value: str) -> str:
    """Go's text of a number that is none, where it is the port that is wrong."""
    port = value.partition("/")[0]
    if not port.isascii() or not port.isdigit():
        return f'strconv.ParseUint: parsing "{port}": invalid syntax'
    if int(port) > 65535:
        return f'strconv.ParseUint: parsing "{port}": value out of range'
    return "invalid port"


_TESTS: dict[str, Callable[[Sequence[str]], Test]] = {
    "name": _name,
    "id": _id,
    "exited": _exited,
    "status": _status,
    "health": _health,
    "label": _label,
    "isolation": _isolation,
    "volume": _volume,
    "network": _network,
}
