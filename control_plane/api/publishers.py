"""What a front door beside the user says of itself in requests: that it can listen for published ports, and where."""

from __future__ import annotations

from control_plane.api.http import DockerRequest
from control_plane.api.schemas.internal import PortsOffer
from control_plane.services.published_ports import Offer, Taken

_HEADER = "x-sockerless-publisher"
_PORTS_TYPE = "application/vnd.sockerless.ports+json"


def has_publisher(request: DockerRequest) -> bool:
    """Whether the request came through a front door that can listen."""
    return _HEADER in request.headers


def says_ports(request: DockerRequest) -> bool:
    """Whether the body is the publisher's, and not the client's."""
    return has_publisher(request) and request.headers.get("content-type") == _PORTS_TYPE


async def ports_offer(request: DockerRequest) -> Offer | None:
    """What the publisher says with a start. None: there is none. Raises InvalidParameter."""
    if not has_publisher(request):
        return None
    if not says_ports(request):
        return Offer()
    said = await request.parse(PortsOffer)
    taken = None if said.taken is None else Taken(said.taken.address, said.taken.reason)
    ports = {key: [entry.model_dump() for entry in entries] for key, entries in said.ports.items()}
    return Offer(said.publication, ports, taken)
