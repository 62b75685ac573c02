"""A Docker request, taken apart."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import parse_qsl, quote, unquote, urlencode

from agent_gateway.asgi import Scope
from agent_gateway.forwarding.connections import Headers
from agent_gateway.forwarding.exchange import forwarded_headers

_ROUTE = re.compile(r"(/v(\d{1,3})\.(\d{1,3}))?(/.*)")
_OF_CONTAINER = re.compile(r"/containers/([^/]+)/([a-z]+)")


@dataclass(frozen=True, slots=True)
class Asked:
    """A Docker request, taken apart."""

    method: str
    prefix: str
    """`/v1.50`, or nothing."""
    version: tuple[int, int]
    path: str
    query: dict[str, str]
    headers: Headers

    @classmethod
    def of(cls, scope: Scope) -> Asked:
        """From an ASGI scope. Of a parameter that comes twice the first counts, as everywhere here."""
        found = _ROUTE.fullmatch(scope["raw_path"].decode("latin-1"))
        prefix, version, path = "", (1, 99), "/"
        if found is not None:
            prefix, path = found[1] or "", found[4]
            if found[1]:
                version = int(found[2]), int(found[3])
        query: dict[str, str] = {}
        for name, value in parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True):
            query.setdefault(name, value)
        return cls(scope["method"], prefix, version, path, query, forwarded_headers(scope["headers"]))

    @property
    def of_container(self) -> tuple[str, str]:
        """Reference and verb of `/containers/{reference}/{verb}`; empty for other paths."""
        found = _OF_CONTAINER.fullmatch(self.path)
        return (unquote(found[1]), found[2]) if found is not None else ("", "")

    def flag(self, name: str) -> bool:
        """A boolean parameter, by Docker's rule."""
        return self.query.get(name, "").strip().lower() not in {"", "0", "no", "false", "none"}

    def target(self, path: str, query: dict[str, str] | None = None) -> str:
        """A path of the same API version."""
        text = urlencode(query or {})
        return self.prefix + path + (f"?{text}" if text else "")

    def container(self, reference: str, verb: str, query: dict[str, str] | None = None) -> str:
        """`/containers/{reference}/{verb}`."""
        return self.target(f"/containers/{quote(reference, safe='')}/{verb}", query)
