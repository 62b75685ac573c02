"""`-v`, `--mount`, `--tmpfs`, VOLUME and `--volumes-from` as one list of mounts, by moby's rules and texts."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from control_plane.errors import InvalidParameter, NotFound, NotServed
from control_plane.model import Container, Mount
from control_plane.services.creation_validation import clean

Json = dict[str, Any]

_PROPAGATION = {"private", "rprivate", "slave", "rslave", "shared", "rshared"}
_MODES = (
    {"rw", "ro"},
    {"z", "Z"},
    _PROPAGATION,
    {"nocopy", "copy"},
    {"consistent", "cached", "delegated"},
)
_SIZES = (("g", 1 << 30), ("m", 1 << 20), ("k", 1 << 10))
_LOCAL = ("", "local")
_TMPFS_FLAGS = frozenset(
    [
        "defaults",
        "ro",
        "rw",
        "suid",
        "nosuid",
        "dev",
        "nodev",
        "exec",
        "noexec",
        "atime",
        "noatime",
        "diratime",
        "nodiratime",
        "relatime",
        "norelatime",
        "private",
        "rprivate",
    ]
)
_TMPFS_VALUES = frozenset(("size", "mode", "uid", "gid", "nr_inodes", "nr_blocks", "mpol"))


@dataclass(frozen=True, slots=True)
class WantedMount:
    """A mount, and of a volume what it is to be made with if it does not exist."""

    mount: Mount
    anonymous: bool = False
    labels: Mapping[str, str] = field(default_factory=dict)


def wanted_mounts(config: Json, host: Json, from_containers: Sequence[Container]) -> list[WantedMount]:
    """All mounts of the new container. `from_containers` are those of `VolumesFrom`, in its order.

    Raises InvalidParameter, NotFound, NotServed.
    """
    by_target: dict[str, WantedMount] = {}
    for entry, source in zip(host["VolumesFrom"] or [], from_containers, strict=True):
        read_only = "ro" in parse_volumes_from(entry)[1].split(",")
        for mount in source.mounts:
            copied = mount.model_copy(update={"read_only": mount.read_only or read_only, "copy_up": False})
            by_target[mount.destination] = WantedMount(copied)
    tmpfs = {clean(target): options for target, options in (host["Tmpfs"] or {}).items()}
    for target, options in (host["Tmpfs"] or {}).items():
        _check_target(target)
        _check_tmpfs_options(options)
    own: set[str] = set()
    for raw in host["Binds"] or []:
        wanted = _parse_bind(raw, host["VolumeDriver"])
        if wanted.mount.destination in own or wanted.mount.destination in tmpfs:
            raise InvalidParameter(f"Duplicate mount point: {wanted.mount.destination}")
        own.add(wanted.mount.destination)
        by_target[wanted.mount.destination] = wanted
    for spec in host["Mounts"] or []:
        wanted = _parse_spec(spec)
        if wanted.mount.destination in own:
            raise InvalidParameter(f"Duplicate mount point: {spec['Target']}")
        own.add(wanted.mount.destination)
        by_target[wanted.mount.destination] = wanted
    for target, options in tmpfs.items():
        by_target[target] = WantedMount(Mount(type="tmpfs", destination=target, tmpfs_options=options))
    for target in config["Volumes"] or {}:
        if not target.startswith("/") or clean(target) == "/":
            raise InvalidParameter(f"invalid volume specification: '{target}'")
        if clean(target) not in by_target:
            mount = Mount(type="volume", destination=clean(target), copy_up=True)
            by_target[mount.destination] = WantedMount(mount, anonymous=True)
    return list(by_target.values())


def parse_volumes_from(entry: str) -> tuple[str, str]:
    """`container[:mode]`. Raises InvalidParameter."""
    reference, _, mode = entry.partition(":")
    if not entry:
        raise InvalidParameter("volumes-from specification cannot be an empty string")
    words = set(mode.split(","))
    if mode and (not _valid_mode(mode) or words & (_PROPAGATION | {"nocopy", "copy"})):
        raise InvalidParameter(f"invalid mode: {mode}")
    return reference, mode


def _parse_bind(raw: str, driver: str) -> WantedMount:
    """One `-v` of the three forms `target`, `source:target`, `source:target:mode`."""
    parts = raw.split(":")
    invalid = InvalidParameter(f"invalid volume specification: '{raw}'")
    if not parts[0] or len(parts) > 3 or (len(parts) == 2 and _valid_mode(parts[1])):
        raise invalid
    source, target = ("", parts[0]) if len(parts) == 1 else (parts[0], parts[1])
    mode = parts[2] if len(parts) == 3 else ""
    if not _valid_mode(mode):
        raise InvalidParameter(f"invalid mode: {mode}")
    words = mode.split(",")
    propagation = next((word for word in words if word in _PROPAGATION), "")
    spec: Json = {"Type": "bind" if source.startswith("/") else "volume", "Source": source, "Target": target}
    spec |= {"ReadOnly": "ro" in words, "BindOptions": None, "VolumeOptions": None, "TmpfsOptions": None}
    if propagation:
        spec["BindOptions"] = {"Propagation": propagation}
    if driver and spec["Type"] == "volume":
        spec["VolumeOptions"] = {"DriverConfig": {"Name": driver}}
    try:
        wanted = _parse_spec(spec)
    except InvalidParameter as error:
        raise InvalidParameter(f"{invalid.message}: {error.message}") from None
    changes: Json = {"mode": mode or wanted.mount.mode, "create_source": True}
    if "nocopy" in words:
        changes["copy_up"] = False
    return WantedMount(wanted.mount.model_copy(update=changes), wanted.anonymous, wanted.labels)


def _parse_spec(spec: Json) -> WantedMount:
    """One entry of `Mounts`."""
    kind = spec["Type"]
    try:
        if not spec["Target"]:
            raise InvalidParameter("field Target must not be empty")
        _check_target(spec["Target"])
        if kind == "bind":
            return _bind(spec)
        if kind == "volume":
            return _volume(spec)
        if kind == "tmpfs":
            return _tmpfs(spec)
        if kind == "image":
            raise NotServed("mounting an image is not served: copy what is needed from it with `docker cp`")
        raise InvalidParameter("mount type unknown")
    except InvalidParameter as error:
        raise InvalidParameter(f'invalid mount config for type "{kind}": {error.message}') from None


def _bind(spec: Json) -> WantedMount:
    options: Json = spec["BindOptions"] or {}
    if not spec["Source"]:
        raise InvalidParameter("field Source must not be empty")
    _refuse_field(spec, "VolumeOptions")
    _check_absolute(spec["Source"])
    propagation = options.get("Propagation") or "rprivate"
    if propagation not in _PROPAGATION:
        raise InvalidParameter(f"invalid propagation mode: {propagation}")
    if propagation not in ("private", "rprivate"):
        raise NotServed(
            f"bind propagation {propagation} is not served: there is no host whose mounts could be seen; "
            "use rprivate, the default"
        )
    for option in ("NonRecursive", "ReadOnlyForceRecursive"):
        if options.get(option):
            raise NotServed(f"BindOptions.{option} is not served: the source holds no further mounts; leave it out")
    mount = Mount(
        type="bind",
        source=clean(spec["Source"]),
        destination=clean(spec["Target"]),
        read_only=spec["ReadOnly"],
        propagation=propagation,
        create_source=bool(options.get("CreateMountpoint")),
    )
    return WantedMount(mount)


def _volume(spec: Json) -> WantedMount:
    _refuse_field(spec, "BindOptions")
    options: Json = spec["VolumeOptions"] or {}
    driver: Json = options.get("DriverConfig") or {}
    subpath: str = options.get("Subpath") or ""
    anonymous = not spec["Source"]
    if subpath and anonymous:
        raise InvalidParameter("must not set Subpath when using anonymous volumes")
    if subpath and (subpath.startswith("/") or posixpath.normpath(subpath).split("/")[0] == ".."):
        raise InvalidParameter("subpath must be a relative path within the volume")
    if spec["ReadOnly"] and anonymous:
        raise InvalidParameter("must not set ReadOnly mode when using anonymous volumes")
    if driver.get("Name", "") not in _LOCAL:
        name = driver["Name"]
        raise NotFound(f'error looking up volume plugin {name}: plugin "{name}" not found')
    if driver.get("Options"):
        raise NotServed(
            "VolumeOptions.DriverConfig.Options are not served: a volume's place in the cloud is the operator's choice"
        )
    mount = Mount(
        type="volume",
        name=spec["Source"],
        destination=clean(spec["Target"]),
        read_only=spec["ReadOnly"],
        copy_up=not options.get("NoCopy"),
        mode="z",
        subpath=subpath,
    )
    return WantedMount(mount, anonymous, options.get("Labels") or {})


def _tmpfs(spec: Json) -> WantedMount:
    _refuse_field(spec, "BindOptions")
    if spec["Source"]:
        raise InvalidParameter("field Source must not be specified")
    options: Json = spec["TmpfsOptions"] or {}
    words = ["ro"] if spec["ReadOnly"] else []
    if options.get("Mode"):
        words.append(f"mode={options['Mode']:o}")
    if size := options.get("SizeBytes") or 0:
        suffix, unit = next(((suffix, unit) for suffix, unit in _SIZES if size % unit == 0), ("", 1))
        words.append(f"size={size // unit}{suffix}")
    for option in options.get("Options") or []:
        if not 1 <= len(option) <= 2:
            raise InvalidParameter("invalid option array length")
        if option[0] not in ("exec", "noexec"):
            raise InvalidParameter(f"invalid option: {option[0]}")
        words.append("=".join(option))
    target = clean(spec["Target"])
    return WantedMount(
        Mount(type="tmpfs", destination=target, read_only=spec["ReadOnly"], tmpfs_options=",".join(words))
    )


def _check_tmpfs_options(options: str) -> None:
    for option in options.split(","):
        name, value, _ = option.partition("=")
        if option and (name not in _TMPFS_VALUES if value else name not in _TMPFS_FLAGS):
            raise InvalidParameter(f'invalid tmpfs option "{name}"')


def _refuse_field(spec: Json, name: str) -> None:
    if spec[name] is not None:
        raise InvalidParameter(f"field {name} must not be specified")


def _check_target(target: str) -> None:
    if "\0" in target:
        raise InvalidParameter("invalid mount path: it holds a null character")
    if clean(target) == "/":
        raise InvalidParameter("invalid specification: destination can't be '/'")
    _check_absolute(target)


def _check_absolute(path: str) -> None:
    if not path.startswith("/"):
        raise InvalidParameter(f"invalid mount path: '{path}' mount path must be absolute")


def _valid_mode(mode: str) -> bool:
    if not mode:
        return True
    words = mode.split(",")
    return all(any(word in kind for kind in _MODES) for word in words) and all(
        sum(word in kind for word in words) <= 1 for kind in _MODES
    )
