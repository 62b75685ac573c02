"""Every HostConfig option is served or refused by name."""

from __future__ import annotations

from typing import Any

import pytest

from control_plane.backends.cloud_run import capabilities
from control_plane.backends.cloud_run.host_config import HOST_CONFIG
from control_plane.backends.cloud_run.settings import load_settings
from control_plane.errors import NotServed
from control_plane.model import Container

# api/types/container/hostconfig.go of moby 28 (HostConfig with its embedded Resources).
_API = """
Binds ContainerIDFile LogConfig NetworkMode PortBindings RestartPolicy AutoRemove VolumeDriver VolumesFrom ConsoleSize
Annotations CapAdd CapDrop CgroupnsMode Dns DnsOptions DnsSearch ExtraHosts GroupAdd IpcMode Cgroup Links OomScoreAdj
PidMode Privileged PublishAllPorts ReadonlyRootfs SecurityOpt StorageOpt Tmpfs UTSMode UsernsMode ShmSize Sysctls
Runtime Isolation CpuShares Memory NanoCpus CgroupParent BlkioWeight BlkioWeightDevice BlkioDeviceReadBps
BlkioDeviceWriteBps
BlkioDeviceReadIOps BlkioDeviceWriteIOps CpuPeriod CpuQuota CpuRealtimePeriod CpuRealtimeRuntime CpusetCpus CpusetMems
Devices DeviceCgroupRules DeviceRequests KernelMemory KernelMemoryTCP MemoryReservation MemorySwap MemorySwappiness
OomKillDisable PidsLimit Ulimits CpuCount CpuPercent IOMaximumIOps IOMaximumBandwidth Mounts MaskedPaths
ReadonlyPaths Init
"""
API_1_50 = _API.split()

# What the docker CLI 28 sends for a plain `docker run IMAGE`, and what the control plane fills in.
DEFAULTS: dict[str, Any] = {
    "Binds": None, "ContainerIDFile": "", "LogConfig": {"Type": "json-file", "Config": {}}, "NetworkMode": "bridge",
    "PortBindings": {}, "RestartPolicy": {"Name": "no", "MaximumRetryCount": 0}, "AutoRemove": False,
    "VolumeDriver": "",
    "VolumesFrom": None, "ConsoleSize": [24, 80], "CapAdd": None, "CapDrop": None, "CgroupnsMode": "private", "Dns": [],
    "DnsOptions": [], "DnsSearch": [], "ExtraHosts": None, "GroupAdd": None, "IpcMode": "private", "Cgroup": "",
    "Links": None, "OomScoreAdj": 0, "PidMode": "", "Privileged": False, "PublishAllPorts": False,
    "ReadonlyRootfs": False,
    "SecurityOpt": None, "UTSMode": "", "UsernsMode": "", "ShmSize": 67108864, "Runtime": "runc", "Isolation": "",
    "CpuShares": 0, "Memory": 0, "NanoCpus": 0, "CgroupParent": "", "BlkioWeight": 0, "BlkioWeightDevice": [],
    "Devices": [], "DeviceCgroupRules": None, "DeviceRequests": None, "MemoryReservation": 0, "MemorySwap": 0,
    "MemorySwappiness": -1, "OomKillDisable": False, "PidsLimit": 0, "Ulimits": [], "CpuCount": 0, "CpuPercent": 0,
    "IOMaximumIOps": 0, "IOMaximumBandwidth": 0, "MaskedPaths": None, "ReadonlyPaths": None,
}  # fmt: skip


def check(**host_config: Any) -> list[str]:
    container = Container(
        id="ab" * 32, tenant="t", name="c", created_at="", image="i", image_id="sha256:1", config={},
        host_config=host_config, backend="cloudrun", gateway="http://g",
    )  # fmt: skip
    return capabilities.check(container, load_settings(project="p"))


def test_the_table_has_each_field_of_the_api_once() -> None:
    assert sorted(option.field for option in HOST_CONFIG) == sorted(API_1_50)


def test_a_plain_run_has_no_warning() -> None:
    assert check(**DEFAULTS) == []


@pytest.mark.parametrize(
    ("host_config", "named"),
    [
        ({"Privileged": True}, "--privileged"),
        ({"PidMode": "host"}, "--pid"),
        ({"IpcMode": "host"}, "--ipc"),
        ({"IpcMode": "container:x"}, "--ipc"),
        ({"UTSMode": "host"}, "--uts"),
        ({"UsernsMode": "keep-id"}, "--userns"),
        ({"CgroupnsMode": "host"}, "--cgroupns"),
        ({"CgroupParent": "/x"}, "--cgroup-parent"),
        ({"Devices": [{"PathOnHost": "/dev/fuse"}]}, "--device"),
        ({"DeviceRequests": [{"Count": -1}]}, "--gpus"),
        ({"NetworkMode": "none"}, "--network"),
        ({"NetworkMode": "container:abc"}, "--network"),
        ({"Links": ["a:b"]}, "--link"),
        ({"SecurityOpt": ["seccomp={}"]}, "--security-opt"),
        ({"SecurityOpt": ["apparmor:mine"]}, "--security-opt"),
        ({"SecurityOpt": ["no-new-privileges", "systempaths=unconfined"]}, "--security-opt"),
        ({"StorageOpt": {"size": "1g"}}, "--storage-opt"),
        ({"VolumeDriver": "rexray"}, "--volume-driver"),
        ({"LogConfig": {"Type": "syslog"}}, "--log-driver"),
        ({"Runtime": "kata"}, "--runtime"),
        ({"ExtraHosts": ["h:host-gateway"]}, "--add-host"),
        ({"Mounts": [{"Type": "cluster"}]}, "--mount"),
        ({"Mounts": [{"Type": "volume", "VolumeOptions": {"DriverConfig": {"Name": "nfs"}}}]}, "--mount"),
        ({"Binds": ["/a:/b:rslave"]}, "--volume"),
        ({"CpusetCpus": "0"}, "--cpuset-cpus"),
        ({"Isolation": "hyperv"}, "--isolation"),
        ({"KernelMemoryTCP": 5}, "HostConfig.KernelMemoryTCP"),
    ],
)
def test_refusals_name_the_option_and_the_reason(host_config: dict[str, Any], named: str) -> None:
    with pytest.raises(NotServed, match=f"^{named} is not served on Cloud Run: .+") as caught:
        check(**host_config)
    assert caught.value.status == 501


@pytest.mark.parametrize(
    ("host_config", "warned"),
    [
        ({"NetworkMode": "host"}, "network of its own"),
        ({"SecurityOpt": ["seccomp=unconfined", "seccomp=builtin"]}, "--security-opt seccomp=builtin has no effect"),
        ({"SecurityOpt": ["label=type:mine"]}, "label=type:mine"),
        ({"OomKillDisable": True}, "discarded"),
        ({"PidsLimit": 100}, "--pids-limit"),
    ],
)
def test_what_is_accepted_without_effect_is_said(host_config: dict[str, Any], warned: str) -> None:
    (warning,) = check(**host_config)
    assert warned in warning


def test_served_options_pass_in_silence() -> None:
    assert check(SecurityOpt=["no-new-privileges"], CapAdd=["NET_ADMIN"], Init=True, PidsLimit=-1, Memory=1 << 30) == []
    assert check(SecurityOpt=["seccomp=unconfined", "apparmor=unconfined", "label=disable"]) == []
    assert check(LogConfig={"Type": "none"}) == []


def test_capabilities_carry_a_reason_for_each_refused_option() -> None:
    refused = capabilities.capabilities().refused_options
    assert refused["HostConfig.Privileged"]
    assert all(refused.values())
