"""Published ports: what create takes, what a start needs of the publisher beside the client, what is recorded.

The machine on which a port appears is the client's: its front door (`sockerless connect`, or `sockerless up`) listens,
and says in its requests that it can (docs/wire-protocol.md, section 10). It states a fact about its own machine; nobody
else acts on it, so it is not proven.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from control_plane.errors import DockerError, InvalidParameter, NotServed, ServerError
from control_plane.model import Container, Published

Json = dict[str, Any]

MOST_BINDINGS = 256
"""Host ports of one container: each is a listening socket or two on the user's machine."""
_PORT = re.compile(r"(\d{1,5})(?:/(tcp|udp|sctp))?", re.IGNORECASE)
_HOST_PORT = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?")
_NO_PUBLISHER = (
    "published ports appear on the machine of the Docker client, and nothing that listens there is on this way in: "
    "use `sockerless connect URL`, or leave out -p and -P"
)
_TCP_ONLY = "only TCP ports can be published: a container's packets reach you as a stream through its agent"
_DISCARDED = "Published ports are discarded when using host network mode"


class PortsWanted(DockerError):
    """428: the publisher is to listen first, and to ask again with what it got. Docker clients never see it."""

    status = 428

    def __init__(self, container: Container, wanted: list[Json]) -> None:
        super().__init__("the container publishes ports: sockets are wanted before it starts")
        self.body = {"message": self.message, "container": container.id, "name": container.name, "ports": wanted}


@dataclass(frozen=True, slots=True)
class Taken:
    """A socket that the publisher could not have."""

    address: str
    reason: str


@dataclass(frozen=True, slots=True)
class Offer:
    """What a publisher says with a start: that it is there; after PortsWanted also what it listens on, or could not."""

    publication: str = ""
    """Random; tells these sockets from those of other machines and times."""
    ports: Mapping[str, list[Json]] = field(default_factory=dict)
    """As `Published.ports`."""
    taken: Taken | None = None


def check_bindings(host: Mapping[str, Any], *, publisher: bool) -> list[str]:
    """HostConfig's bindings at create; gives warnings. Raises InvalidParameter with moby's text, NotServed."""
    bindings: Mapping[str, Any] = host["PortBindings"] or {}
    for port, entries in bindings.items():
        if _number(_PORT.fullmatch(port)) is None:
            raise InvalidParameter(f'invalid port specification: "{port.partition("/")[0]}"')
        for entry in entries or []:
            if entry["HostPort"] and _range(entry["HostPort"]) is None:
                raise InvalidParameter(f'invalid port specification: "{entry["HostPort"]}"')
    if not bindings and not host["PublishAllPorts"]:
        return []
    if host["NetworkMode"] == "host":
        return [_DISCARDED]
    for port, entries in bindings.items():
        if _protocol(port) != "tcp":
            raise NotServed(f"-p {port}: {_TCP_ONLY}")
        for entry in entries or []:
            if _loopbacks(entry["HostIp"]) is None:
                raise NotServed(
                    f"-p {entry['HostIp']}:{entry['HostPort']}:{port}: published ports are served on loopback of the "
                    "client's machine alone; leave the address out, or use 127.0.0.1"
                )
    if not publisher:
        raise NotServed(_NO_PUBLISHER)
    return []


def check_published(config: Mapping[str, Any], host: Mapping[str, Any]) -> list[str]:
    """What `-p` and `-P` come to with the image's ports known; gives warnings. Raises NotServed."""
    count = len(wanted_ports(config, host))
    if count > MOST_BINDINGS:
        raise NotServed(f"{count} published ports: {MOST_BINDINGS} of one container are served at most")
    if not host["PublishAllPorts"] or host["NetworkMode"] == "host":
        return []
    left = [port for port in config["ExposedPorts"] or {} if _protocol(port) != "tcp"]
    return [f"-P leaves out {', '.join(sorted(left))}: {_TCP_ONLY}"] if left else []


