"""Ping, version, info: what the endpoint says of itself."""

from __future__ import annotations

import os
import platform
import socket
import sys
from collections.abc import Mapping
from typing import Any

from control_plane.backends.base import Backend
from control_plane.services.containers import Containers
from control_plane.services.events import Events
from control_plane.services.standing import standing
from control_plane.store.base import Store
from control_plane.timestamps import now
from control_plane.version import API_VERSION, MIN_API_VERSION, VERSION

Json = dict[str, Any]

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
_NO_SWARM: Json = {
    "NodeID": "",
    "NodeAddr": "",
    "LocalNodeState": "inactive",
    "ControlAvailable": False,
    "Error": "",
    "RemoteManagers": None,
}


class System:
    """`server_id` names the endpoint for as long as its state lives; `root` is where that state is kept."""

    def __init__(
        self,
        store: Store,
        containers: Containers,
        events: Events,
        backends: Mapping[str, Backend],
        default_backend: str,
        *,
        server_id: str,
        root: str,
        insecure_registries: tuple[str, ...] = (),
        mirrors: tuple[str, ...] = (),
    ) -> None:
        self._store = store
        self._containers = containers
        self._events = events
        self._backends = backends
        self._default_backend = default_backend
        self._server_id = server_id
        self._root = root
        self._insecure = insecure_registries
        self._mirrors = mirrors
        self._machine = platform.machine()

    def version(self) -> Json:
        """`docker version`'s server half."""
        about = {
            "ApiVersion": API_VERSION,
            "MinAPIVersion": MIN_API_VERSION,
            "GitCommit": "",
            "GoVersion": "",
            "Os": "linux",
            "Arch": _ARCHITECTURES.get(self._machine, self._machine),
            "KernelVersion": os.uname().release,
            "BuildTime": "",
        }
        details = {**about, "Experimental": "false", "PythonVersion": platform.python_version()}
        return {
            "Platform": {"Name": "Sockerless"},
            "Components": [{"Name": "Engine", "Version": VERSION, "Details": details}],
            "Version": VERSION,
            **about,
        }

    async def status(self, tenant: str | None) -> Json:
        """`sockerless status`, for a tenant, or for the operator with None."""
        return await standing(self._store, self._backends, self._default_backend, tenant)

    async def info(self, tenant: str) -> Json:
        """`docker info`. Counts are the tenant's; machine figures are those the control plane runs on."""
        statuses = [container.state.status for container in await self._containers.list(tenant)]
        running = sum(status in ("running", "restarting") for status in statuses)
        paused = statuses.count("paused")
        return {
            "ID": self._server_id,
            "Containers": len(statuses),
            "ContainersRunning": running,
            "ContainersPaused": paused,
            "ContainersStopped": len(statuses) - running - paused,
            "Images": len(await self._store.list("images", tenant)),
            **self._backends_info(),
            **self._machine_info(),
            **self._registries(),
            "SystemTime": now(),
            "NEventsListener": self._events.listeners(tenant),
            "Name": socket.gethostname(),
            "Swarm": _NO_SWARM,
            "Warnings": None,
        }

    def _backends_info(self) -> Json:
        runtimes = {name: {"path": backend.capabilities.title} for name, backend in sorted(self._backends.items())}
        status = [["Backend", f"{name}: {runtime['path']}"] for name, runtime in runtimes.items()]
        return {
            "Driver": "sockerless",
            "DriverStatus": status,
            "Plugins": {
                "Volume": ["local"],
                "Network": ["bridge", "host", "null"],
                "Authorization": None,
                "Log": ["json-file", "local"],
            },
            "LoggingDriver": "json-file",
            "CgroupDriver": "none",
            "CgroupVersion": "2",
            "Runtimes": runtimes,
            "DefaultRuntime": self._default_backend,
            "InitBinary": "sockerless-agent",
            "ContainerdCommit": {"ID": ""},
            "RuncCommit": {"ID": ""},
            "InitCommit": {"ID": ""},
            "SecurityOptions": [],
            "Isolation": "",
            "LiveRestoreEnabled": True,
            "DockerRootDir": self._root,
        }

    def _machine_info(self) -> Json:
        return {
            "MemoryLimit": True,
            "SwapLimit": False,
            "CpuCfsPeriod": True,
            "CpuCfsQuota": True,
            "CPUShares": False,
            "CPUSet": False,
            "PidsLimit": False,
            "OomKillDisable": False,
            "IPv4Forwarding": True,
            "Debug": False,
            "NFd": -1,
            "NGoroutines": 0,
            "KernelVersion": os.uname().release,
            "OperatingSystem": "Sockerless",
            "OSVersion": VERSION,
            "OSType": "linux",
            "Architecture": self._machine,
            "NCPU": os.cpu_count() or 1,
            "MemTotal": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
            "GenericResources": None,
            "HttpProxy": "",
            "HttpsProxy": "",
            "NoProxy": "",
            "Labels": [f"sockerless.python={sys.version_info.major}.{sys.version_info.minor}"],
            "ExperimentalBuild": False,
            "ServerVersion": VERSION,
            "CDISpecDirs": [],
        }

    def _registries(self) -> Json:
        hub = {"Name": "docker.io", "Mirrors": list(self._mirrors), "Secure": True, "Official": True}
        insecure = {
            name: {"Name": name, "Mirrors": [], "Secure": False, "Official": False}
            for name in self._insecure
            if "/" not in name
        }
        return {
            "IndexServerAddress": "https://index.docker.io/v1/",
            "RegistryConfig": {
                "InsecureRegistryCIDRs": [name for name in self._insecure if "/" in name],
                "IndexConfigs": {"docker.io": hub, **insecure},
                "Mirrors": list(self._mirrors),
            },
        }
