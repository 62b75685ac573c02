"""Where a registry is reached: mirrors of Docker Hub, insecure registries, and what may not be reached at all.

`--registry-mirror` and `--insecure-registry` mean what they mean to dockerd; loopback is insecure by default.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import urlsplit

from control_plane.errors import InvalidParameter
from control_plane.registry.base import RegistryError
from control_plane.registry.reference import DEFAULT_DOMAIN, DOMAIN

_HUB = "https://registry-1.docker.io"
_HUB_NAMES = {DEFAULT_DOMAIN, "index.docker.io"}
_domain = re.compile(DOMAIN, re.ASCII)

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One way to a registry: `url` without trailing slash."""

    url: str
    mirror: bool = False
    insecure: bool = False

    @property
    def host(self) -> str:
        """`host[:port]`."""
        return urlsplit(self.url).netloc


class RegistryPolicy:
    """Mirrors and insecure registries, parsed once. Raises InvalidParameter with dockerd's texts."""

    def __init__(
        self, mirrors: Iterable[str] = (), insecure: Iterable[str] = (), *, insecure_loopback: bool = True
    ) -> None:
        self._mirrors = list(dict.fromkeys(_mirror(text) for text in mirrors))
        self._networks: list[Network] = []
        self._hosts: set[str] = set()
        loopback = ["127.0.0.0/8", "::1/128"] if insecure_loopback else []
        for text in [*insecure, *loopback]:
            self._add_insecure(text)

    def _add_insecure(self, text: str) -> None:
        bare = re.sub(r"^https?://", "", text, flags=re.IGNORECASE)
        if "://" in bare:
            raise InvalidParameter(f"insecure registry {text} should not contain '://'")
        if bare.startswith("-") or bare.endswith("-"):
            raise InvalidParameter(f"invalid index name ({bare}). Cannot begin or end with a hyphen")
        if "/" in bare:
            try:
                self._networks.append(ipaddress.ip_network(bare, strict=False))
                return
            except ValueError:
                pass
        if not _domain.fullmatch(bare) and _address(bare) is None:
            raise InvalidParameter(f'insecure registry {text} is not valid: invalid host "{bare}"')
        self._hosts.add(bare)

    async def endpoints(self, domain: str, *, mirrors: bool = True) -> list[Endpoint]:
        """The endpoints to try, in order. Raises RegistryError for an address that is never a registry."""
        if domain in _HUB_NAMES:
            found = [await self._mirror_endpoint(url) for url in self._mirrors] if mirrors else []
            return [*found, Endpoint(_HUB)]
        if await self.insecure(domain):
            return [Endpoint(f"https://{domain}", insecure=True), Endpoint(f"http://{domain}", insecure=True)]
        return [Endpoint(f"https://{domain}")]

    async def _mirror_endpoint(self, url: str) -> Endpoint:
        # The operator chose the mirror, and its scheme with it.
        insecure = url.startswith("http://") or await self.insecure(urlsplit(url).netloc)
        return Endpoint(url, mirror=True, insecure=insecure)

    async def insecure(self, host: str) -> bool:
        """Whether plain HTTP and unknown certificates are accepted of `host[:port]`.

        Raises RegistryError for link-local addresses (a cloud's metadata service) that nobody configured.
        """
        if host in self._hosts:
            return True
        addresses = await _addresses(host)
        if any(address in network for address in addresses for network in self._networks):
            return True
        if any(address.is_link_local or address.is_multicast or address.is_unspecified for address in addresses):
            raise RegistryError(f"{host} is not a registry's address")
        return False


def _mirror(text: str) -> str:
    parts = urlsplit(text)
    if "://" not in text or not parts.scheme:
        raise InvalidParameter(
            f"invalid mirror: no scheme specified for \"{text}\": must use either 'https://' or 'http://'"
        )
    if parts.scheme not in {"http", "https"}:
        raise InvalidParameter(
            f'invalid mirror: unsupported scheme "{parts.scheme}" in "{text}": '
            "must use either 'https://' or 'http://'"
        )
    if parts.query or parts.fragment:
        raise InvalidParameter(f'invalid mirror: query or fragment at end of the URI "{text}"')
    if parts.username is not None:
        raise InvalidParameter("invalid mirror: username/password not allowed in URI")
    if not parts.netloc:
        raise InvalidParameter(f'invalid mirror: "{text}" is not a valid URI')
    return text.rstrip("/")


def split_port(host: str) -> tuple[str, int | None]:
    """`[::1]:5000` → (`::1`, 5000)."""
    if host.startswith("["):
        name, _, rest = host[1:].partition("]")
        port = rest.removeprefix(":")
    else:
        name, _, port = host.partition(":")
    return name, int(port) if port.isdigit() else None


def _address(text: str) -> Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


async def _addresses(host: str) -> list[Address]:
    name, _ = split_port(host)
    literal = _address(name)
    if literal is not None:
        return [_plain(literal)]
    try:
        rows = await asyncio.get_running_loop().getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        # Not resolvable: no match, as in dockerd; the connection will say why.
        return []
    return [_plain(found) for row in rows if (found := _address(str(row[4][0]).partition("%")[0])) is not None]


def _plain(address: Address) -> Address:
    """An IPv4 address hidden in IPv6 is judged as what it is."""
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address
