"""`HostConfig` on Cloud Functions: the common table."""

from __future__ import annotations

from control_plane.backends.host_config import host_config

NAME = "gcf"
TITLE = "Cloud Functions"

HOST_CONFIG = host_config(TITLE, NAME)
