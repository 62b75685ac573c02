"""Wire types of network requests."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from control_plane.api.schemas.container import EndpointSettings
from control_plane.api.schemas.wire import WireType


class IPAMConfig(WireType):
    """One subnet."""

    Subnet: str = ""
    IPRange: str = ""
    Gateway: str = ""
    AuxiliaryAddresses: dict[str, str] = Field(default_factory=dict)


class Addressing(WireType):
    """IP address management of a network."""

    Driver: str = ""
    Options: dict[str, str] = Field(default_factory=dict)
    # Not assigned: a class attribute `Config` has a meaning of its own to pydantic.
    Config: Annotated[list[IPAMConfig], Field(default_factory=list)]


class BorrowedConfig(WireType):
    """The network that lends its configuration."""

    Network: str = ""


class NetworkCreate(WireType):
    """Body of `POST /networks/create`."""

    Name: str = ""
    Driver: str = ""
    Scope: str = ""
    EnableIPv4: bool | None = None
    EnableIPv6: bool | None = None
    IPAM: Addressing | None = None
    Internal: bool = False
    Attachable: bool = False
    Ingress: bool = False
    ConfigOnly: bool = False
    ConfigFrom: BorrowedConfig | None = None
    Options: dict[str, str] = Field(default_factory=dict)
    Labels: dict[str, str] = Field(default_factory=dict)


class NetworkConnect(WireType):
    """Body of `POST /networks/{id}/connect`."""

    Container: str = ""
    EndpointConfig: EndpointSettings | None = None


class NetworkDisconnect(WireType):
    """Body of `POST /networks/{id}/disconnect`."""

    Container: str = ""
    Force: bool = False
