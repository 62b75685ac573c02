"""A container's place in networks: addresses, connect, disconnect. Records, as the networks are.

Addresses are first free ones by the containers' documents; those handed out a moment ago, whose container may not be
on record yet, are remembered in this process.
"""

from __future__ import annotations

import ipaddress
import re
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from control_plane.errors import Conflict, DockerError, Forbidden, InvalidParameter, NotFound, ServerError
from control_plane.model import Container, Network
from control_plane.services.events import Events
from control_plane.services.lifecycle import never_started
from control_plane.services.network_views import subnets_of
from control_plane.services.records import Records
from control_plane.services.runs import Resolver
from control_plane.services.subnets import free_address, mac_address, parse_address

Json = dict[str, Any]
FindNetwork = Callable[[str, str], Awaitable[Network]]

_SHARED = "container sharing network namespace with another container or host cannot be connected to any other network"
_REMEMBERED_SECONDS = 60.0
_NOT_USER_DEFINED = {"bridge", "host", "none"}
_RUNNING = {"running", "paused", "restarting", "starting"}
_mac = re.compile(r"[0-9a-fA-F]{2}([:-][0-9a-fA-F]{2}){5}")


class Endpoints:
    """Joins containers to networks."""

    def __init__(self, containers: Records[Container], resolver: Resolver, find: FindNetwork, events: Events) -> None:
        self._containers = containers
        self._resolver = resolver
        self._find = find
        self._events = events
        self._handed: dict[tuple[str, str], dict[str, float]] = {}

    async def endpoints_for(self, tenant: str, network_mode: str, endpoints_config: Mapping[str, Any]) -> Json:
        """`NetworkSettings.Networks` of a new container: its mode's network, or those it names.

        A network that is not there (yet) is looked for at the start, as moby does. Raises InvalidParameter for
        settings that a network can't have.
        """
        if network_mode.startswith("container:"):
            return {}
        mode = "bridge" if network_mode in {"", "default"} else network_mode
        wanted: Json = {}
        for name, settings in endpoints_config.items():
            wanted["bridge" if name == "default" else name] = settings or {}
        networks: Json = {}
        for name, settings in (wanted or {mode: {}}).items():
            try:
                network = await self._find(tenant, name)
            except NotFound:
                networks[name] = _unjoined(settings)
            else:
                networks[network.name] = await self._joined(tenant, network, settings)
        _check_mix(networks)
        return networks

    async def rejoin(self, container: Container) -> None:
        """Before a start: the networks must be there; one made since, or made anew, is joined now. Raises NotFound."""
        joined: Json = {}
        for name, settings in container.networking.items():
            known = settings.get("NetworkID") or ""
            if known and name in _NOT_USER_DEFINED:
                continue
            try:
                network = await self._find(container.tenant, name if never_started(container) else known or name)
            except NotFound as error:
                raise NotFound(f"failed to set up container networking: {error.message}") from None
            if network.id != known:
                joined[name] = await self._joined(container.tenant, network, settings)
        if joined:
            await self._changed(
                container,
                lambda current: current.model_copy(update={"networking": {**current.networking, **joined}}),
            )

    async def _joined(self, tenant: str, network: Network, settings: Mapping[str, Any]) -> Json:
        try:
            _check_settings(network, settings)
        except InvalidParameter as error:
            raise InvalidParameter(f"invalid config for network {network.name}: {error.message}") from None
        return await self._settings(tenant, network, settings)

    async def connect(self, tenant: str, network_text: str, container_text: str, settings: Mapping[str, Any]) -> None:
        """`docker network connect`. Raises NotFound, InvalidParameter, Forbidden, Conflict with moby's texts."""
        container = await self._resolver.resolve(tenant, container_text)
        network = await self._find(tenant, network_text)
        _check_settings(network, settings)
        endpoint = await self._settings(tenant, network, settings)

        def join(current: Container) -> Container | None:
            _check_removal(current)
            if current.host_config.get("NetworkMode") != "host" and network.name == "host":
                raise InvalidParameter(
                    "cannot connect container to host network - container must be created in host network mode"
                )
            if network.name in current.networking:
                if current.state.status in _RUNNING:
                    raise Forbidden(f"endpoint with name {container.name} already exists in network {network.name}")
                return None
            joined = {**current.networking, network.name: endpoint}
            _check_mix(joined, current.host_config.get("NetworkMode") or "")
            return current.model_copy(update={"networking": joined})

        await self._changed(container, join)
        await self._publish(network, container, "connect")

    async def disconnect(self, tenant: str, network_text: str, container_text: str, *, force: bool) -> None:
        """`docker network disconnect`. With force also from a network that is gone."""
        try:
            container = await self._resolver.resolve(tenant, container_text)
        except NotFound:
            if force:
                raise NotFound(f"endpoint {container_text} not found") from None
            raise
        network: Network | None = None
        try:
            network = await self._find(tenant, network_text)
        except DockerError:
            if not force and container.state.status in _RUNNING:
                raise
        name = network.name if network is not None else network_text

        def leave(current: Container) -> Container:
            _check_removal(current)
            if name == "host" and current.host_config.get("NetworkMode") == "host":
                raise InvalidParameter(
                    "cannot disconnect container from host network - container was created in host network mode"
                )
            if name not in current.networking:
                raise ServerError(f"container {current.id} is not connected to network {name}")
            left = {key: settings for key, settings in current.networking.items() if key != name}
            return current.model_copy(update={"networking": left})

        await self._changed(container, leave)
        if network is not None:
            await self._publish(network, container, "disconnect")

    async def _changed(self, container: Container, change: Callable[[Container], Container | None]) -> None:
        if await self._containers.update(container.tenant, container.id, change) is None:
            raise NotFound(f"No such container: {container.id}")

    async def _publish(self, network: Network, container: Container, action: str) -> None:
        attributes = {"container": container.id, "name": network.name, "type": network.body["Driver"]}
        await self._events.publish(network.tenant, "network", action, network.id, attributes)

    async def _settings(self, tenant: str, network: Network, given: Mapping[str, Any]) -> Json:
        """Docker's EndpointSettings, complete."""
        endpoint_id = secrets.token_hex(32)
        used = await self._used(tenant, network)
        ipam = given.get("IPAMConfig") or {}
        settings = {**_unjoined(given), "NetworkID": network.id, "EndpointID": endpoint_id, "MacAddress": ""}
        for entry in network.body["IPAM"]["Config"] or []:
            self._place(tenant, network, entry, ipam, used, settings)
        if network.body["IPAM"]["Config"]:
            settings["MacAddress"] = given.get("MacAddress") or mac_address(settings["IPAddress"], endpoint_id)
        return settings

    def _place(
        self,
        tenant: str,
        network: Network,
        entry: Mapping[str, Any],
        ipam: Mapping[str, Any],
        used: set[str],
        settings: Json,
    ) -> None:
        """An address of one subnet; the first subnet of a family counts."""
        subnet = ipaddress.ip_network(entry["Subnet"])
        family = ("IPAddress", "IPPrefixLen", "Gateway", "IPv4Address")
        if subnet.version == 6:
            family = ("GlobalIPv6Address", "GlobalIPv6PrefixLen", "IPv6Gateway", "IPv6Address")
        address_key, length_key, gateway_key, wanted_key = family
        wanted = parse_address(str(ipam.get(wanted_key) or ""))
        if settings[address_key] or (wanted is not None and wanted not in subnet):
            return
        if wanted is not None and (str(wanted) in used or str(wanted) == entry.get("Gateway")):
            raise Forbidden("Address already in use")
        address = str(wanted) if wanted is not None else free_address(entry, used)
        used.add(address)
        self._handed.setdefault((tenant, network.id), {})[address] = time.monotonic() + _REMEMBERED_SECONDS
        settings[address_key], settings[length_key] = address, subnet.prefixlen
        settings[gateway_key] = entry.get("Gateway") or ""

    async def _used(self, tenant: str, network: Network) -> set[str]:
        if not network.body["IPAM"]["Config"]:
            return set()
        used: set[str] = set()
        for container in await self._containers.list(tenant):
            settings = container.networking.get(network.name)
            if settings is not None and settings.get("NetworkID") in {None, "", network.id}:
                used |= {settings.get("IPAddress") or "", settings.get("GlobalIPv6Address") or ""}
        moment = time.monotonic()
        handed = {
            address: until for address, until in self._handed.get((tenant, network.id), {}).items() if until > moment
        }
        if handed:
            self._handed[tenant, network.id] = handed
        else:
            self._handed.pop((tenant, network.id), None)
        return used | set(handed)


