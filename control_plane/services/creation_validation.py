"""What moby refuses at create and update before it looks at the image: contradictions and malformed values."""

from __future__ import annotations

import ipaddress
import posixpath
import re
from typing import Any

from control_plane.errors import InvalidParameter
from control_plane.services.signals import parse_signal

Json = dict[str, Any]

_MILLISECOND = 1_000_000
_LEAST_MEMORY = 6 * 1024 * 1024
_PORT = re.compile(r"(\d{1,5})(-(\d{1,5}))?(/(tcp|udp|sctp))?", re.IGNORECASE)
_POLICIES = ("no", "always", "on-failure", "unless-stopped")
_CAPABILITY_NAMES = """
    AUDIT_CONTROL AUDIT_READ AUDIT_WRITE BLOCK_SUSPEND BPF CHECKPOINT_RESTORE CHOWN DAC_OVERRIDE DAC_READ_SEARCH
    FOWNER FSETID IPC_LOCK IPC_OWNER KILL LEASE LINUX_IMMUTABLE MAC_ADMIN MAC_OVERRIDE MKNOD NET_ADMIN
    NET_BIND_SERVICE NET_BROADCAST NET_RAW PERFMON SETFCAP SETGID SETPCAP SETUID SYSLOG SYS_ADMIN SYS_BOOT SYS_CHROOT
    SYS_MODULE SYS_NICE SYS_PACCT SYS_PTRACE SYS_RAWIO SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG WAKE_ALARM ALL
"""
_CAPABILITIES = frozenset(_CAPABILITY_NAMES.split())


def check_config(config: Json) -> None:
    """Config; makes the working directory canonical. Raises InvalidParameter."""
    directory = config["WorkingDir"]
    if directory:
        if not directory.startswith("/"):
            raise InvalidParameter(f"the working directory '{directory}' is invalid, it needs to be an absolute path")
        config["WorkingDir"] = clean(directory)
    if config["StopSignal"]:
        parse_signal(config["StopSignal"])
    for entry in config["Env"] or []:
        if not entry.partition("=")[0]:
            raise InvalidParameter(f"invalid environment variable: {entry}")
        if "\0" in entry:
            raise InvalidParameter("invalid environment variable: it holds a null character")
    for word in (*(config["Cmd"] or []), *(config["Entrypoint"] or [])):
        if "\0" in word:
            raise InvalidParameter("invalid command: it holds a null character")
    for port in config["ExposedPorts"] or {}:
        if not valid_port(port):
            raise InvalidParameter(f'invalid port specification: "{port}"')
    if config["Healthcheck"]:
        _check_health(config["Healthcheck"])


def check_host(config: Json, host: Json) -> None:
    """HostConfig but its mounts. Raises InvalidParameter."""
    _check_network_mode(config, host)
    if host["Isolation"] not in ("", "default"):
        raise InvalidParameter(f"invalid isolation ({host['Isolation']}): linux only supports 'default'")
    check_resources(host, update=False)
    policy = host["RestartPolicy"]
    if host["AutoRemove"] and policy["Name"] not in ("", "no"):
        raise InvalidParameter("can't create 'AutoRemove' container with restart policy")
    check_restart_policy(policy)
    for entry in host["ExtraHosts"] or []:
        _check_extra_host(entry)
    for port in host["PortBindings"] or {}:
        if not valid_port(port):
            raise InvalidParameter(f'invalid port specification: "{port}"')
    for option in ("CapAdd", "CapDrop"):
        for name in host[option] or []:
            bare = name.upper().removeprefix("CAP_")
            if bare not in _CAPABILITIES:
                raise InvalidParameter(f'invalid {option}: unknown capability: "CAP_{bare}"')
    if "" in (host["Annotations"] or {}):
        raise InvalidParameter("invalid Annotations: the empty string is not permitted as an annotation key")
    _check_namespaces(host)
    if host["ShmSize"] < 0:
        raise InvalidParameter("SHM size can not be less than 0")
    if not -1000 <= host["OomScoreAdj"] <= 1000:
        raise InvalidParameter(f"Invalid value {host['OomScoreAdj']}, range for oom score adj is [-1000, 1000]")


def check_restart_policy(policy: Json) -> None:
    """`RestartPolicy` of create and update. Raises InvalidParameter."""
    name, count = policy["Name"], policy["MaximumRetryCount"]
    if name and name not in _POLICIES:
        raise InvalidParameter(
            f"invalid restart policy: unknown policy '{name}'; "
            "use one of 'no', 'always', 'on-failure', or 'unless-stopped'"
        )
    if name == "on-failure" and count < 0:
        raise InvalidParameter("invalid restart policy: maximum retry count cannot be negative")
    if name in ("no", "always", "unless-stopped") and count != 0:
        negative = " and cannot be negative" if count < 0 else ""
        raise InvalidParameter(
            f"invalid restart policy: maximum retry count can only be used with 'on-failure'{negative}"
        )


