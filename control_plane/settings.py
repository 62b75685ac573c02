"""Settings of the control plane and the embedded endpoint: environment variables, then the command line.

What belongs to one backend is in that backend's own `settings.py`.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

from pydantic import Field
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict


def default_data_dir() -> Path:
    """`/var/lib/sockerless` for root, else under the user's data directory (XDG)."""
    if os.geteuid() == 0:
        return Path("/var/lib/sockerless")
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local/share") / "sockerless"


class Settings(BaseSettings):
    """One endpoint. Environment: `SOCKERLESS_` and the name in capitals."""

    model_config = SettingsConfigDict(env_prefix="SOCKERLESS_", extra="ignore")

    data: Path = Field(default_factory=default_data_dir, description="state directory of the embedded endpoint")
    listen: Annotated[list[str], NoDecode] = Field(
        default_factory=list, description="where Docker clients connect: unix://PATH or tcp://127.0.0.1:PORT"
    )
    backend: str = Field("cloudrun", description="backend of containers that name none")
    registry_mirror: Annotated[list[str], NoDecode] = Field(default_factory=list, description="mirrors of docker.io")
    insecure_registry: Annotated[list[str], NoDecode] = Field(
        default_factory=list, description="registries (host or CIDR) that may be spoken to without TLS"
    )
    agent_listen: str = Field("", description="where agents dial in; default: a free port on the containers' network")
    callback_url: str = Field("", description="the URL agents dial; default: the address of `agent_listen`")
    local_network: str = Field("bridge", description="network of local containers: bridge, or host")
    start_timeout: float = Field(240, description="seconds `start` waits for the container's process")
    agent_connect_timeout: float = Field(300, description="seconds until an agent that never dialled is given up")
    linger: int = Field(
        -1, description="seconds an exited container's file system is kept by its agent; -1: until it is removed"
    )
    reconcile_interval: float = Field(10, description="seconds between two passes of the reconciler")
    sweep_interval: float = Field(900, description="seconds between two sweeps for cloud resources of nobody")
    local_idle: float = Field(
        900, description="seconds the local cloud keeps an instance of a function that no request uses"
    )
