from __future__ import annotations

import base64
import json

import pytest

from agent_gateway.tickets import (
    Attested,
    GatewayTokens,
    TicketRefused,
    bearer,
    mint_agent_token,
    mint_attestation,
    mint_gateway_token,
    mint_ticket,
    verify_agent_token,
    verify_attestation,
    verify_gateway_token,
    verify_ticket,
)

KEY = b"0" * 32
SID = "a" * 32


def test_each_token_says_what_it_was_minted_for() -> None:
    agent = verify_agent_token(KEY, mint_agent_token(KEY, "t", "c", 10))
    assert (agent.tenant, agent.container) == ("t", "c")
    ticket = verify_ticket(KEY, mint_ticket(KEY, "t", "c", "exec", SID, {"tty": True}), stream=SID)
    assert (ticket.tenant, ticket.container, ticket.kind, ticket.stream) == ("t", "c", "exec", SID)
    assert ticket.params == {"tty": True}
    assert not ticket.expired
    assert verify_gateway_token(KEY, mint_gateway_token(KEY, "http://g", 10)) == "http://g"
    assert verify_gateway_token(KEY, GatewayTokens(KEY, "http://g").current()) == "http://g"


def test_no_token_is_accepted_for_another() -> None:
    agent = mint_agent_token(KEY, "t", "c", 10)
    ticket = mint_ticket(KEY, "t", "c", "exec", SID)
    call = mint_ticket(KEY, "t", "c", "call")
    gateway = mint_gateway_token(KEY, "g", 10)
    client = mint_attestation(KEY, "g", "192.0.2.7", "CN=ci")
    assert verify_attestation(KEY, client) == Attested("g", "192.0.2.7", "CN=ci")
    for token in (ticket, call, gateway, client):
        with pytest.raises(TicketRefused):
            verify_agent_token(KEY, token)
    for token in (agent, call, gateway, client):
        with pytest.raises(TicketRefused):
            verify_ticket(KEY, token, stream=SID)
    for token in (agent, ticket, gateway, client):
        with pytest.raises(TicketRefused):
            verify_ticket(KEY, token)
    for token in (agent, ticket, call, client):
        with pytest.raises(TicketRefused):
            verify_gateway_token(KEY, token)
    for token in (agent, ticket, call, gateway):
        with pytest.raises(TicketRefused):
            verify_attestation(KEY, token)


def test_a_ticket_opens_only_its_stream() -> None:
    with pytest.raises(TicketRefused):
        verify_ticket(KEY, mint_ticket(KEY, "t", "c", "exec", SID), stream="b" * 32)


def test_expiry_has_no_leeway_but_a_redial_may_show_an_old_ticket() -> None:
    old = mint_ticket(KEY, "t", "c", "exec", SID, seconds=-1)
    with pytest.raises(TicketRefused, match="expired"):
        verify_ticket(KEY, old, stream=SID)
    assert verify_ticket(KEY, old, stream=SID, allow_expired=True).expired
    with pytest.raises(TicketRefused):
        verify_agent_token(KEY, mint_agent_token(KEY, "t", "c", -1))


def _part(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


@pytest.mark.parametrize("algorithm", ["none", "HS512", "RS256"])
def test_forgeries_are_refused(algorithm: str) -> None:
    claims = {"typ": "agent", "ten": "t", "cid": "c", "exp": 9999999999}
    for token in (f"{_part({'alg': algorithm})}.{_part(claims)}.", "", "x", "a.b.c", "é"):
        with pytest.raises(TicketRefused):
            verify_agent_token(KEY, token)
    with pytest.raises(TicketRefused):
        verify_agent_token(b"1" * 32, mint_agent_token(KEY, "t", "c", 10))


def test_a_bearer_header_is_wanted() -> None:
    assert bearer("bearer abc ") == "abc"
    for header in ("", "Basic abc", "Bearer", "Bearer "):
        with pytest.raises(TicketRefused):
            bearer(header)