def check_resources(host: Json, *, update: bool) -> None:
    """Limits that contradict each other or themselves. Raises InvalidParameter."""
    memory, swap, reserved = host["Memory"], host["MemorySwap"], host["MemoryReservation"]
    faults = (
        (memory != 0 and memory < _LEAST_MEMORY, "Minimum memory limit allowed is 6MB"),
        (0 < swap < memory, "Minimum memoryswap limit should be larger than memory limit, see usage"),
        (
            memory == 0 and swap > 0 and not update,
            "You should always set the Memory limit when using Memoryswap limit, see usage",
        ),
        (0 < reserved < _LEAST_MEMORY, "Minimum memory reservation allowed is 6MB"),
        (
            0 < memory < reserved,
            "Minimum memory limit can not be less than memory reservation limit, see usage",
        ),
        (
            host["NanoCpus"] > 0 and host["CpuPeriod"] > 0,
            "Conflicting options: Nano CPUs and CPU Period cannot both be set",
        ),
        (
            host["NanoCpus"] > 0 and host["CpuQuota"] > 0,
            "Conflicting options: Nano CPUs and CPU Quota cannot both be set",
        ),
        (host["NanoCpus"] < 0, "the number of CPUs must not be negative"),
        (host["CpuShares"] < 0, f"invalid CPU shares ({host['CpuShares']}): value must be a positive integer"),
        (
            host["CpuPeriod"] != 0 and not 1000 <= host["CpuPeriod"] <= 1_000_000,
            "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)",
        ),
        (0 < host["CpuQuota"] < 1000, "CPU cfs quota can not be less than 1ms (i.e. 1000)"),
        (
            host["CpuRealtimePeriod"] != 0 or host["CpuRealtimeRuntime"] != 0,
            "kernel does not support CPU real-time scheduler",
        ),
        (
            host["BlkioWeight"] != 0 and not 10 <= host["BlkioWeight"] <= 1000,
            "Range of blkio weight is from 10 to 1000",
        ),
        (
            host["IOMaximumBandwidth"] != 0,
            "invalid option: QoS maximum bandwidth configuration is not supported on linux",
        ),
        (host["IOMaximumIOps"] != 0, "invalid option: QoS maximum IOPs configuration is not supported on linux"),
        (
            not -1 <= (host["MemorySwappiness"] or 0) <= 100,
            f"Invalid value: {host['MemorySwappiness']}, valid memory swappiness range is 0-100",
        ),
    )
    for wrong, text in faults:
        if wrong:
            raise InvalidParameter(text)


def valid_port(port: str) -> bool:
    """`80`, `80/udp`, `8000-8010/tcp`."""
    found = _PORT.fullmatch(port)
    if found is None:
        return False
    first, last = int(found[1]), int(found[3] or found[1])
    return first <= last <= 65535


def clean(path: str) -> str:
    """Go's path.Clean of an absolute path: POSIX keeps exactly two leading slashes, Go does not."""
    return posixpath.normpath("/" + path.lstrip("/"))


def _check_health(check: Json) -> None:
    for name in ("Interval", "Timeout", "StartPeriod", "StartInterval"):
        if check[name] != 0 and check[name] < _MILLISECOND:
            raise InvalidParameter(f"{name} in Healthcheck cannot be less than 1ms")
    if check["Retries"] < 0:
        raise InvalidParameter("Retries in Healthcheck cannot be negative")


def _check_network_mode(config: Json, host: Json) -> None:
    mode = host["NetworkMode"]
    if host["UTSMode"] == "host" and config["Hostname"]:
        raise InvalidParameter("conflicting options: hostname and the UTS mode")
    if mode == "host" and host["Links"]:
        raise InvalidParameter(
            "conflicting options: host type networking can't be used with links. "
            "This would result in undefined behavior"
        )
    if mode != "container" and not mode.startswith("container:"):
        return
    if not mode.partition(":")[2]:
        raise InvalidParameter("invalid network mode: invalid container format container:<name|id>")
    conflicts = (
        (config["Hostname"], "hostname and the network mode"),
        (
            host["Links"],
            "container type network can't be used with links. This would result in undefined behavior",
        ),
        (host["Dns"], "dns and the network mode"),
        (host["ExtraHosts"], "custom host-to-IP mapping and the network mode"),
        (host["PortBindings"] or host["PublishAllPorts"], "port publishing and the container type network mode"),
        (config["ExposedPorts"], "port exposing and the container type network mode"),
    )
    for given, text in conflicts:
        if given:
            raise InvalidParameter(f"conflicting options: {text}")


def _check_namespaces(host: Json) -> None:
    allowed = (
        ("IpcMode", "IPC mode", ("", "none", "private", "host", "shareable"), True),
        ("PidMode", "PID mode", ("", "host"), True),
        ("UTSMode", "UTS mode", ("", "host"), False),
        ("CgroupnsMode", "cgroup namespace mode", ("", "private", "host"), False),
        ("UsernsMode", "user namespace mode", ("", "host"), False),
    )
    for option, title, values, may_share in allowed:
        mode = host[option]
        if mode not in values and not (may_share and mode.startswith("container:") and mode != "container:"):
            raise InvalidParameter(f"invalid {title}: {mode}")


def _check_extra_host(entry: str) -> None:
    """`name:ip`; the address may be `host-gateway`."""
    separator = "=" if "=" in entry else ":"
    name, _, address = entry.partition(separator)
    if not name or not address:
        raise InvalidParameter(f'bad format for add-host: "{entry}"')
    if address == "host-gateway":
        return
    try:
        ipaddress.ip_address(address.strip("[]"))
    except ValueError:
        raise InvalidParameter(f'invalid IP address in add-host: "{address}"') from None
