"""Which place in the cloud a bind mount is taken from: rules from path prefixes to NFS exports and bucket prefixes."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from control_plane.backends.base import PlatformMount
from control_plane.backends.location import Location, volume_location
from control_plane.errors import InvalidParameter
from control_plane.model import Container, Mount

MOUNT_ROOT = "/.sockerless/volumes"
TENANT = "{tenant}"


@dataclass(frozen=True, slots=True)
class BindRule:
    """Paths below `prefix` are found below `target` (`nfs://…` or `gs://…`, perhaps with `{tenant}`)."""

    prefix: str
    target: str

    def covers(self, path: str) -> bool:
        """By whole path components: `/build` does not cover `/builds`."""
        return self.prefix == "/" or path == self.prefix or path.startswith(self.prefix + "/")

    def location(self, tenant: str) -> Location:
        """The target for one tenant."""
        return Location.parse(self.target.replace(TENANT, _folder(tenant)))


def _folder(tenant: str) -> str:
    """A tenant's name as one path component."""
    return volume_location(Location("gs", "x", ""), tenant, "x").path.split("/")[1]


@lru_cache(maxsize=64)
def parse_rules(text: str) -> tuple[BindRule, ...]:
    """`prefix=target;prefix=target`, longest prefix first. Raises ValueError."""
    rules: dict[str, BindRule] = {}
    for part in filter(None, (piece.strip() for piece in text.split(";"))):
        prefix, equals, target = (piece.strip() for piece in part.partition("="))
        if not equals or not prefix.startswith("/"):
            raise ValueError(f"{part!r}: must be /prefix=nfs://server/export or /prefix=gs://bucket/prefix")
        Location.parse(target.replace(TENANT, "tenant"))
        prefix = normal_path(prefix)
        if prefix in rules:
            raise ValueError(f"{prefix!r} has two rules")
        rules[prefix] = BindRule(prefix, target)
    return tuple(sorted(rules.values(), key=lambda rule: len(rule.prefix), reverse=True))


def normal_path(path: str) -> str:
    """Absolute, without `.`, `..` and doubled slashes (POSIX keeps exactly two leading slashes; Linux does not)."""
    return posixpath.normpath("/" + path.lstrip("/"))


def rule_for(rules: Iterable[BindRule], source: str) -> BindRule:
    """The rule a bind's source falls under. Raises InvalidParameter naming the path and the ways out."""
    path = normal_path(source)
    found = [rule for rule in rules if rule.covers(path)]
    if not source.startswith("/") or not found:
        raise InvalidParameter(
            f'invalid mount config for type "bind": bind source path {source} is not shared with the cloud: no rule in '
            "SOCKERLESS_BIND_RULES covers it. Use a volume (-v NAME:/path), copy files with docker cp, or have the "
            "operator add a rule for the path"
        )
    return max(found, key=lambda rule: len(rule.prefix))


@dataclass(frozen=True, slots=True)
class PlatformVolume:
    """One volume of the job: `location` mounted at `path`."""

    name: str
    path: str
    location: Location
    read_only: bool


def place(container: Container, rules: Iterable[BindRule], volume_root: Location) -> list[tuple[Mount, Location, str]]:
    """For each bind and volume of the container: the platform volume's location, and the path below it."""
    rules = tuple(rules)
    placed: list[tuple[Mount, Location, str]] = []
    for mount in container.mounts:
        if mount.type == "bind":
            rule = rule_for(rules, mount.source)
            below = posixpath.relpath(normal_path(mount.source), rule.prefix)
            placed.append((mount, rule.location(container.tenant), _join(below, mount.subpath)))
        elif mount.type == "volume":
            location = volume_location(volume_root, container.tenant, mount.name)
            placed.append((mount, location, _join("", mount.subpath)))
    return placed


def platform_volumes(
    container: Container, rules: Iterable[BindRule], volume_root: Location
) -> tuple[list[PlatformVolume], list[PlatformMount]]:
    """The job's volumes in order of first use, and which of them each mount is taken from."""
    placed = place(container, rules, volume_root)
    order = list(dict.fromkeys(location for _, location, _ in placed))
    volumes = [
        PlatformVolume(
            name=f"volume-{number}",
            path=f"{MOUNT_ROOT}/{number}",
            location=location,
            read_only=all(mount.read_only for mount, where, _ in placed if where == location),
        )
        for number, location in enumerate(order)
    ]
    mounts = [
        PlatformMount(source=f"{MOUNT_ROOT}/{order.index(location)}", subpath=subpath, mount=mount)
        for mount, location, subpath in placed
    ]
    return volumes, mounts


def _join(below: str, subpath: str) -> str:
    """Both relative; `..` in a subpath cannot climb out of the volume."""
    inner = posixpath.normpath("/" + subpath).strip("/")
    return "/".join(part for part in ("" if below == "." else below, inner) if part)
