"""HostConfig, and its Resources part alone as `POST /containers/{id}/update` takes it."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from control_plane.api.schemas.wire import Int, WireType, Words


class RestartPolicyWire(WireType):
    """When to start again."""

    Name: str = ""
    MaximumRetryCount: Int = 0


class LogConfigWire(WireType):
    """The logging driver."""

    Type: str = ""
    Options: dict[str, str] = Field(default_factory=dict, alias="Config")


class PortBinding(WireType):
    """Where a port is published."""

    HostIp: str = ""
    HostPort: str = ""


class Ulimit(WireType):
    """A resource limit of the process."""

    Name: str = ""
    Soft: Int = 0
    Hard: Int = 0


class BindOptionsWire(WireType):
    """Of a bind mount."""

    Propagation: str = ""
    NonRecursive: bool = False
    CreateMountpoint: bool = False
    ReadOnlyNonRecursive: bool = False
    ReadOnlyForceRecursive: bool = False


class VolumeDriverWire(WireType):
    """Driver of a volume made for a mount."""

    Name: str = ""
    Options: dict[str, str] | None = None


class VolumeOptionsWire(WireType):
    """Of a volume mount."""

    NoCopy: bool = False
    Labels: dict[str, str] | None = None
    Subpath: str = ""
    DriverConfig: VolumeDriverWire | None = None


class TmpfsOptionsWire(WireType):
    """Of a tmpfs mount."""

    SizeBytes: Int = 0
    Mode: Int = 0
    Options: list[list[str]] | None = None


class MountSpec(WireType):
    """One entry of `Mounts` (`docker run --mount`)."""

    Type: str = ""
    Source: str = ""
    Target: str = ""
    ReadOnly: bool = False
    Consistency: str = ""
    BindOptions: BindOptionsWire | None = None
    VolumeOptions: VolumeOptionsWire | None = None
    TmpfsOptions: TmpfsOptionsWire | None = None
    ImageOptions: dict[str, Any] | None = None


class Resources(WireType):
    """Limits, in bytes, nanoseconds of CPU and counts."""

    CpuShares: Int = 0
    Memory: Int = 0
    NanoCpus: Int = 0
    CgroupParent: str = ""
    BlkioWeight: Int = 0
    BlkioWeightDevice: list[dict[str, Any]] | None = None
    BlkioDeviceReadBps: list[dict[str, Any]] | None = None
    BlkioDeviceWriteBps: list[dict[str, Any]] | None = None
    BlkioDeviceReadIOps: list[dict[str, Any]] | None = None
    BlkioDeviceWriteIOps: list[dict[str, Any]] | None = None
    CpuPeriod: Int = 0
    CpuQuota: Int = 0
    CpuRealtimePeriod: Int = 0
    CpuRealtimeRuntime: Int = 0
    CpusetCpus: str = ""
    CpusetMems: str = ""
    Devices: list[dict[str, Any]] | None = None
    DeviceCgroupRules: list[str] | None = None
    DeviceRequests: list[dict[str, Any]] | None = None
    MemoryReservation: Int = 0
    MemorySwap: Int = 0
    MemorySwappiness: Int | None = None
    OomKillDisable: bool | None = None
    PidsLimit: Int | None = None
    Ulimits: list[Ulimit] | None = None
    CpuCount: Int = 0
    CpuPercent: Int = 0
    IOMaximumIOps: Int = 0
    IOMaximumBandwidth: Int = 0


class UpdateBody(Resources):
    """`docker update`."""

    RestartPolicy: RestartPolicyWire | None = None


class HostConfigWire(Resources):
    """What is particular to where the container runs."""

    Binds: list[str] | None = None
    ContainerIDFile: str = ""
    LogConfig: LogConfigWire = Field(default_factory=LogConfigWire)
    NetworkMode: str = ""
    PortBindings: dict[str, list[PortBinding] | None] | None = None
    RestartPolicy: RestartPolicyWire = Field(default_factory=RestartPolicyWire)
    AutoRemove: bool = False
    VolumeDriver: str = ""
    VolumesFrom: list[str] | None = None
    ConsoleSize: list[Int] = Field(default_factory=lambda: [0, 0], max_length=2)
    Annotations: dict[str, str] | None = None
    CapAdd: Words | None = None
    CapDrop: Words | None = None
    CgroupnsMode: str = ""
    Dns: list[str] | None = None
    DnsOptions: list[str] | None = None
    DnsSearch: list[str] | None = None
    ExtraHosts: list[str] | None = None
    GroupAdd: list[str] | None = None
    IpcMode: str = ""
    Cgroup: str = ""
    Links: list[str] | None = None
    OomScoreAdj: Int = 0
    PidMode: str = ""
    Privileged: bool = False
    PublishAllPorts: bool = False
    ReadonlyRootfs: bool = False
    SecurityOpt: list[str] | None = None
    StorageOpt: dict[str, str] | None = None
    Tmpfs: dict[str, str] | None = None
    UTSMode: str = ""
    UsernsMode: str = ""
    ShmSize: Int = 0
    Sysctls: dict[str, str] | None = None
    Runtime: str = ""
    Isolation: str = ""
    Mounts: list[MountSpec] | None = None
    MaskedPaths: list[str] | None = None
    ReadonlyPaths: list[str] | None = None
    Init: bool | None = None