def _unjoined(given: Mapping[str, Any]) -> Json:
    """EndpointSettings as the user gave them, of a network that is not known."""
    return {
        "IPAMConfig": given.get("IPAMConfig"),
        "Links": given.get("Links"),
        "Aliases": given.get("Aliases"),
        "MacAddress": given.get("MacAddress") or "",
        "DriverOpts": given.get("DriverOpts"),
        "GwPriority": given.get("GwPriority") or 0,
        "NetworkID": "",
        "EndpointID": "",
        "Gateway": "",
        "IPAddress": "",
        "IPPrefixLen": 0,
        "IPv6Gateway": "",
        "GlobalIPv6Address": "",
        "GlobalIPv6PrefixLen": 0,
        "DNSNames": None,
    }


def _check_removal(container: Container) -> None:
    if container.state.status in {"removing", "dead"}:
        raise Conflict(
            f"Container {container.id} is marked for removal and cannot be connected or disconnected to the network"
        )


def _check_mix(networks: Mapping[str, Any], mode: str = "") -> None:
    """Host, none and another container's network stand alone."""
    if len(networks) > 1 and ("host" in networks or mode.startswith("container:")):
        raise InvalidParameter(_SHARED)
    if networks and mode.startswith("container:"):
        raise InvalidParameter(_SHARED)
    if len(networks) > 1 and "none" in networks:
        raise InvalidParameter(
            "container cannot be connected to multiple networks with one of the networks in private (none) mode"
        )


