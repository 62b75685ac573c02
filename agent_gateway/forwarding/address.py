"""Where a control plane is, and how to get there."""

from __future__ import annotations

import ssl
import urllib.request
from dataclasses import dataclass
from urllib.parse import urlsplit

from agent_gateway.faults import CannotConnect, reason


@dataclass(frozen=True, slots=True)
class Address:
    """Of a control plane, or of the front end before it."""

    url: str
    """`https://host[:port][/prefix]`, without a slash at its end."""
    ca: str = ""
    """A file of certificates that are trusted in place of the system's."""

    @classmethod
    def parse(cls, url: str, ca: str = "", *, allow_http: bool = False) -> Address:
        """Raises CannotConnect. Plain http carries the token for everybody to read: loopback only."""
        try:
            parts = urlsplit(url)
            host, _ = parts.hostname, parts.port
        except ValueError as error:
            raise CannotConnect(f"{url}: {error}") from None
        if parts.scheme not in ("https", "http") or not host or parts.query or parts.fragment or parts.username:
            raise CannotConnect(f"{url or 'no URL'}: https://HOST[:PORT][/PREFIX] is wanted")
        if parts.scheme == "http" and not allow_http and not is_loopback(host):
            raise CannotConnect(f"{url}: refused, because http:// would show your token to the network; use https://")
        return cls(url.rstrip("/"), ca)

    def tls(self) -> ssl.SSLContext:
        """A new context (HTTP libraries write their ALPN into it). Raises CannotConnect."""
        try:
            return ssl.create_default_context(cafile=self.ca or None)
        except (OSError, ssl.SSLError) as error:
            raise CannotConnect(f"the certificates in {self.ca} cannot be read: {reason(error)}") from None


def is_loopback(host: str) -> bool:
    """Whether a host name or address is this machine's own."""
    import ipaddress

    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def proxy_for(url: str) -> str | None:
    """What `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY` say about a URL."""
    parts = urlsplit(url)
    proxies = urllib.request.getproxies()
    scheme = {"wss": "https", "ws": "http"}.get(parts.scheme, parts.scheme)
    proxy = proxies.get(scheme) or proxies.get("all")
    if not proxy or not parts.hostname or is_loopback(parts.hostname) or urllib.request.proxy_bypass(parts.netloc):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"
