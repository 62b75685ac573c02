"""How one option of Docker's `HostConfig` is treated: the form of the table in `host_config.py`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from control_plane.errors import NotServed
from control_plane.model import Container

MAC_ADDRESS = "the platform gives the container its network interface"

How = Literal["agent", "mapped", "harmless", "refused"]
"""agent: done in the container by the agent · mapped: part of the cloud resource, or done by the control plane ·
harmless: accepted, without effect, for the reason given · refused: answered with 501 and the reason."""

Check = Callable[[Any], str | None]
"""Value → why it is refused (or what to warn of); None when there is nothing to say."""


@dataclass(frozen=True, slots=True)
class Option:
    """One field of `HostConfig` (API 1.50)."""

    field: str
    flag: str
    how: How
    note: str
    """What is done with it, or why it is harmless or refused. A sentence without its full stop."""
    refuses: Check | None = None
    """For options that are served in part. Options with how=refused refuse every value that is not `empty`."""
    warns: Check | None = None

    def refusal(self, value: Any) -> str | None:
        """Why this value cannot be served; None when it can."""
        if empty(value):
            return None
        if self.how == "refused":
            return self.note
        return self.refuses(value) if self.refuses is not None else None

    def warning(self, value: Any) -> str | None:
        """What the user should know; None for nothing."""
        return None if empty(value) or self.warns is None else self.warns(value)


def check_host_config(container: Container, table: Sequence[Option], title: str) -> list[str]:
    """Warnings for `docker create`. Raises NotServed naming the option, and the reason with a way out."""
    known = {option.field: option for option in table}
    warnings = []
    for field, value in container.host_config.items():
        option = known.get(field)
        if option is None:
            continue  # not a field of the API's: nothing was promised
        reason = option.refusal(value)
        if reason is not None:
            flags = (part for part in option.flag.split(", ") if part.startswith("--"))
            raise NotServed(f"{next(flags, f'HostConfig.{field}')} is not served on {title}: {reason}")
        warning = option.warning(value)
        if warning is not None:
            warnings.append(warning)
    if container.config.get("MacAddress"):
        raise NotServed(f"--mac-address is not served on {title}: {MAC_ADDRESS}")
    return warnings


def refused_options(table: Sequence[Option]) -> dict[str, str]:
    """Docker option → why it is refused, for `Capabilities`."""
    refused = {f"HostConfig.{option.field}": option.note for option in table if option.how == "refused"}
    return refused | {"Config.MacAddress": MAC_ADDRESS}


def empty(value: Any) -> bool:
    """Docker's zero values: the option was not given."""
    return value is None or value is False or value in ("", 0) or value == [] or value == {}


def only(*allowed: Any, reason: str) -> Check:
    """Refuses everything but these values."""
    return lambda value: None if value in allowed else reason


def port_refusal(agent_port: int) -> Check:
    """`-p` of the port on which the agent takes the platform's requests."""

    def refuses(bindings: Any) -> str | None:
        if any(str(port).partition("/")[0] == str(agent_port) for port in bindings):
            return f"{agent_port} is the agent's own port, the platform's requests come in there; use another one"
        return None

    return refuses


def says(text: str) -> Check:
    """A warning for every value given."""
    return lambda _: text


def positive(text: str) -> Check:
    """A warning for values above zero (-1 means "no limit")."""
    return lambda value: text if isinstance(value, int | float) and value > 0 else None


def security_refusal(options: Any) -> str | None:
    """`--security-opt`: what a sandbox of its own makes moot is accepted, profiles are not."""
    for option in options:
        key, _, value = _split(str(option))
        if key in ("no-new-privileges", "label"):
            continue
        if (key, value) in (("apparmor", "unconfined"), ("seccomp", "unconfined"), ("seccomp", "builtin")):
            continue
        return f"{option!r}: profiles cannot be loaded into the platform's sandbox; no-new-privileges can be had"
    return None


def security_warning(options: Any) -> str | None:
    """Names the options that have no effect. Without profiles and labels is what the sandbox is anyway."""
    met = {("seccomp", "unconfined"), ("apparmor", "unconfined"), ("label", "disable")}
    idle = [
        str(option)
        for option in options
        if (found := _split(str(option)))[0] != "no-new-privileges" and (found[0], found[2]) not in met
    ]
    if not idle:
        return None
    return f"--security-opt {', '.join(idle)} has no effect: the platform's sandbox has no such profiles"


def _split(option: str) -> tuple[str, str, str]:
    """`key=value`, or Docker's older `key:value`."""
    return option.partition("=") if "=" in option else option.partition(":")


def mounts_refusal(mounts: Any) -> str | None:
    """`--mount`: types and options that have no counterpart."""
    for mount in mounts:
        if not isinstance(mount, Mapping):
            continue
        kind = str(mount.get("Type") or "")
        if kind not in ("bind", "volume", "tmpfs"):
            return f"type={kind} has no counterpart: use bind, volume or tmpfs"
        driver = (mount.get("VolumeOptions") or {}).get("DriverConfig") or {}
        if driver.get("Name") not in (None, "", "local") or driver.get("Options"):
            return "volume drivers and their options are not served: volumes are kept in the endpoint's volume storage"
        propagation = (mount.get("BindOptions") or {}).get("Propagation") or ""
        if propagation not in ("", "private", "rprivate"):
            return f"bind-propagation={propagation}: nobody shares the mount with the container; use rprivate"
    return None


def binds_refusal(binds: Any) -> str | None:
    """`-v`: propagation modes."""
    for bind in binds:
        modes = str(bind).split(":")[2:]
        for mode in ",".join(modes).split(","):
            if mode in ("shared", "rshared", "slave", "rslave"):
                return f"mode {mode}: nobody shares the mount with the container; use rprivate"
    return None


def extra_hosts_refusal(hosts: Any) -> str | None:
    """`--add-host name:host-gateway`: there is no host."""
    for entry in hosts:
        if str(entry).rpartition(":")[2] == "host-gateway" or str(entry).endswith("=host-gateway"):
            return f"{entry!r}: there is no Docker host beside the container; name an address"
    return None


def log_refusal(config: Any) -> str | None:
    """`--log-driver`: output is kept by the agent and in Cloud Logging."""
    driver = str((config or {}).get("Type") or "")
    if driver in ("", "json-file", "local", "none"):
        return None
    return f"{driver!r}: output goes to docker logs and Cloud Logging; export it from there"


def network_refusal(mode: Any) -> str | None:
    """`--network`: `none` and shared namespaces cannot be had."""
    text = str(mode)
    if text == "none":
        return "none: the container's agent needs the network"
    if text.startswith("container:"):
        return f"{text}: containers run on machines of their own and cannot share a network namespace"
    return None


def network_warning(mode: Any) -> str | None:
    """`host` is a network namespace of the container's own."""
    if mode == "host":
        return (
            "--network host: the container has a network of its own; it reaches out as a host would, "
            "but localhost is the container itself and its ports are not on your machine"
        )
    return None
