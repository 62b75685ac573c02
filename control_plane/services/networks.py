"""Docker's networks: records in this release (what connects containers for real is the cloud's network).

`bridge`, `host` and `none` are there for every tenant without being stored. User networks are stored by name, which
makes names unique; their ids are found among the few that a tenant has.
"""

from __future__ import annotations

import asyncio
import ipaddress
import secrets
from collections.abc import Mapping, Sequence
from typing import Any

from control_plane.errors import Conflict, Forbidden, InvalidParameter, NotFound, NotServed
from control_plane.model import Container, Network
from control_plane.services.endpoints import Endpoints
from control_plane.services.events import Events
from control_plane.services.filters import Filters
from control_plane.services.network_views import attached, default_networks, subnets_of, view
from control_plane.services.records import Records
from control_plane.services.runs import Resolver
from control_plane.services.subnets import check_ipam, check_overlap, completed, free_subnet, free_subnet6
from control_plane.store.base import AlreadyExists, Store
from control_plane.timestamps import nanoseconds, now

_LIST_FILTERS = {"dangling", "driver", "id", "label", "name", "scope", "type"}
_PRUNE_FILTERS = {"label", "label!", "until"}
PREDEFINED = {"bridge", "host", "none", "default"}
_NO_SWARM = (
    'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" '
    "to connect this node to swarm and try again."
)


