"""Puts together the services that run containers; they refer to each other in a circle that is closed here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from control_plane.backends.base import Backend
from control_plane.model import ExecSession, Image
from control_plane.services.agent_events import AgentEvents
from control_plane.services.agentless import AgentlessRuns
from control_plane.services.archives import Archives
from control_plane.services.attachments import Attachments, StreamTickets
from control_plane.services.background import Background
from control_plane.services.container_events import ContainerEvents, EventSink
from control_plane.services.containers import Containers
from control_plane.services.execs import Execs
from control_plane.services.gateways import Gateways
from control_plane.services.links import GatewayCheck, Links
from control_plane.services.logs import Logs
from control_plane.services.lost_agents import LostAgents
from control_plane.services.moves import Moves, StreamCheck, alone
from control_plane.services.outcomes import Outcomes
from control_plane.services.ports import Agents, Blobs
from control_plane.services.preparation import Preparation
from control_plane.services.reconcile import Reconciler
from control_plane.services.records import Records
from control_plane.services.removal import AnonymousVolumes, Removal
from control_plane.services.restarts import Restarts
from control_plane.services.run_settings import RunSettings
from control_plane.services.runs import Runs
from control_plane.services.staging import ImageFiles, Staging
from control_plane.services.starts import AgentTokens, NetworksOfStart, Starts
from control_plane.services.stops import Stops
from control_plane.store.base import Store


@dataclass(frozen=True, slots=True)
class RunPorts:
    """What the services need of the outside."""

    store: Store
    containers: Containers
    events: EventSink
    image_files: ImageFiles
    volumes: AnonymousVolumes
    networks: NetworksOfStart
    backends: Mapping[str, Backend]
    agents: Agents
    blobs: Blobs
    agent_token: AgentTokens
    stream_ticket: StreamTickets
    check_gateway: GatewayCheck
    gateways: Gateways | None = None
    """None: there is one gateway, and it does not register."""
    check_stream: StreamCheck | None = None
    renewed_token: AgentTokens = lambda _: ""
    """Of an agent whose link is up; empty: it keeps the one it has."""


@dataclass(frozen=True, slots=True)
class RunServices:
    """What `Services` takes over, and what `compose.py` runs (`reconciler`) and closes (`background`)."""

    runs: Runs
    removal: Removal
    execs: Execs
    attachments: Attachments
    archives: Archives
    logs: Logs
    links: Links
    reconciler: Reconciler
    preparation: Preparation
    background: Background


def assemble(ports: RunPorts, settings: RunSettings) -> RunServices:
    """All of them, on one set of ports."""
    background = Background()
    containers, records = ports.containers, ports.containers.records
    images = Records(ports.store, "images", Image)
    exec_records = Records(ports.store, "execs", ExecSession)
    events = ContainerEvents(ports.events)
    outcomes = Outcomes(records, events)
    starts = Starts(
        outcomes, images, ports.backends, ports.agents, ports.networks, ports.agent_token, background, settings
    )
    stops = Stops(outcomes, events, ports.backends, ports.agents, background, settings)
    restarts = Restarts(lambda container: starts.start(container, manual=False), background)
    removal = Removal(
        containers,
        containers.names,
        exec_records,
        ports.volumes,
        ports.blobs,
        outcomes,
        ports.backends,
        ports.agents,
        background,
        settings,
    )
    execs = Execs(containers, exec_records, records, ports.agents, events)
    lost = LostAgents(execs, ports.agents, background)
    outcomes.follow(restarting=restarts.schedule, removing=removal.remove_itself, lost=lost.follow)
    staging = Staging(records, images, ports.image_files, ports.blobs, ports.agents, settings)
    moves = None
    if ports.check_stream is not None:
        moves = Moves(records, ports.agents, ports.gateways, ports.check_stream)
    beside = alone if moves is None else moves.beside
    agent_events = AgentEvents(outcomes, execs, ports.backends, background, beside)
    links = Links(
        outcomes, ports.backends, staging, agent_events, ports.check_gateway, background, settings, ports.renewed_token
    )
    agentless = AgentlessRuns(outcomes, starts, stops, ports.backends, ports.agents, background, settings)
    starts.follow(agentless.accepted)
    starts.refused_with(removal.remove_unstarted)
    reconciler = Reconciler(
        outcomes, starts, stops, removal, restarts, links, execs, agentless, ports.backends, background, settings
    )
    links.suspect_with(reconciler)
    attachments = Attachments(containers, execs, events, ports.stream_ticket)
    if moves is not None:
        links.moves = moves
        starts.home_with(moves.home)
        starts.name_with(moves.beside)
        attachments.home_with(moves.home)
        attachments.expect_with(moves.expect)
    if ports.gateways is not None and not ports.gateways.only:
        reconciler.doubt_with(ports.gateways)
    for backend in ports.backends.values():
        backend.follow(reconciler.hear)
    return RunServices(
        runs=Runs(containers, starts, stops, outcomes, ports.agents),
        removal=removal,
        execs=execs,
        attachments=attachments,
        archives=Archives(containers, records, staging, ports.agents, events, settings),
        logs=Logs(containers, records, ports.agents, ports.backends, settings),
        links=links,
        reconciler=reconciler,
        preparation=Preparation(records, ports.backends, ports.agent_token, background, beside),
        background=background,
    )