def _check_settings(network: Network, settings: Mapping[str, Any]) -> None:
    """Raises InvalidParameter `invalid endpoint settings:` with all faults, as moby has them."""
    ipam = settings.get("IPAMConfig") or {}
    faults: list[str] = []
    static = [str(ipam[key]) for key in ("IPv4Address", "IPv6Address") if ipam.get(key)]
    if network.name in _NOT_USER_DEFINED:
        if static:
            faults.append("user specified IP address is supported on user defined networks only")
        if settings.get("Aliases"):
            faults.append("network-scoped alias is supported only for containers in user defined networks")
    for version, key in ((4, "IPv4Address"), (6, "IPv6Address")):
        text = str(ipam.get(key) or "")
        found = parse_address(text)
        if text and (found is None or found.version != version or found.is_unspecified):
            faults.append(f"invalid IPv{version} address: {text}")
    for text in ipam.get("LinkLocalIPs") or []:
        found = parse_address(str(text))
        if found is None or found.is_unspecified:
            faults.append(f"invalid link-local IP address: {text}")
    faults += [fault for text in static if (fault := _static_fault(network, text))]
    mac = str(settings.get("MacAddress") or "")
    if mac and not _mac.fullmatch(mac):
        raise InvalidParameter(f"invalid MAC address {mac}")
    if faults:
        text = faults[0] if len(faults) == 1 else "* " + "\n* ".join(faults)
        raise InvalidParameter(f"invalid endpoint settings:\n{text}")


def _static_fault(network: Network, text: str) -> str:
    address = parse_address(text)
    configured = [ipaddress.ip_network(subnet) for subnet in network.body.get("Static") or []]
    known = [subnet for subnet in subnets_of(network) if subnet in configured]
    if address is not None:
        known = [subnet for subnet in known if subnet.version == address.version]
    if not known:
        return "user specified IP address is supported only when connecting to networks with user configured subnets"
    if address is None or not any(address in subnet for subnet in known):
        return f"no configured subnet or ip-range contain the IP address {text}"
    return ""
