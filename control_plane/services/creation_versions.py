"""What an older API version means by a create request: fields it did not have are set back, as moby does."""

from __future__ import annotations

from typing import Any

from control_plane.errors import InvalidParameter

Json = dict[str, Any]
Version = tuple[int, int]


def adapt(version: Version, config: Json, host: Json, endpoints: Json) -> list[str]:
    """Changes the three objects in place; gives warnings. Raises InvalidParameter with moby's texts."""
    if host["NetworkMode"] in ("", "default"):
        host["NetworkMode"] = "bridge"
        if "default" in endpoints:
            endpoints["bridge"] = endpoints.pop("default")
    mounts = host["Mounts"] or []
    if version < (1, 25):
        host["AutoRemove"] = False
    if version < (1, 40) and not host["IpcMode"]:
        host["IpcMode"] = "shareable"
    if version < (1, 42):
        host["ConsoleSize"] = [0, 0]
    if version < (1, 43):
        host["Annotations"] = None
    if version < (1, 44):
        if config["Healthcheck"]:
            config["Healthcheck"]["StartInterval"] = 0
        if len(endpoints) > 1:
            names = ", ".join(endpoints)
            raise InvalidParameter(f"Container cannot be created with multiple network endpoints: {names}")
    for mount in mounts:
        _adapt_mount(version, mount)
    return _mac_address(version, config, host, endpoints)


def _adapt_mount(version: Version, mount: Json) -> None:
    kinds = (("VolumeOptions", "volume"), ("BindOptions", "bind"), ("TmpfsOptions", "tmpfs"))
    for options, kind in kinds:
        if mount[options] is None or mount["Type"] == kind:
            continue
        if version >= (1, 42):
            raise InvalidParameter(f'{options} must not be specified on mount type "{mount["Type"]}"')
        if options != "BindOptions":
            mount[options] = None
    bind = mount["BindOptions"]
    if bind and version < (1, 42):
        bind["CreateMountpoint"] = False
    if bind and version < (1, 40):
        bind["NonRecursive"] = False
    if bind and version < (1, 44) and bind["ReadOnlyForceRecursive"]:
        raise InvalidParameter("BindOptions.ReadOnlyForceRecursive needs API v1.44 or newer")
    if version < (1, 45) and mount["VolumeOptions"] and mount["VolumeOptions"]["Subpath"]:
        raise InvalidParameter("VolumeOptions.Subpath needs API v1.45 or newer")


def _mac_address(version: Version, config: Json, host: Json, endpoints: Json) -> list[str]:
    """Moves the container-wide MAC address of old clients to the endpoint it belongs to."""
    address, mode = config["MacAddress"], host["NetworkMode"]
    connectable = mode not in ("host", "none") and not mode.startswith("container:")
    if version < (1, 44):
        if not address:
            for endpoint in endpoints.values():
                if endpoint:
                    endpoint["MacAddress"] = ""
            return []
        if not connectable:
            raise InvalidParameter("conflicting options: mac-address and the network mode")
    if not address:
        return []
    if connectable:
        endpoint = endpoints.get(mode) or {}
        if endpoint.get("MacAddress") not in (None, "", address):
            raise InvalidParameter(
                "the container-wide MAC address must match the endpoint-specific MAC address for the main network, "
                "or be left empty"
            )
        endpoints[mode] = {**endpoint, "MacAddress": address}
    if version < (1, 44):
        return []
    config["MacAddress"] = ""
    return ["The container-wide MacAddress field is now deprecated. It should be specified in EndpointsConfig instead."]