class Networks:
    """One call per Docker operation. No call leaves the store."""

    def __init__(self, store: Store, containers: Resolver, events: Events) -> None:
        self._records = Records(store, "networks", Network)
        self._containers = Records(store, "containers", Container)
        self._events = events
        endpoints = Endpoints(self._containers, containers, self.resolve, events)
        self.endpoints_for = endpoints.endpoints_for
        self.rejoin = endpoints.rejoin
        self.connect = endpoints.connect
        self.disconnect = endpoints.disconnect
        self._locks: dict[str, asyncio.Lock] = {}
        self._pruning: set[str] = set()

    async def all(self, tenant: str) -> list[Network]:
        """The predefined networks and the tenant's own."""
        return [*default_networks(tenant), *await self._records.list(tenant)]

    async def resolve(self, tenant: str, text: str) -> Network:
        """By id, name or id prefix, in this order. Raises NotFound `network x not found`, InvalidParameter."""
        networks = await self.all(tenant)
        for network in networks:
            if network.id == text:
                return network
        for network in networks:
            if network.name == text:
                return network
        found = [network for network in networks if text and network.id.startswith(text)]
        if len(found) > 1:
            raise InvalidParameter(f"network {text} is ambiguous ({len(found)} matches found based on ID prefix)")
        if not found:
            raise NotFound(f"network {text} not found")
        return found[0]

    async def create(self, tenant: str, body: Mapping[str, Any]) -> Network:
        """`docker network create` with Docker's body. Raises Forbidden, Conflict, InvalidParameter, NotServed."""
        name = str(body.get("Name") or "")
        _check_request(name, body)
        # One subnet at a time; another process is caught by the check after the write.
        async with self._locks.setdefault(tenant, asyncio.Lock()):
            taken = [subnet for network in await self.all(tenant) for subnet in subnets_of(network)]
            network_id = secrets.token_hex(32)
            network = Network(
                id=network_id,
                name=name,
                tenant=tenant,
                created_at=now(),
                body=_body(body, network_id, taken),
            )
            try:
                created = await self._records.create(tenant, name, network)
            except AlreadyExists:
                raise Conflict(f"network with name {name} already exists") from None
            created = await self._without_overlap(created, fixed=bool(_ipam_entries(body)))
        await self._publish(created, "create")
        return created

    async def _without_overlap(self, network: Network, *, fixed: bool) -> Network:
        """Gives way when another process took the same subnet at the same time: the smaller id keeps it."""
        others = [one for one in await self.all(network.tenant) if one.id != network.id]
        mine = subnets_of(network)
        rivals = [
            other
            for other in others
            if any(a.version == b.version and a.overlaps(b) for a in mine for b in subnets_of(other))
        ]
        if not rivals or all(network.id < other.id for other in rivals):
            return network
        if fixed:
            await self._records.delete(network.tenant, network.name)
            check_overlap(mine, [subnet for other in rivals for subnet in subnets_of(other)])
        taken = [subnet for other in others for subnet in subnets_of(other)]
        ipam = {**network.body["IPAM"], "Config": _allocate(network.id, network.body["EnableIPv6"], taken)}
        moved = await self._records.update(
            network.tenant,
            network.name,
            lambda current: current.model_copy(update={"body": {**current.body, "IPAM": ipam}}),
        )
        return moved or network

    async def list(self, tenant: str, filters: Mapping[str, Sequence[str]]) -> list[dict[str, Any]]:
        """Docker's JSON of the networks. Raises InvalidParameter."""
        judged = Filters(filters, _LIST_FILTERS)
        kinds = judged.values("type")
        for kind in kinds:
            if kind not in {"builtin", "custom"}:
                raise InvalidParameter(f"invalid filter: 'type'='{kind}'")
        shown = [
            network
            for network in await self.all(tenant)
            if judged.exact("driver", network.body["Driver"])
            and judged.similar("name", network.name)
            and judged.similar("id", network.id)
            and judged.exact("scope", network.body["Scope"])
            and judged.labels(network.body["Labels"])
            and (not kinds or ("builtin" if network.name in PREDEFINED else "custom") in kinds)
        ]
        if "dangling" in judged:
            dangling = _dangling(judged)
            used = await self._used(tenant)
            shown = [one for one in shown if (one.name not in PREDEFINED and one.name not in used) == dangling]
        return [view(network) for network in shown]

    async def inspect(self, tenant: str, text: str, *, scope: str = "", verbose: bool = False) -> dict[str, Any]:
        """Docker's JSON of a network, with the running containers in it."""
        network = await self.resolve(tenant, text)
        if scope and scope != network.body["Scope"]:
            raise NotFound(f"network {text} not found")
        containers = [one for one in await self._containers.list(tenant) if attached(one, network)]
        return view(network, containers, services=verbose)

    async def remove(self, tenant: str, text: str) -> None:
        """Raises NotFound, and Forbidden for predefined networks and those with running containers."""
        network = await self.resolve(tenant, text)
        if network.name in PREDEFINED:
            raise Forbidden(f"{network.name} is a pre-defined network and cannot be removed")
        endpoints = [
            f'name:"{one.name.removeprefix("/")}" id:"{str(one.networking[network.name].get("EndpointID") or "")[:12]}"'
            for one in await self._containers.list(tenant)
            if attached(one, network)
        ]
        if endpoints:
            raise Forbidden(
                f"error while removing network: network {network.name} has active endpoints ({', '.join(endpoints)})"
            )
        await self._delete(network)

    async def prune(self, tenant: str, filters: Mapping[str, Sequence[str]]) -> dict[str, Any]:
        """`{"NetworksDeleted": names or None}`: networks without running containers."""
        judged = Filters(filters, _PRUNE_FILTERS)
        until = judged.until()
        if tenant in self._pruning:
            raise Conflict("a prune operation is already running")
        self._pruning.add(tenant)
        try:
            used = await self._used(tenant)
            deleted = []
            for network in await self._records.list(tenant):
                if until is not None and nanoseconds(network.created_at) > until:
                    continue
                if network.name in used or not judged.prunable(network.body["Labels"]):
                    continue
                if await self._delete(network):
                    deleted.append(network.name)
        finally:
            self._pruning.discard(tenant)
        await self._events.publish(tenant, "network", "prune", "", {"reclaimed": "0"})
        return {"NetworksDeleted": deleted or None}

    async def _delete(self, network: Network) -> bool:
        if not await self._records.delete(network.tenant, network.name):
            return False
        await self._publish(network, "destroy")
        return True

    async def _used(self, tenant: str) -> set[str]:
        """Names of the networks that running containers are in."""
        networks = {one.name: one for one in await self.all(tenant)}
        return {
            name
            for container in await self._containers.list(tenant)
            for name in container.networking
            if name in networks and attached(container, networks[name])
        }

    async def _publish(self, network: Network, action: str) -> None:
        attributes = {"name": network.name, "type": network.body["Driver"]}
        await self._events.publish(network.tenant, "network", action, network.id, attributes)


