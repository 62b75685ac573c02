"""`HostConfig` on Cloud Run: the common table."""

from __future__ import annotations

from control_plane.backends.host_config import host_config

NAME = "cloudrun"
TITLE = "Cloud Run"

HOST_CONFIG = host_config(TITLE, NAME)
