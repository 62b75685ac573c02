"""`NetworkSettings.Networks`: a container's endpoints as Docker shows them, by whether it runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from control_plane.model import ZERO_TIME, Container
from control_plane.services.networks import PREDEFINED
from control_plane.services.subnets import mac_address

Json = dict[str, Any]

_OF_A_RUN: Json = {
    "EndpointID": "",
    "Gateway": "",
    "IPAddress": "",
    "IPPrefixLen": 0,
    "IPv6Gateway": "",
    "GlobalIPv6Address": "",
    "GlobalIPv6PrefixLen": 0,
}
"""What an endpoint has only while its container runs. Its record keeps it for the next run."""


def endpoints_json(container: Container, *, running: bool) -> Json:
    """`Networks` of inspect."""
    return {name: _endpoint(container, name, settings, running) for name, settings in container.networking.items()}


def listed_endpoints_json(container: Container, *, running: bool) -> Json:
    """`Networks` of the list, which has no names."""
    shown = endpoints_json(container, running=running)
    return {name: {**settings, "Aliases": None, "DNSNames": None} for name, settings in shown.items()}


def _endpoint(container: Container, name: str, settings: Mapping[str, Any], running: bool) -> Json:
    started = container.state.started_at != ZERO_TIME
    shown: Json = {**settings, "DNSNames": None}
    if started and name not in PREDEFINED:
        shown["DNSNames"] = _names(container, settings)
    if running:
        return shown
    shown |= _OF_A_RUN
    if not started:
        shown["NetworkID"] = ""
    if settings.get("MacAddress") == mac_address(settings.get("IPAddress", ""), settings.get("EndpointID", "")):
        shown["MacAddress"] = ""  # given by the network, not by the user
    return shown


def _names(container: Container, settings: Mapping[str, Any]) -> list[str]:
    """What the container is called by in a user network, in moby's order."""
    hostname = container.config.get("Hostname") or ""
    names = [container.name, *(settings.get("Aliases") or []), container.id[:12], hostname]
    return list(dict.fromkeys(name for name in names if name))
