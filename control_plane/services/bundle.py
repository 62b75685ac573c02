"""The services of one control plane, as the handlers get them. Built in `compose.py`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from control_plane.services.archives import Archives
    from control_plane.services.attachments import Attachments
    from control_plane.services.containers import Containers
    from control_plane.services.creation import Creation
    from control_plane.services.events import Events
    from control_plane.services.execs import Execs
    from control_plane.services.gateways import Gateways
    from control_plane.services.images import Images
    from control_plane.services.links import Links
    from control_plane.services.listing import Listing
    from control_plane.services.logs import Logs
    from control_plane.services.networks import Networks
    from control_plane.services.removal import Removal
    from control_plane.services.runs import Runs
    from control_plane.services.system import System
    from control_plane.services.updates import Updates
    from control_plane.services.volumes import Volumes
    from control_plane.services.waits import Waits


@dataclass(frozen=True, slots=True)
class Services:
    """One attribute per Docker resource or activity."""

    containers: Containers
    """Resolve, rename, change the record."""
    listing: Listing
    """`docker ps`."""
    creation: Creation
    """`docker create`."""
    updates: Updates
    """`docker update`."""
    runs: Runs
    """start, stop, restart, kill, pause, unpause, resize, top."""
    removal: Removal
    """rm and container prune."""
    waits: Waits
    execs: Execs
    attachments: Attachments
    """Tickets for hijacked requests: attach and exec start."""
    archives: Archives
    """Archive get, put, stat; staging before the first start."""
    logs: Logs
    gateways: Gateways
    """The registry of gateways."""
    links: Links
    """What agents report: hello, events, gone."""
    events: Events
    images: Images
    volumes: Volumes
    networks: Networks
    system: System
    """Ping, version, info, disk usage."""
