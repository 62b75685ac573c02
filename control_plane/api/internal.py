"""What gateways ask and report: tickets for hijacked requests, and the life of agents' links."""

from __future__ import annotations

from starlette.responses import Response

from control_plane.api.http import DockerRequest, empty, json_response
from control_plane.api.schemas.internal import AgentEvent, AgentHello, LinkGone, Message, TicketRequest
from control_plane.auth.gate import StreamAsked
from control_plane.route import Route
from control_plane.services.attachments import HijackRequest

_DIAL = "a published port is dialled with a ticket: this path is what the ticket is asked for"

ROUTES = (
    Route("POST", "/internal/v1/tickets", "internal.tickets"),
    Route("POST", "/internal/v1/containers/{id}/dial", served_by="front_door", reason=_DIAL, scope="run"),
    Route("POST", "/internal/v1/links/{container_id}/hello", "internal.hello"),
    Route("POST", "/internal/v1/links/{container_id}/events", "internal.events"),
    Route("POST", "/internal/v1/links/{container_id}/gone", "internal.gone"),
    Route("POST", "/internal/v1/links/{container_id}/token", "internal.token"),
    Route("PUT", "/internal/v1/gateways", "internal_gateways.register"),
    Route("DELETE", "/internal/v1/gateways", "internal_gateways.deregister"),
    Route("POST", "/internal/v1/streams/{stream_id}/relay", "internal_gateways.relay"),
)


def _check_gateway(request: DockerRequest) -> None:
    request.services.links.check_gateway(request.headers.get("authorization"))


async def tickets(request: DockerRequest) -> Response:
    """200 with the stream's ticket, or Docker's refusal for the client.

    A gateway asks for its client, whose `authorization` it passes on; a connector with its user's own token.
    """
    asking = await request.gate.who_asks(request.raw.scope, request.services.links.check_gateway)
    asked = await request.parse(TicketRequest)
    hijack = HijackRequest(asked.method, asked.path, asked.query, asked.body, asked.attempt)
    return json_response(
        await request.gate.admit_stream(
            asking,
            StreamAsked(asked.method, asked.path, asked.query, asked.authorization, asked.certificate, asked.address),
            lambda caller: request.services.attachments.ticket(caller.tenant, hijack),
        )
    )


async def hello(request: DockerRequest) -> Response:
    """An agent's link is up: what it is to do."""
    _check_gateway(request)
    message = await request.parse(AgentHello)
    container_id = request.path["container_id"]
    return json_response(await request.services.links.hello(message.tenant, container_id, message.model_dump()))


async def events(request: DockerRequest) -> Response:
    """One event of an agent: 204 once it is recorded."""
    _check_gateway(request)
    event = await request.parse(AgentEvent)
    await request.services.links.report(event.tenant, request.path["container_id"], event.model_dump())
    return empty()


async def gone(request: DockerRequest) -> Response:
    """An agent's link is lost."""
    _check_gateway(request)
    message = await request.parse(LinkGone)
    await request.services.links.gone(message.tenant, request.path["container_id"], message.boot, message.instance)
    return empty()


async def token(request: DockerRequest) -> Response:
    """A fresh token for an agent whose link is up: 200 `{"token"}`, 404 when it is not the container's agent."""
    _check_gateway(request)
    message = await request.parse(Message)
    return json_response(
        {"token": await request.services.links.token(message.tenant, request.path["container_id"], message.boot)}
    )
