"""`HostConfig` on Azure Functions: the common table, and where App Service differs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from control_plane.backends import options as o
from control_plane.backends.host_config import host_config, published_ports
from control_plane.backends.options import Option

NAME = "azf"
TITLE = "Azure Functions"
AGENT_PORT = 34117
"""Where the agent takes the platform's requests: no port that a user's process is likely to want."""

NO_VOLUMES = (
    "a function app has no place to take volumes and bind mounts from in this release; copy files in with docker cp, "
    "or run the container with --runtime cloudrun"
)


def _mounts_refusal(mounts: Any) -> str | None:
    for mount in mounts:
        kind = str(mount.get("Type") or "") if isinstance(mount, Mapping) else ""
        if kind in ("bind", "volume"):
            return f"type={kind}: {NO_VOLUMES}"
    return o.mounts_refusal(mounts)


def _log_refusal(config: Any) -> str | None:
    driver = str((config or {}).get("Type") or "")
    if driver in ("", "json-file", "local", "none"):
        return None
    return f"{driver!r}: output goes to docker logs and Log Analytics; export it from there"


_WHOLE = "App Service gives no such control over the plan's machine; --memory and --cpus choose its size"
_SIZE = (
    "the smallest plan that has it: EP1 (1 CPU, 3.5 GiB), EP2 (2, 7), EP3 (4, 14), or of the family of "
    "SOCKERLESS_AZF_PLAN_SKU"
)

HOST_CONFIG = host_config(
    TITLE,
    NAME,
    published_ports(AGENT_PORT),
    Option("Binds", "-v, --volume", "refused", NO_VOLUMES),
    Option(
        "Mounts", "--mount", "agent", "tmpfs mounts are made by the agent; there are no others", refuses=_mounts_refusal
    ),
    Option("VolumesFrom", "--volumes-from", "refused", NO_VOLUMES),
    Option("VolumeDriver", "--volume-driver", "refused", NO_VOLUMES),
    Option(
        "StorageOpt",
        "--storage-opt",
        "refused",
        "the writable layer is on the disk of the plan's machine, whose size cannot be chosen",
    ),
    Option(
        "LogConfig",
        "--log-driver, --log-opt",
        "agent",
        "the agent keeps the output for docker logs (max-size is honoured) and passes it on to Log Analytics; "
        "with `none` it does neither",
        refuses=_log_refusal,
    ),
    Option("Memory", "-m, --memory", "mapped", f"{_SIZE}; without effect on a shared plan"),
    Option("NanoCpus", "--cpus", "mapped", f"{_SIZE}; without effect on a shared plan"),
    Option("MemorySwap", "--memory-swap", "harmless", _WHOLE),
    Option("MemorySwappiness", "--memory-swappiness", "harmless", _WHOLE),
    Option("MemoryReservation", "--memory-reservation", "harmless", _WHOLE),
    Option("CpuShares", "-c, --cpu-shares", "harmless", _WHOLE),
    Option("BlkioWeight", "--blkio-weight", "harmless", _WHOLE),
    Option(
        "PidsLimit",
        "--pids-limit",
        "harmless",
        _WHOLE,
        warns=o.positive("--pids-limit has no effect: the platform sets no limit of processes"),
    ),
    Option("KernelMemoryTCP", "", "refused", "App Service has no such limit"),
    Option("Tmpfs", "--tmpfs", "agent", "mounted before the command starts; it is memory of the plan's machine"),
    Option("ShmSize", "--shm-size", "agent", "size of /dev/shm; it is memory of the plan's machine"),
    Option("MaskedPaths", "", "harmless", "App Service sets the container's masks itself"),
    Option("ReadonlyPaths", "", "harmless", "App Service sets the container's masks itself"),
    Option(
        "IpcMode",
        "--ipc",
        "harmless",
        "each container is alone in its app: private and shareable are the same",
        refuses=o.only("private", "shareable", reason="an app's container cannot share IPC; use private"),
    ),
    Option(
        "CgroupnsMode",
        "--cgroupns",
        "harmless",
        "App Service gives no control over it",
        refuses=o.only("private", reason="there is no host whose cgroups could be seen; use private"),
    ),
)
