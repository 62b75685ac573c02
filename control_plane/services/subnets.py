"""IP address management of networks that are records: subnets without overlap, addresses in them.

Fact source: libnetwork's default address pools and IPAM checks, with their texts.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Iterable, Mapping
from typing import Any

from control_plane.errors import Forbidden, InvalidParameter, ServerError

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_POOLS: tuple[tuple[str, int], ...] = (
    ("172.17.0.0/16", 16),
    ("172.18.0.0/16", 16),
    ("172.19.0.0/16", 16),
    ("172.20.0.0/14", 16),
    ("172.24.0.0/14", 16),
    ("172.28.0.0/14", 16),
    ("192.168.0.0/16", 20),
)
BRIDGE_SUBNET = "172.17.0.0/16"
_SEARCH_LIMIT = 100_000


def free_subnet(taken: Iterable[Network]) -> ipaddress.IPv4Network:
    """The first of Docker's default subnets that overlaps none. Raises InvalidParameter when all are used."""
    used = [network for network in taken if isinstance(network, ipaddress.IPv4Network)]
    for base, size in _POOLS:
        for subnet in ipaddress.IPv4Network(base).subnets(new_prefix=size):
            if not any(subnet.overlaps(other) for other in used):
                return subnet
    raise InvalidParameter("all predefined address pools have been fully subnetted")


def free_subnet6(seed: str, taken: Iterable[Network]) -> ipaddress.IPv6Network:
    """A unique local /64 made from the network's id."""
    used = [network for network in taken if isinstance(network, ipaddress.IPv6Network)]
    for attempt in range(16):
        digest = hashlib.sha256(f"{seed}/{attempt}".encode()).digest()
        subnet = ipaddress.IPv6Network((b"\xfd" + digest[:7] + bytes(8), 64))
        if not any(subnet.overlaps(other) for other in used):
            return subnet
    raise InvalidParameter("all predefined address pools have been fully subnetted")


def check_ipam(config: Iterable[Mapping[str, Any]], *, ipv6: bool) -> None:
    """Judges the IPAM entries of a create request. Raises InvalidParameter, all faults in one text as moby has it."""
    faults: list[str] = []
    for entry in config:
        faults += _faults(entry, ipv6)
    if len(faults) == 1:
        raise InvalidParameter(f"invalid network config:\n{faults[0]}")
    if faults:
        raise InvalidParameter("invalid network config:\n* " + "\n* ".join(faults))


def _faults(entry: Mapping[str, Any], ipv6: bool) -> list[str]:
    text = str(entry.get("Subnet") or "")
    try:
        if "/" not in text:
            raise ValueError
        subnet = ipaddress.ip_network(text, strict=False)
    except ValueError:
        return [f"invalid subnet {text}: invalid CIDR block notation"]
    if subnet.version == 6 and not ipv6:
        return []
    faults = []
    if str(subnet) != _canonical(text):
        faults.append(f"invalid subnet {text}: it should be {subnet}")
    faults += _range_faults(str(entry.get("IPRange") or ""), subnet)
    gateway = str(entry.get("Gateway") or "")
    if fault := _address_fault(gateway, subnet):
        faults.append(f"invalid gateway {gateway}: {fault}")
    auxiliary = entry.get("AuxiliaryAddresses") or {}
    for name, address in auxiliary.items():
        if fault := _address_fault(str(address), subnet):
            faults.append(f"invalid auxiliary address {name}: {fault}")
    return faults


def _canonical(text: str) -> str:
    address, _, bits = text.partition("/")
    return f"{ipaddress.ip_address(address)}/{bits}"


def _range_faults(text: str, subnet: Network) -> list[str]:
    if not text:
        return []
    try:
        if "/" not in text:
            raise ValueError
        found = ipaddress.ip_network(text, strict=False)
    except ValueError:
        return [f"invalid ip-range {text}: invalid CIDR block notation"]
    if found.version != subnet.version:
        return [f"invalid ip-range {text}: parent subnet is an IPv{subnet.version} block"]
    faults = []
    if found.prefixlen < subnet.prefixlen:
        faults.append(f"invalid ip-range {text}: CIDR block is bigger than its parent subnet {subnet}")
    if str(found) != _canonical(text):
        faults.append(f"invalid ip-range {text}: it should be {found}")
    if not found.overlaps(subnet):
        faults.append(f"invalid ip-range {text}: parent subnet {subnet} doesn't contain ip-range")
    return faults


def _address_fault(text: str, subnet: Network) -> str:
    if not text:
        return ""
    address = parse_address(text)
    if address is None:
        return "invalid address"
    if address.version != subnet.version:
        return f"parent subnet is an IPv{subnet.version} block"
    return "" if address in subnet else f"parent subnet {subnet} doesn't contain this address"


def parse_address(text: str) -> Address | None:
    """An address, None for anything else."""
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def check_overlap(wanted: Iterable[Network], taken: Iterable[Network]) -> None:
    """Raises Forbidden `Pool overlaps with other one on this address space`."""
    known = list(taken)
    for subnet in wanted:
        for other in known:
            if subnet.version == other.version and subnet.overlaps(other):
                raise Forbidden("invalid pool request: Pool overlaps with other one on this address space")
        known.append(subnet)


def completed(entry: Mapping[str, Any]) -> dict[str, Any]:
    """An IPAM entry with its gateway: the first address when none was given."""
    subnet = ipaddress.ip_network(str(entry["Subnet"]))
    gateway = str(entry.get("Gateway") or "") or str(subnet.network_address + 1)
    return {**{key: value for key, value in entry.items() if value}, "Gateway": gateway}


def free_address(entry: Mapping[str, Any], used: Iterable[str]) -> str:
    """The first address of the entry's range that nobody has. Raises ServerError when there is none."""
    subnet = ipaddress.ip_network(str(entry["Subnet"]))
    pool = ipaddress.ip_network(str(entry.get("IPRange") or subnet), strict=False)
    reserved = {str(subnet.network_address), str(entry.get("Gateway") or ""), *used}
    reserved |= {str(address) for address in (entry.get("AuxiliaryAddresses") or {}).values()}
    if subnet.version == 4:
        reserved.add(str(subnet.broadcast_address))
    first = int(pool.network_address)
    for offset in range(min(pool.num_addresses, _SEARCH_LIMIT)):
        address = str(type(pool.network_address)(first + offset))
        if address not in reserved:
            return address
    raise ServerError("no available IPv4 addresses on this network's address pools")


def mac_address(address: str, seed: str) -> str:
    """`02:42:ac:11:00:02` for 172.17.0.2; from the seed for an endpoint without IPv4 address."""
    found = parse_address(address)
    tail = found.packed if isinstance(found, ipaddress.IPv4Address) else hashlib.sha256(seed.encode()).digest()[:4]
    return ":".join(f"{byte:02x}" for byte in b"\x02\x42" + tail)
