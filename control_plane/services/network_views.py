"""Networks as Docker shows them, and the three that are always there."""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Iterable
from typing import Any

from control_plane.model import ZERO_TIME, Container, Network
from control_plane.services.subnets import BRIDGE_SUBNET, completed

_ATTACHED = {"running", "paused", "restarting"}


def default_networks(tenant: str) -> list[Network]:
    """`bridge`, `host`, `none`: of every tenant, with the same ids in every process."""
    bridge = completed({"Subnet": BRIDGE_SUBNET})
    options = {
        "com.docker.network.bridge.default_bridge": "true",
        "com.docker.network.bridge.name": "docker0",
        "com.docker.network.driver.mtu": "1500",
    }
    return [
        _default(tenant, "bridge", "bridge", [bridge], options),
        _default(tenant, "host", "host", [], {}),
        _default(tenant, "none", "null", [], {}),
    ]


def _default(tenant: str, name: str, driver: str, config: list[dict[str, Any]], options: dict[str, str]) -> Network:
    body = {
        "Driver": driver,
        "Scope": "local",
        "EnableIPv4": True,
        "EnableIPv6": False,
        "IPAM": {"Driver": "default", "Options": None, "Config": config or None},
        "Static": [entry["Subnet"] for entry in config],
        "Internal": False,
        "Attachable": False,
        "Options": options,
        "Labels": {},
    }
    network_id = hashlib.sha256(f"network/{tenant}/{name}".encode()).hexdigest()
    return Network(id=network_id, name=name, tenant=tenant, created_at=ZERO_TIME, body=body)


def subnets_of(network: Network) -> list[ipaddress.IPv4Network | ipaddress.IPv6Network]:
    """The network's subnets."""
    return [ipaddress.ip_network(entry["Subnet"]) for entry in network.body["IPAM"]["Config"] or []]


def attached(container: Container, network: Network) -> bool:
    """Whether the container counts as an endpoint: it runs, and is of this network."""
    settings = container.networking.get(network.name)
    if settings is None or container.state.status not in _ATTACHED:
        return False
    known = settings.get("NetworkID")
    return not known or known == network.id


def view(network: Network, containers: Iterable[Container] = (), *, services: bool = False) -> dict[str, Any]:
    """Docker's JSON of a network."""
    body = network.body
    shown: dict[str, Any] = {
        "Name": network.name,
        "Id": network.id,
        "Created": network.created_at,
        "Scope": body["Scope"],
        "Driver": body["Driver"],
        "EnableIPv4": body["EnableIPv4"],
        "EnableIPv6": body["EnableIPv6"],
        "IPAM": body["IPAM"],
        "Internal": body["Internal"],
        "Attachable": body["Attachable"],
        "Ingress": False,
        "ConfigFrom": {"Network": ""},
        "ConfigOnly": False,
        "Containers": {one.id: _endpoint(one, network) for one in containers},
        "Options": body["Options"],
        "Labels": body["Labels"],
    }
    if services:
        shown["Services"] = {}
    return shown


def _endpoint(container: Container, network: Network) -> dict[str, str]:
    settings = container.networking[network.name]
    address, address6 = settings.get("IPAddress") or "", settings.get("GlobalIPv6Address") or ""
    return {
        "Name": container.name.removeprefix("/"),
        "EndpointID": settings.get("EndpointID") or "",
        "MacAddress": settings.get("MacAddress") or "",
        "IPv4Address": f"{address}/{settings.get('IPPrefixLen')}" if address else "",
        "IPv6Address": f"{address6}/{settings.get('GlobalIPv6PrefixLen')}" if address6 else "",
    }
