"""The tokens between gateways and the control plane, bound to the endpoint's signing key."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agent_gateway import tickets
from control_plane.errors import Unauthorized
from control_plane.model import Container

_AGENT_TOKEN_SECONDS = 400 * 24 * 3600
"""An agent token lives as long as its container may: the longest run of a platform is a week, restarts go on."""


class GatewayAuth:
    """Mints agents' tokens and streams' tickets, and checks gateways' tokens."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def check_gateway(self, authorization: str | None) -> str:
        """The URL of the gateway whose request this is. Raises Unauthorized."""
        try:
            return tickets.verify_gateway_token(self._key, tickets.bearer(authorization or ""))
        except tickets.TicketRefused as refused:
            raise Unauthorized(str(refused)) from None

    def agent_token(self, container: Container) -> str:
        """What the container's agent shows to the gateway."""
        return tickets.mint_agent_token(self._key, container.tenant, container.id, _AGENT_TOKEN_SECONDS)

    def stream_ticket(self, container: Container, kind: str, stream_id: str, params: Mapping[str, Any]) -> str:
        """What opens one stream to the container's agent."""
        return tickets.mint_ticket(self._key, container.tenant, container.id, kind, stream_id, params)