def _dangling(filters: Filters) -> bool:
    values = filters.values("dangling")
    if len(values) > 1:
        raise InvalidParameter('got more than one value for filter key "dangling"')
    if values not in (["0"], ["1"], ["false"], ["true"]):
        raise InvalidParameter('invalid value for filter \'dangling\', must be "true" (or "1"), or "false" (or "0")')
    return values[0] in {"1", "true"}


def _check_request(name: str, body: Mapping[str, Any]) -> None:
    """Refuses what is not served, by name."""
    if name in PREDEFINED:
        raise Forbidden(f"operation is not permitted on predefined {name} network ")
    if not name.strip():
        raise InvalidParameter("invalid name: name is empty")
    if len(name) > 255:
        raise InvalidParameter("invalid name: name is longer than 255 characters")
    driver = str(body.get("Driver") or "bridge")
    if driver == "overlay" or body.get("Ingress") or body.get("Scope") == "swarm":
        raise Forbidden(_NO_SWARM)
    if driver in {"host", "null"}:
        raise Forbidden(f'only one instance of "{driver}" network is allowed')
    if driver in {"macvlan", "ipvlan"}:
        raise NotServed(f"{driver} networks need a machine's network card, which cloud containers have not; use bridge")
    if driver != "bridge":
        raise NotFound(f'plugin "{driver}" not found')
    if body.get("ConfigOnly") or (body.get("ConfigFrom") or {}).get("Network"):
        raise NotServed("configuration-only networks are not served; give the settings with the network itself")
    ipam = body.get("IPAM") or {}
    if (ipam.get("Driver") or "default") != "default":
        raise NotFound(f'plugin "{ipam["Driver"]}" not found')
    if body.get("EnableIPv4") is False and not body.get("EnableIPv6"):
        raise InvalidParameter("IPv4 or IPv6 must be enabled")
    check_ipam(_ipam_entries(body), ipv6=bool(body.get("EnableIPv6")))


def _ipam_entries(body: Mapping[str, Any]) -> list[dict[str, Any]]:
    return list((body.get("IPAM") or {}).get("Config") or [])


def _body(body: Mapping[str, Any], network_id: str, taken: list[Any]) -> dict[str, Any]:
    """What is kept: Docker's fields, IPAM completed."""
    ipam = body.get("IPAM") or {}
    ipv6 = bool(body.get("EnableIPv6"))
    ipv4 = body.get("EnableIPv4") is not False
    given = [completed(entry) for entry in _ipam_entries(body)]
    given = [entry for entry in given if ipv6 or ipaddress.ip_network(entry["Subnet"]).version == 4]
    wanted = [ipaddress.ip_network(entry["Subnet"]) for entry in given]
    check_overlap(wanted, taken)
    if ipv4 and not any(subnet.version == 4 for subnet in wanted):
        given.insert(0, completed({"Subnet": str(free_subnet([*taken, *wanted]))}))
    if ipv6 and not any(subnet.version == 6 for subnet in wanted):
        given.append(completed({"Subnet": str(free_subnet6(network_id, [*taken, *wanted]))}))
    return {
        "Driver": "bridge",
        "Scope": "local",
        "EnableIPv4": ipv4,
        "EnableIPv6": ipv6,
        "IPAM": {"Driver": "default", "Options": dict(ipam.get("Options") or {}) or None, "Config": given},
        "Static": [str(subnet) for subnet in wanted],
        "Internal": bool(body.get("Internal")),
        "Attachable": bool(body.get("Attachable")),
        "Options": dict(body.get("Options") or {}),
        "Labels": dict(body.get("Labels") or {}),
    }


def _allocate(network_id: str, ipv6: bool, taken: list[Any]) -> list[dict[str, Any]]:
    found = [completed({"Subnet": str(free_subnet(taken))})]
    if ipv6:
        found.append(completed({"Subnet": str(free_subnet6(network_id, taken))}))
    return found