def wanted_ports(config: Mapping[str, Any], host: Mapping[str, Any]) -> list[Json]:
    """What is to be listened on: `{"port": "80/tcp", "hosts": [addresses], "first": n, "last": n}`; first 0: any port.

    The addresses of one entry have the same port.
    """
    if host.get("NetworkMode") == "host":
        return []
    wanted: list[Json] = []
    bindings: Mapping[str, Any] = host.get("PortBindings") or {}
    bound = set()
    for port, entries in bindings.items():
        key = _key(port)
        bound.add(key)
        # A port without an entry is published all the same, as in moby.
        for entry in entries or [{"HostIp": "", "HostPort": ""}]:
            first, last = _range(entry.get("HostPort") or "0") or (0, 0)
            hosts = _loopbacks(entry.get("HostIp") or "") or []
            wanted.append({"port": key, "hosts": hosts, "first": first, "last": last})
    if host.get("PublishAllPorts"):
        for key in sorted(_exposed(config.get("ExposedPorts") or {}), key=lambda key: int(key.partition("/")[0])):
            if key not in bound and key.endswith("/tcp"):
                wanted.append({"port": key, "hosts": ["127.0.0.1", "::1"], "first": 0, "last": 0})
    return wanted


def settle(container: Container, offer: Offer | None, *, restarts: bool = False) -> Published | None:
    """What a start by hand records. `restarts`: it is stopped first when it runs.

    Raises NotServed without a publisher, PortsWanted before it has listened, InvalidParameter when it says nonsense.
    """
    wanted = wanted_ports(container.config, container.host_config)
    startable = container.state.status in ("created", "exited") or restarts
    if not wanted or not startable:
        return None
    if offer is None:
        raise NotServed(f"container {container.name} publishes ports: {_NO_PUBLISHER}")
    if offer.taken is not None:
        return None
    if not offer.ports:
        raise PortsWanted(container, wanted)
    ports = {key: [_binding(entry) for entry in entries] for key, entries in offer.ports.items()}
    count = sum(len(entries) for entries in ports.values())
    if set(ports) != {entry["port"] for entry in wanted} or not all(ports.values()) or count > 2 * MOST_BINDINGS:
        raise InvalidParameter("the publisher listens for other ports than the container publishes")
    return Published(publication=offer.publication, ports=ports)


def not_bound(container: Container, taken: Taken) -> ServerError:
    """moby's refusal of a start whose port somebody else has."""
    networks = container.networking.values()
    endpoint = next((network.get("EndpointID") or "" for network in networks), "") or container.id
    return ServerError(
        "failed to set up container networking: driver failed programming external connectivity on endpoint "
        f"{container.name} ({endpoint}): Bind for {taken.address} failed: {taken.reason}"
    )


def is_published(container: Container, port: int) -> bool:
    """Whether a TCP port of a container may be dialled for its publisher."""
    return container.published is not None and f"{port}/tcp" in container.published.ports


def _binding(entry: Any) -> Json:
    host, port = entry.get("HostIp"), entry.get("HostPort")
    try:
        fits = ipaddress.ip_address(host).is_loopback and 1 <= int(port) <= 65535
    except (TypeError, ValueError):
        fits = False
    if not fits:
        raise InvalidParameter("the publisher names an address that is not its machine's loopback")
    return {"HostIp": str(host), "HostPort": str(int(port))}


def _loopbacks(address: str) -> list[str] | None:
    """The loopback addresses that stand for the one asked for; None for one of another network."""
    if not address:
        return ["127.0.0.1", "::1"]
    try:
        asked = ipaddress.ip_address(address)
    except ValueError:
        return None
    if asked.is_unspecified:
        return ["127.0.0.1" if asked.version == 4 else "::1"]
    return [str(asked)] if asked.is_loopback else None


def _number(found: re.Match[str] | None) -> int | None:
    return int(found[1]) if found is not None and 1 <= int(found[1]) <= 65535 else None


def _range(text: str) -> tuple[int, int] | None:
    found = _HOST_PORT.fullmatch(text)
    if found is None:
        return None
    first, last = int(found[1]), int(found[2] or found[1])
    return (first, last) if first <= last <= 65535 else None


def _protocol(port: str) -> str:
    return port.partition("/")[2].lower() or "tcp"


def _key(port: str) -> str:
    return f"{int(port.partition('/')[0])}/{_protocol(port)}"


def _exposed(ports: Iterable[str]) -> set[str]:
    """Each port of `80`, `80/tcp`, `8000-8010/tcp`; no more of them than could be published."""
    found: set[str] = set()
    for text in ports:
        first, last = _range(text.partition("/")[0]) or (1, 0)
        found |= {f"{number}/{_protocol(text)}" for number in range(first, min(last, first + MOST_BINDINGS) + 1)}
    return found
