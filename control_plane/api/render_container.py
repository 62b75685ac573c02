"""Docker's JSON of a container: inspect, and its line in the list. Pure functions; rendered bytes are kept.

A record never changes without becoming another object, so what was rendered of it holds as long as the object does;
only the list's `Status` text moves with the clock.
"""

from __future__ import annotations

import secrets
import time
import weakref
from collections.abc import Sequence
from typing import Any

import orjson

from control_plane.api.render_endpoints import endpoints_json, listed_endpoints_json
from control_plane.model import ZERO_TIME, Container, Mount, RunState
from control_plane.services.lifecycle import ACTIVE
from control_plane.timestamps import human_duration, nanoseconds

_RUNNING = ("running", "paused", "restarting")
# What is filled in later is found by marks that no text of a user's can hold: they are random and never leave here.
_MARK = secrets.token_hex(16)
_STATUS_MARK, _IMAGE_MARK, _EXECS_MARK = f"{_MARK}-status", f"{_MARK}-image", f"{_MARK}-execs"

Json = dict[str, Any]


def shown_status(state: RunState) -> str:
    """Docker's state word: a start under way shows what was before it."""
    if state.status == "starting":
        return "created" if state.started_at == ZERO_TIME else "exited"
    return state.status


def is_running(state: RunState) -> bool:
    """Docker's `State.Running`: also while paused or between restarts."""
    return state.status in _RUNNING


def status_text(state: RunState, now_ns: int) -> str:
    """The status column: "Up 3 seconds (healthy)", "Exited (0) 2 minutes ago", "Created"."""
    status = shown_status(state)
    if status == "created":
        return "Created"
    if status == "removing":
        return "Removal In Progress"
    if status == "dead":
        return "Dead"
    if status in ("exited", "restarting"):
        ago = human_duration((now_ns - nanoseconds(state.finished_at)) / 1e9)
        return f"{'Exited' if status == 'exited' else 'Restarting'} ({state.exit_code}) {ago} ago"
    up = f"Up {human_duration((now_ns - nanoseconds(state.started_at)) / 1e9)}"
    if status == "paused":
        return f"{up} (Paused)"
    if state.health is not None:
        return f"{up} ({'health: starting' if state.health.status == 'starting' else state.health.status})"
    return up


def command_line(container: Container) -> tuple[str, list[str]]:
    """Docker's `Path` and `Args`."""
    words = [*(container.config.get("Entrypoint") or []), *(container.config.get("Cmd") or [])]
    return (words[0], words[1:]) if words else ("", [])


def mount_json(mount: Mount) -> Json:
    """One entry of `Mounts`."""
    shown: Json = {"Type": mount.type}
    if mount.type == "volume":
        shown["Name"] = mount.name
    shown |= {"Source": mount.source, "Destination": mount.destination}
    if mount.type == "volume":
        shown["Driver"] = "local"
    return shown | {"Mode": mount.mode, "RW": not mount.read_only, "Propagation": mount.propagation}


class _Kept:
    """Rendered pieces of containers, each for as long as somebody has that very record."""

    def __init__(self) -> None:
        self._pieces: dict[str, tuple[weakref.ref[Container], tuple[bytes, ...]]] = {}

    def get(self, container: Container) -> tuple[bytes, ...] | None:
        known = self._pieces.get(container.id)
        return known[1] if known is not None and known[0]() is container else None

    def put(self, container: Container, pieces: tuple[bytes, ...]) -> None:
        key = container.id

        def forget(gone: weakref.ref[Container]) -> None:
            known = self._pieces.get(key)
            if known is not None and known[0] is gone:
                del self._pieces[key]

        self._pieces[key] = (weakref.ref(container, forget), pieces)


class ContainerViews:
    """Renders, and keeps what it has rendered."""

    def __init__(self) -> None:
        self._inspected = _Kept()
        self._listed = _Kept()

    def inspect(self, container: Container, execs: list[str]) -> bytes:
        """The body of `GET /containers/{id}/json`; `execs` are the ids of execs that have not ended."""
        known = self._inspected.get(container)
        if known is None:
            text = orjson.dumps(inspect_json(container), option=orjson.OPT_APPEND_NEWLINE)
            before, _, after = text.partition(_quoted(_EXECS_MARK))
            known = (before, after)
            self._inspected.put(container, known)
        return known[0] + (orjson.dumps(execs) if execs else b"null") + known[1]

    def list_line(self, container: Container, image: str, now_ns: int) -> bytes:
        """One element of `GET /containers/json`."""
        known = self._listed.get(container)
        if known is None:
            text = orjson.dumps(list_json(container))
            before, _, rest = text.partition(_quoted(_IMAGE_MARK))
            middle, _, after = rest.partition(_quoted(_STATUS_MARK))
            known = (before, middle, after)
            self._listed.put(container, known)
        status = status_text(container.state, now_ns).encode()
        return b'%b%b%b"%b"%b' % (known[0], orjson.dumps(image), known[1], status, known[2])

    def list_body(self, containers: Sequence[tuple[Container, str]]) -> bytes:
        """The whole list, of containers with the image text to show."""
        now_ns = time.time_ns()
        line = self.list_line
        return b"[" + b",".join([line(container, image, now_ns) for container, image in containers]) + b"]\n"


def _quoted(mark: str) -> bytes:
    return orjson.dumps(mark)


