"""`HostConfig` on Cloud Functions: the common table."""

from __future__ import annotations

from control_plane.backends.host_config import host_config, published_ports

NAME = "gcf"
TITLE = "Cloud Functions"
AGENT_PORT = 34117
"""Where the agent takes the platform's requests: no port that a user's process is likely to want."""

HOST_CONFIG = host_config(TITLE, NAME, published_ports(AGENT_PORT))
