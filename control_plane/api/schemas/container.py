"""The body of `POST /containers/create`: Config at the top level, with HostConfig and NetworkingConfig."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from control_plane.api.schemas.host import HostConfigWire
from control_plane.api.schemas.wire import Int, WireType, Words


class HealthConfig(WireType):
    """Durations in nanoseconds."""

    Test: list[str] | None = None
    Interval: Int = 0
    Timeout: Int = 0
    StartPeriod: Int = 0
    StartInterval: Int = 0
    Retries: Int = 0


class Config(WireType):
    """What is portable about a container."""

    Hostname: str = ""
    Domainname: str = ""
    User: str = ""
    AttachStdin: bool = False
    AttachStdout: bool = False
    AttachStderr: bool = False
    ExposedPorts: dict[str, dict[str, Any]] | None = None
    Tty: bool = False
    OpenStdin: bool = False
    StdinOnce: bool = False
    Env: list[str] | None = None
    Cmd: Words | None = None
    Healthcheck: HealthConfig | None = None
    Image: str = ""
    Volumes: dict[str, dict[str, Any]] | None = None
    WorkingDir: str = ""
    Entrypoint: Words | None = None
    NetworkDisabled: bool = False
    MacAddress: str = ""
    OnBuild: list[str] | None = None
    Labels: dict[str, str] | None = None
    StopSignal: str = ""
    StopTimeout: Int | None = None
    Shell: Words | None = None


class IpamConfig(WireType):
    """Static addresses."""

    IPv4Address: str = ""
    IPv6Address: str = ""
    LinkLocalIPs: list[str] | None = None


class EndpointSettings(WireType):
    """A container's place in one network."""

    IPAMConfig: IpamConfig | None = None
    Links: list[str] | None = None
    Aliases: list[str] | None = None
    MacAddress: str = ""
    DriverOpts: dict[str, str] | None = None
    GwPriority: Int = 0
    NetworkID: str = ""
    EndpointID: str = ""


class NetworkingConfigWire(WireType):
    """Networks to join at create."""

    EndpointsConfig: dict[str, EndpointSettings | None] = Field(default_factory=dict)


class CreateBody(Config):
    """The whole body."""

    HostConfig: HostConfigWire | None = None
    NetworkingConfig: NetworkingConfigWire | None = None
