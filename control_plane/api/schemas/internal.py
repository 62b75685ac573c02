"""Wire types of what gateways and publishers say to the control plane (docs/wire-protocol.md, 7 and 10).

Unknown keys are ignored.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

Name = Annotated[str, Field(min_length=1, max_length=256)]
Number = Annotated[int, Field(ge=0, le=2**31)]


class Message(BaseModel):
    """What every message about a link has."""

    model_config = ConfigDict(extra="ignore")

    tenant: Name
    boot: Name


class AgentHello(Message):
    """`POST …/hello`."""

    gateway: Annotated[str, Field(max_length=2048)] = ""
    instance: Annotated[str, Field(max_length=64)] = ""
    link: Number = 0
    run: Number = 0
    running: bool = False
    token_run: Number = 0
    """The run that the agent's token was made for; 0: any."""
    held: bool | None = None
    """Whether a request holds the platform's instance; None where that is of no concern."""


class AgentEvent(Message):
    """`POST …/events`: the event's own fields stay as they are."""

    model_config = ConfigDict(extra="allow")

    type: Name
    seq: Number = 0
    run: Number = 0
    pid: Number = 0
    code: Annotated[int, Field(ge=-(2**31), le=2**31)] = 0
    failing_streak: Number = 0


class LinkGone(Message):
    """`POST …/gone`."""

    gateway: Annotated[str, Field(max_length=2048)] = ""
    instance: Annotated[str, Field(max_length=64)] = ""
    """Of the gateway's process that had the link."""


class GatewayLease(BaseModel):
    """`PUT /internal/v1/gateways`: the gateway's URL is its token's."""

    model_config = ConfigDict(extra="ignore")

    instance: Annotated[str, Field(min_length=1, max_length=64)]
    load: Number = 0
    draining: bool = False


class TicketRequest(BaseModel):
    """`POST /internal/v1/tickets`: a Docker request to be hijacked."""

    model_config = ConfigDict(extra="ignore")

    method: Name
    path: Annotated[str, Field(max_length=4096)]
    query: Annotated[str, Field(max_length=65536)] = ""
    authorization: Annotated[str, Field(max_length=65536)] | None = None
    certificate: Annotated[str, Field(max_length=512)] = ""
    """Subject of the client's certificate, when the gateway's TLS proxy has verified one."""
    address: Annotated[str, Field(max_length=64)] = ""
    """Of that client, as the proxy says; believed of gateways alone."""
    body: Any = None
    attempt: Annotated[str, Field(max_length=64)] = ""
    """The same in a request that is sent again because its answer was lost, and in no other."""


class PortTaken(BaseModel):
    """A socket that a publisher could not have."""

    model_config = ConfigDict(extra="ignore")

    address: Annotated[str, Field(pattern=r"^[0-9a-fA-F.:\[\]-]{1,80}$")]
    reason: Annotated[str, Field(pattern=r"^[ -~]{1,200}$")]


class PortAddress(BaseModel):
    """Where a publisher listens."""

    model_config = ConfigDict(extra="ignore")

    HostIp: Annotated[str, Field(max_length=45)]
    HostPort: Annotated[str, Field(pattern=r"^[0-9]{1,5}$")]


class PortsOffer(BaseModel):
    """Body of a start or restart, from the publisher."""

    model_config = ConfigDict(extra="ignore")

    publication: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
    ports: Annotated[dict[Annotated[str, Field(max_length=16)], list[PortAddress]], Field(max_length=256)] = Field(
        default_factory=dict
    )
    taken: PortTaken | None = None
