"""The launch spec of a run (docs/wire-protocol.md, section 4): what the agent needs to know to start the process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from control_plane.backends.base import PlatformMount
from control_plane.model import Container, Mount
from control_plane.services.log_options import kept_bytes
from control_plane.services.run_settings import RunSettings
from control_plane.services.signals import stop_signal

_UMASK = 0o022


def launch_spec(
    container: Container, platform_mounts: Sequence[PlatformMount], settings: RunSettings
) -> dict[str, Any]:
    """The spec of the container's present run. `config` and `host_config` hold the image's defaults since create."""
    host = container.host_config
    # Nobody can reach a container that removes itself once its process has ended.
    linger = 0 if host.get("AutoRemove") else settings.linger
    return {
        "run": container.state.run,
        **_process(container),
        **_network(container),
        "stop_signal": stop_signal(container),
        "mounts": _mounts(container, platform_mounts),
        "sources": list(dict.fromkeys(mount.source for mount in platform_mounts)),
        "read_only_root": bool(host.get("ReadonlyRootfs")),
        "init": bool(host.get("Init")),
        "cap_add": list(host.get("CapAdd") or []),
        "cap_drop": list(host.get("CapDrop") or []),
        "ulimits": [_ulimit(entry) for entry in host.get("Ulimits") or []],
        "no_new_privileges": _no_new_privileges(host.get("SecurityOpt") or []),
        "sysctls": dict(host.get("Sysctls") or {}),
        "shm_size": int(host.get("ShmSize") or 0),
        "umask": _UMASK,
        "oom_score_adj": int(host.get("OomScoreAdj") or 0),
        "healthcheck": _healthcheck(container.config.get("Healthcheck"), container.config.get("Shell")),
        "log_max_bytes": kept_bytes(host.get("LogConfig") or {}, settings.log_max_bytes),
        "linger_seconds": linger,
    }


def _process(container: Container) -> dict[str, Any]:
    config, host = container.config, container.host_config
    rows, columns = (host.get("ConsoleSize") or [0, 0])[:2]
    return {
        "argv": [*(config.get("Entrypoint") or []), *(config.get("Cmd") or [])],
        "env": list(config.get("Env") or []),
        "workdir": config.get("WorkingDir") or "/",
        "user": config.get("User") or "",
        "groups": [str(group) for group in host.get("GroupAdd") or []],
        "tty": bool(config.get("Tty")),
        "open_stdin": bool(config.get("OpenStdin")),
        "stdin_once": bool(config.get("StdinOnce")),
        "rows": int(rows),
        "cols": int(columns),
    }


def _network(container: Container) -> dict[str, Any]:
    config, host = container.config, container.host_config
    return {
        "hostname": config.get("Hostname") or container.id[:12],
        "domainname": config.get("Domainname") or "",
        "extra_hosts": [_extra_host(entry) for entry in host.get("ExtraHosts") or []],
        "dns": list(host.get("Dns") or []),
        "dns_search": list(host.get("DnsSearch") or []),
        "dns_options": list(host.get("DnsOptions") or []),
    }


def _extra_host(entry: str) -> str:
    """`name:address`; clients may also write `name=address`."""
    name, equals, address = entry.partition("=")
    return f"{name}:{address}" if equals else entry


def _mounts(container: Container, platform_mounts: Sequence[PlatformMount]) -> list[dict[str, Any]]:
    mounts = [_bind(platform_mount) for platform_mount in platform_mounts]
    placed = {platform_mount.mount.destination for platform_mount in platform_mounts}
    # A volume that the platform has no place for is a directory of the container's own.
    mounts += [
        {"type": "directory", "target": mount.destination}
        for mount in container.mounts
        if mount.type == "volume" and mount.destination not in placed
    ]
    tmpfs = {mount.destination: mount.tmpfs_options for mount in container.mounts if mount.type == "tmpfs"}
    for target, options in (container.host_config.get("Tmpfs") or {}).items():
        tmpfs.setdefault(target, options)
    mounts += [{"type": "tmpfs", "target": target, "options": options} for target, options in tmpfs.items()]
    # A mount below another one's target must be made after it.
    return sorted(mounts, key=lambda mount: str(mount["target"]).rstrip("/").count("/"))


def _bind(platform_mount: PlatformMount) -> dict[str, Any]:
    mount: Mount = platform_mount.mount
    return {
        "type": "bind",
        "source": platform_mount.source,
        "subpath": platform_mount.subpath,
        "target": mount.destination,
        "read_only": mount.read_only,
        "copy_up": mount.copy_up,
        "create": mount.create_source,
    }


def _ulimit(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {"name": entry.get("Name", ""), "soft": int(entry.get("Soft", 0)), "hard": int(entry.get("Hard", 0))}


def _no_new_privileges(options: Sequence[str]) -> bool:
    last = False
    for option in options:
        name, _, value = option.replace("=", ":", 1).partition(":")
        if name == "no-new-privileges":
            last = value.strip().lower() not in {"false", "0", "f"}
    return last


def _healthcheck(check: Mapping[str, Any] | None, shell: Sequence[str] | None) -> dict[str, Any] | None:
    test = list((check or {}).get("Test") or [])
    if check is None or not test or test[0] == "NONE":
        return None
    if test[0] == "CMD-SHELL" and shell:
        test = ["CMD", *shell, *test[1:2]]
    return {
        "test": test,
        "interval_ns": int(check.get("Interval") or 0),
        "timeout_ns": int(check.get("Timeout") or 0),
        "retries": int(check.get("Retries") or 0),
        "start_period_ns": int(check.get("StartPeriod") or 0),
        "start_interval_ns": int(check.get("StartInterval") or 0),
    }
