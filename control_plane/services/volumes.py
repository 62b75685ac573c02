"""Docker's volumes: records here, storage in the cloud."""

from __future__ import annotations

import logging
import re
import secrets
from collections.abc import Mapping, Sequence
from typing import Any

from control_plane.errors import Conflict, DockerError, InvalidParameter, NotFound
from control_plane.model import Container, Volume
from control_plane.services.events import Events
from control_plane.services.filters import Filters
from control_plane.services.ports import VolumeStorage
from control_plane.services.records import Records
from control_plane.store.base import AlreadyExists, Store
from control_plane.timestamps import nanoseconds, now, rfc3339

_log = logging.getLogger(__name__)

ANONYMOUS_LABEL = "com.docker.volume.anonymous"
_NAME_CHARACTERS = "[a-zA-Z0-9][a-zA-Z0-9_.-]"
_NAME_LIMIT = 255
_name = re.compile(_NAME_CHARACTERS + "+", re.ASCII)
_LIST_FILTERS = {"dangling", "name", "driver", "label"}
_PRUNE_FILTERS = {"label", "label!", "all"}
_LOCAL_OPTIONS = {"type", "o", "device", "size"}


Uses = dict[str, list[str]]
"""Volume name → ids of the containers, running or not, that have it."""


class Volumes:
    """One call per Docker operation. Only creating and removing reach the cloud."""

    def __init__(self, store: Store, storage: VolumeStorage, events: Events) -> None:
        self._records = Records(store, "volumes", Volume)
        self._containers = Records(store, "containers", Container)
        self._storage = storage
        self._events = events
        self._pruning: set[str] = set()

    async def create(
        self,
        tenant: str,
        name: str = "",
        driver: str = "",
        options: Mapping[str, str] | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> Volume:
        """`docker volume create`: gives back the volume that is there already. Raises InvalidParameter, NotFound."""
        anonymous = not name
        name = name or secrets.token_hex(32)
        _check_name(name)
        _check_driver(name, driver or "local", options or {})
        present = await self._records.get(tenant, name)
        if present is not None:
            return present
        given = dict(labels or {})
        if anonymous:
            given[ANONYMOUS_LABEL] = ""
        volume = Volume(name=name, tenant=tenant, created_at=now(), labels=given, anonymous=anonymous)
        # Storage first, which is repeatable: a volume on record can always be mounted.
        await self._storage.create(volume)
        try:
            created = await self._records.create(tenant, name, volume)
        except AlreadyExists:
            return await self._found(tenant, name)
        await self._events.publish(tenant, "volume", "create", name, {"driver": "local"})
        return created

    async def ensure(self, tenant: str, name: str | None, labels: Mapping[str, str] | None = None) -> Volume:
        """The volume a container names, made when it is missing; an anonymous one for None."""
        return await self.create(tenant, name or "", labels=labels)

    async def get(self, tenant: str, name: str) -> Volume:
        """Raises NotFound `get x: no such volume`."""
        return await self._found(tenant, name)

    async def _found(self, tenant: str, name: str) -> Volume:
        volume = await self._records.get(tenant, name)
        if volume is None:
            raise NotFound(f"get {name}: no such volume")
        return volume

    def mountpoint(self, volume: Volume) -> str:
        """What Docker shows as Mountpoint, and as `Mounts[].Source` of containers."""
        return self._storage.mountpoint(volume)

    def view(self, volume: Volume) -> dict[str, Any]:
        """Docker's JSON of a volume."""
        return {
            "CreatedAt": rfc3339(nanoseconds(volume.created_at) // 1_000_000_000 * 1_000_000_000),
            "Driver": volume.driver,
            "Labels": volume.labels or None,
            "Mountpoint": self._storage.mountpoint(volume),
            "Name": volume.name,
            "Options": volume.options or None,
            "Scope": "local",
        }

    async def list(self, tenant: str, filters: Mapping[str, Sequence[str]]) -> list[Volume]:
        """Raises InvalidParameter."""
        judged = Filters(filters, _LIST_FILTERS)
        volumes = [
            volume
            for volume in await self._records.list(tenant)
            if judged.exact("driver", volume.driver)
            and judged.similar("name", volume.name)
            and judged.labels(volume.labels)
        ]
        if "dangling" in judged:
            dangling = judged.flag("dangling", default=False)
            used = await self._uses(tenant)
            volumes = [volume for volume in volumes if (volume.name not in used) == dangling]
        return volumes

    async def remove(self, tenant: str, name: str, *, force: bool = False) -> None:
        """Raises NotFound (not with force) and Conflict `remove x: volume is in use - [ids]`."""
        volume = await self._records.get(tenant, name)
        if volume is None:
            if force:
                return
            raise NotFound(f"get {name}: no such volume")
        users = (await self._uses(tenant)).get(name, [])
        if users:
            raise Conflict(f"remove {name}: volume is in use - [{', '.join(users)}]")
        await self._delete(volume)

    async def remove_anonymous(self, container: Container) -> None:
        """Removes the anonymous volumes that only this container used (`rm -v`, `--rm`)."""
        names = [mount.name for mount in container.mounts if mount.type == "volume" and mount.name]
        if not names:
            return
        uses = await self._uses(container.tenant)
        for name in names:
            volume = await self._records.get(container.tenant, name)
            others = [one for one in uses.get(name, []) if one != container.id]
            if volume is None or not volume.anonymous or others:
                continue
            try:
                await self._delete(volume)
            except DockerError as error:
                _log.warning("volume %s of container %s was not removed: %s", name, container.id[:12], error.message)

    async def _delete(self, volume: Volume) -> bool:
        # The record goes last: what the cloud refuses to delete stays a volume that can be removed again.
        await self._storage.remove(volume)
        if not await self._records.delete(volume.tenant, volume.name):
            return False
        await self._events.publish(volume.tenant, "volume", "destroy", volume.name, {"driver": volume.driver})
        return True

    async def prune(
        self, tenant: str, filters: Mapping[str, Sequence[str]], *, all_volumes: bool = False
    ) -> dict[str, Any]:
        """`{"VolumesDeleted": names, "SpaceReclaimed": 0}`: anonymous ones only, unless `all`.

        What a volume holds is not measured: that would be a walk through the cloud's storage.
        """
        judged = Filters(filters, _PRUNE_FILTERS)
        everything = all_volumes or _all(judged)
        if tenant in self._pruning:
            raise Conflict("a prune operation is already running")
        self._pruning.add(tenant)
        try:
            used = await self._uses(tenant)
            deleted = []
            for volume in await self._records.list(tenant):
                if volume.name in used or not (everything or ANONYMOUS_LABEL in volume.labels):
                    continue
                if judged.prunable(volume.labels) and await self._pruned(volume):
                    deleted.append(volume.name)
        finally:
            self._pruning.discard(tenant)
        await self._events.publish(tenant, "volume", "prune", "", {"reclaimed": "0"})
        return {"SpaceReclaimed": 0, "VolumesDeleted": deleted}

    async def _pruned(self, volume: Volume) -> bool:
        try:
            return await self._delete(volume)
        except DockerError as error:
            _log.warning("volume %s was not pruned: %s", volume.name, error.message)
            return False

    async def _uses(self, tenant: str) -> Uses:
        uses: Uses = {}
        for container in await self._containers.list(tenant):
            for name in {mount.name for mount in container.mounts if mount.type == "volume"}:
                uses.setdefault(name, []).append(container.id)
        return uses


def _check_name(name: str) -> None:
    if len(name) == 1:
        raise InvalidParameter(
            f"create {name}: volume name is too short, names should be at least two alphanumeric characters"
        )
    if not _name.fullmatch(name):
        raise InvalidParameter(
            f'create {name[:_NAME_LIMIT]}: "{name[:_NAME_LIMIT]}" includes invalid characters for a local volume name, '
            f'only "{_NAME_CHARACTERS}" are allowed. If you intended to pass a host directory, use absolute path'
        )
    if len(name) > _NAME_LIMIT:
        raise InvalidParameter(f"create {name[:32]}…: volume name is longer than {_NAME_LIMIT} characters")


def _check_driver(name: str, driver: str, options: Mapping[str, str]) -> None:
    if driver != "local":
        raise NotFound(f'create {name}: error looking up volume plugin {driver}: plugin "{driver}" not found')
    for option in options:
        if option not in _LOCAL_OPTIONS:
            raise InvalidParameter(f'create {name}: invalid option: "{option}"')
        raise InvalidParameter(
            f'create {name}: option "{option}" of the local driver cannot be served: volumes are kept in the '
            "cloud's storage. Create the volume without options, or bind a path that has a bind rule"
        )


def _all(filters: Filters) -> bool:
    values = filters.values("all")
    if len(values) > 1:
        raise InvalidParameter(f"invalid filter 'all=[{' '.join(values)}]': only one value is expected")
    if not values:
        return False
    if values[0] in {"1", "t", "T", "true", "TRUE", "True"}:
        return True
    if values[0] in {"0", "f", "F", "false", "FALSE", "False"}:
        return False
    raise InvalidParameter(f"invalid filter 'all': strconv.ParseBool: parsing \"{values[0]}\": invalid syntax")
