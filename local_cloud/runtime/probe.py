"""What the runtime finds on this machine, and how to get what is missing: for `sockerless doctor`."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from local_cloud.runtime import nat, userns
from local_cloud.runtime.cgroups import Cgroups
from local_cloud.runtime.findings import Finding
from local_cloud.runtime.spawn import command

_SECONDS = 20
_AS_ROOT = "run it as root"


def probe(data_dir: Path | None = None) -> list[Finding]:
    """Tries everything once, in a process of its own (some tens of milliseconds); changes nothing on this machine.

    With `data_dir` the layers are tried on its file system, else on that of the temporary directory.
    """
    tried = _try(data_dir)
    privileged = bool(tried.get("privileged"))
    findings = [_namespaces(tried, privileged)]
    if findings[0].ok:
        findings += [_overlay(tried), _ids(tried, privileged), _limits(), _network(tried, privileged)]
        if findings[-1].ok:
            findings.append(_outbound())
    return findings


def _try(data_dir: Path | None) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(dir=data_dir, prefix="probe-") as directory:
        try:
            done = subprocess.run(
                command("trial", directory),
                capture_output=True,
                timeout=_SECONDS,
                check=False,
                stdin=subprocess.DEVNULL,
            )
            answer = json.loads(done.stdout)
        except (subprocess.TimeoutExpired, ValueError, OSError) as error:
            return {"namespaces": f"the trial failed: {type(error).__name__}"}
        finally:
            work = Path(directory) / "work" / "work"
            if work.is_dir():
                work.chmod(0o700)  # overlayfs leaves it closed
    return dict(answer)


def _namespaces(tried: dict[str, Any], privileged: bool) -> Finding:
    problem = tried["namespaces"] or tried.get("proc") or tried.get("mounts")
    if not problem:
        how = "as root" if privileged else "in a user namespace, without root"
        return Finding("namespaces", True, f"containers run {how}")
    if tried["namespaces"] or not tried.get("mounts"):
        text, remedy = f"this account cannot make namespaces with their own mounts: {problem}", _userns_remedy()
    else:
        text, remedy = f"the kernel ({os.uname().release}) lacks calls for mounts: {problem}", "Linux 5.12 or newer"
    return Finding("namespaces", False, text, remedy)


def _userns_remedy() -> str:
    """The switch that is off, where one can be seen."""
    switches = (
        ("kernel/apparmor_restrict_unprivileged_userns", "1", "0"),
        ("kernel/unprivileged_userns_clone", "0", "1"),
        ("user/max_user_namespaces", "0", "15000"),
    )
    for name, barred, free in switches:
        try:
            value = Path("/proc/sys", name).read_text().strip()
        except OSError:
            continue
        if value == barred:
            return f"{_AS_ROOT}, or allow it: sudo sysctl {name.replace('/', '.')}={free}"
    return f"{_AS_ROOT}; inside another container: one started with --privileged"


def _overlay(tried: dict[str, Any]) -> Finding:
    problem = tried.get("overlay")
    if not problem:
        return Finding("layers", True, "overlayfs mounts image layers")
    remedy = "a data directory on ext4, xfs or btrfs; without root Linux 5.11 or newer; `sudo modprobe overlay`"
    return Finding("layers", False, f"overlayfs cannot be mounted: {problem}", remedy)


def _ids(tried: dict[str, Any], privileged: bool) -> Finding:
    if privileged:
        return Finding("user ids", True, "containers have all user ids")
    if tried.get("range"):
        return Finding("user ids", True, "containers have a range of user ids")
    missing = userns.range_available(os.geteuid()) or "newuidmap refused this account's range"
    text = f"containers have one user id: package managers and switching users fail in them ({missing})"
    return Finding(
        "user ids", False, text, "apt-get install uidmap, and lines for this account in /etc/subuid and /etc/subgid"
    )


def _limits() -> Finding:
    cgroups = Cgroups(f"probe-{os.getpid()}")
    cgroups.remove_bases()
    if cgroups.version:
        return Finding("limits", True, f"cgroup v{cgroups.version} limits memory, processor and processes")
    remedy = f"{_AS_ROOT}, or with systemd: systemd-run --user --scope -p Delegate=yes <command>"
    return Finding("limits", False, f"limits have no effect: {cgroups.missing}", remedy)


def _network(tried: dict[str, Any], privileged: bool) -> Finding:
    if not privileged:
        return Finding(
            "network", False, "containers share this machine's network", f"{_AS_ROOT} for a network of their own"
        )
    if tried.get("bridge"):
        text = f"containers share this machine's network: bridges cannot be made ({tried['bridge']})"
        return Finding("network", False, text, "the kernel modules bridge and veth")
    return Finding("network", True, "each container has its own network namespace on a bridge")


def _outbound() -> Finding:
    tool = nat.tool()
    if tool:
        text = f"containers reach the world by address translation ({tool}); net.ipv4.ip_forward is on meanwhile"
        return Finding("outbound", True, text)
    return Finding(
        "outbound", False, "containers reach this machine only: no nft or iptables", "apt-get install nftables"
    )