def list_json(container: Container) -> Json:
    """A line of the list with marks where image and status go. `Image` and `Status` come in this order."""
    path, args = command_line(container)
    words = [f"'{arg}'" if " " in arg else arg for arg in args]
    host: Json = {"NetworkMode": container.host_config.get("NetworkMode", "")}
    if container.host_config.get("Annotations"):
        host["Annotations"] = container.host_config["Annotations"]
    return {
        "Id": container.id,
        "Names": [f"/{container.name}"],
        "Image": _IMAGE_MARK,
        "ImageID": container.image_id,
        "Command": " ".join([path, *words]),
        "Created": nanoseconds(container.created_at) // 1_000_000_000,
        "Ports": listed_ports(container),
        "Labels": container.labels,
        "State": shown_status(container.state),
        "Status": _STATUS_MARK,
        "HostConfig": host,
        "NetworkSettings": {"Networks": listed_endpoints_json(container, running=is_running(container.state))},
        "Mounts": _shown_mounts(container),
    }


def listed_ports(container: Container) -> list[Json]:
    """`Ports` of a running container in the list: what it exposes, and where what it publishes appears."""
    ports: list[Json] = []
    for text, bindings in port_bindings(container).items():
        number, _, protocol = text.partition("/")
        if not number.isdecimal():
            continue
        private: Json = {"PrivatePort": int(number), "Type": protocol}
        if not bindings:
            ports.append(private)
        for binding in bindings or ():
            ports.append({"IP": binding["HostIp"], "PublicPort": int(binding["HostPort"])} | private)
    return ports


def port_bindings(container: Container) -> Json:
    """`NetworkSettings.Ports`; empty unless the container runs."""
    if not is_running(container.state):
        return {}
    exposed = container.config.get("ExposedPorts") or {}
    ports: Json = {text if "/" in text else f"{text}/tcp": None for text in exposed}
    return ports if container.published is None else ports | container.published.ports


def own_json(container: Container) -> Json:
    """Not a field of dockerd's: clients with types of their own pass it over, `docker inspect` shows it."""
    own: Json = {"Backend": container.backend, "RunLimitSeconds": container.run_limit}
    if container.published is not None and container.state.status in ACTIVE:
        # Whose the published ports are: a front door closes its sockets when it is not there any more.
        own["Publication"] = container.published.publication
    return own


def inspect_json(container: Container) -> Json:
    """The inspect document with a mark where `ExecIDs` go."""
    path, args = command_line(container)
    return {
        "Id": container.id,
        "Created": container.created_at,
        "Path": path,
        "Args": args,
        "State": state_json(container.state),
        "Image": container.image_id,
        "ResolvConfPath": "",
        "HostnamePath": "",
        "HostsPath": "",
        "LogPath": "",
        "Name": f"/{container.name}",
        "RestartCount": container.restart_count,
        "Driver": "sockerless",
        "Platform": "linux",
        "MountLabel": "",
        "ProcessLabel": "",
        "AppArmorProfile": "",
        "ExecIDs": _EXECS_MARK,
        "HostConfig": container.host_config,
        "Sockerless": own_json(container),
        "GraphDriver": {"Data": None, "Name": "sockerless"},
        "Mounts": _shown_mounts(container),
        "Config": container.config,
        "NetworkSettings": network_json(container),
    }


def state_json(state: RunState) -> Json:
    """Docker's `State`."""
    shown: Json = {
        "Status": shown_status(state),
        "Running": is_running(state),
        "Paused": state.status == "paused",
        "Restarting": state.status == "restarting",
        "OOMKilled": state.oom_killed,
        "Dead": state.status == "dead",
        "Pid": state.pid if is_running(state) else 0,
        "ExitCode": state.exit_code,
        "Error": state.error,
        "StartedAt": state.started_at,
        "FinishedAt": state.finished_at,
    }
    if state.health is not None:
        shown["Health"] = {
            "Status": state.health.status,
            "FailingStreak": state.health.failing_streak,
            "Log": state.health.log,
        }
    return shown


def network_json(container: Container) -> Json:
    """`NetworkSettings`, with the bridge's fields at the top as old clients read them."""
    networks = endpoints_json(container, running=is_running(container.state))
    bridge = networks.get("bridge") or {}
    return {
        "Bridge": "",
        "SandboxID": "",
        "SandboxKey": "",
        "Ports": port_bindings(container),
        "HairpinMode": False,
        "LinkLocalIPv6Address": "",
        "LinkLocalIPv6PrefixLen": 0,
        "SecondaryIPAddresses": None,
        "SecondaryIPv6Addresses": None,
        "EndpointID": bridge.get("EndpointID", ""),
        "Gateway": bridge.get("Gateway", ""),
        "GlobalIPv6Address": bridge.get("GlobalIPv6Address", ""),
        "GlobalIPv6PrefixLen": bridge.get("GlobalIPv6PrefixLen", 0),
        "IPAddress": bridge.get("IPAddress", ""),
        "IPPrefixLen": bridge.get("IPPrefixLen", 0),
        "IPv6Gateway": bridge.get("IPv6Gateway", ""),
        "MacAddress": bridge.get("MacAddress", ""),
        "Networks": networks,
    }


def _shown_mounts(container: Container) -> list[Json]:
    """moby lists `--mount type=tmpfs` here and `--tmpfs` only in HostConfig."""
    by_option = container.host_config.get("Tmpfs") or {}
    return [
        mount_json(mount) for mount in container.mounts if mount.type != "tmpfs" or mount.destination not in by_option
    ]
