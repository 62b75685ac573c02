"""The tokens between gateways and the control plane, bound to the endpoint's signing key."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agent_gateway import tickets
from control_plane.errors import Unauthorized
from control_plane.model import Container

LASTING = 400 * 24 * 3600.0
"""Of an agent's token where the endpoint may be off for days and its agents wait for it: the embedded one."""
ROTATED = 24 * 3600.0
"""Where a gateway is always there to renew it over the link."""


class GatewayAuth:
    """Mints agents' tokens and streams' tickets, and checks gateways' tokens."""

    def __init__(self, key: bytes, agent_token_seconds: float = LASTING) -> None:
        self._key = key
        self._agent_token_seconds = agent_token_seconds

    def check_gateway(self, authorization: str | None) -> str:
        """The URL of the gateway whose request this is. Raises Unauthorized."""
        try:
            return tickets.verify_gateway_token(self._key, tickets.bearer(authorization or ""))
        except tickets.TicketRefused as refused:
            raise Unauthorized(str(refused)) from None

    def check_attestation(self, token: str) -> tickets.Attested:
        """The client that a gateway vouches for. Raises Unauthorized."""
        try:
            return tickets.verify_attestation(self._key, token)
        except tickets.TicketRefused as refused:
            raise Unauthorized(str(refused)) from None

    def agent_token(self, container: Container) -> str:
        """What the container's agent shows to the gateway: for its present run, or (before the first) for any."""
        return tickets.mint_agent_token(
            self._key, container.tenant, container.id, self._agent_token_seconds, container.state.run
        )

    def renewed_token(self, container: Container) -> str:
        """The next one of an agent whose link is up; empty where tokens are not rotated."""
        return self.agent_token(container) if self._agent_token_seconds < LASTING else ""

    def check_stream(self, authorization: str | None, stream_id: str) -> tuple[str, str]:
        """Tenant and container of a stream whose ticket is shown; it may have expired. Raises Unauthorized."""
        try:
            token = tickets.bearer(authorization or "")
            ticket = tickets.verify_ticket(self._key, token, stream=stream_id, allow_expired=True)
        except tickets.TicketRefused as refused:
            raise Unauthorized(str(refused)) from None
        return ticket.tenant, ticket.container

    def stream_ticket(self, container: Container, kind: str, stream_id: str, params: Mapping[str, Any]) -> str:
        """What opens one stream to the container's agent."""
        return tickets.mint_ticket(self._key, container.tenant, container.id, kind, stream_id, params)
