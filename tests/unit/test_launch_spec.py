"""The launch spec: every option that the agent is to carry out is in it."""

from __future__ import annotations

from typing import Any

import pytest

from control_plane.backends.base import PlatformMount
from control_plane.backends.cloud_run.host_config import HOST_CONFIG
from control_plane.errors import InvalidParameter
from control_plane.model import Container, Mount
from control_plane.services.launch_spec import launch_spec
from control_plane.services.log_options import check_log_options, kept_bytes
from control_plane.services.run_settings import RunSettings

SAMPLES: dict[str, Any] = {
    "Tmpfs": {"/run": "size=1m"},
    "ReadonlyRootfs": True,
    "LogConfig": {"Type": "json-file", "Config": {"max-size": "10k"}},
    "ConsoleSize": [40, 120],
    "Dns": ["9.9.9.9"],
    "DnsOptions": ["ndots:2"],
    "DnsSearch": ["example.com"],
    "ExtraHosts": ["db:10.0.0.2"],
    "CapAdd": ["NET_ADMIN"],
    "CapDrop": ["CHOWN"],
    "GroupAdd": ["audio"],
    "Sysctls": {"net.core.somaxconn": "1024"},
    "Ulimits": [{"Name": "nofile", "Soft": 1, "Hard": 2}],
    "ShmSize": 1 << 20,
    "Init": True,
    "SecurityOpt": ["no-new-privileges"],
    "OomScoreAdj": 500,
}
CONFIG: dict[str, Any] = {
    "Hostname": "box",
    "Domainname": "corp",
    "User": "app:staff",
    "Tty": True,
    "OpenStdin": True,
    "StdinOnce": True,
    "Env": ["A=1"],
    "Cmd": ["run"],
    "Entrypoint": ["/entry"],
    "Healthcheck": {"Test": ["CMD", "true"]},
    "WorkingDir": "/work",
    "StopSignal": "SIGUSR1",
}


def spec(host: dict[str, Any] | None = None, config: dict[str, Any] | None = None) -> dict[str, Any]:
    container = Container(
        id="c" * 64,
        tenant="t",
        name="web",
        created_at="2026-01-01T00:00:00Z",
        image="busybox",
        image_id="sha256:" + "0" * 64,
        config=config or {},
        host_config=host or {},
        backend="cloudrun",
        gateway="",
    )
    return launch_spec(container, [], RunSettings(instance="one"))


@pytest.mark.parametrize("field", [option.field for option in HOST_CONFIG if option.how == "agent"])
def test_what_the_table_leaves_to_the_agent_is_told_to_it(field: str) -> None:
    assert spec({field: SAMPLES[field]}) != spec()


@pytest.mark.parametrize("field", CONFIG)
def test_what_the_user_configures_is_told_to_the_agent(field: str) -> None:
    assert spec(config={field: CONFIG[field]}) != spec()


def test_a_health_check_runs_in_the_containers_own_shell() -> None:
    check = {"Test": ["CMD-SHELL", "test -f /ok"]}
    assert spec(config={"Healthcheck": check})["healthcheck"]["test"] == ["CMD-SHELL", "test -f /ok"]
    shown = spec(config={"Healthcheck": check, "Shell": ["/bin/bash", "-ec"]})["healthcheck"]["test"]
    assert shown == ["CMD", "/bin/bash", "-ec", "test -f /ok"]


@pytest.mark.parametrize(
    ("given", "told"),
    [("db:10.0.0.2", "db:10.0.0.2"), ("db=10.0.0.2", "db:10.0.0.2"), ("six=[fd00::1]", "six:[fd00::1]")],
)
def test_extra_hosts_of_both_forms(given: str, told: str) -> None:
    assert spec({"ExtraHosts": [given]})["extra_hosts"] == [told]


@pytest.mark.parametrize(
    ("config", "kept"),
    [
        ({}, 7),
        ({"Type": "json-file", "Config": {}}, 7),
        ({"Type": "json-file", "Config": {"max-file": "3"}}, 7),
        ({"Type": "json-file", "Config": {"max-size": "-1"}}, 7),
        ({"Type": "json-file", "Config": {"max-size": "10m"}}, 10_000_000),
        ({"Type": "json-file", "Config": {"max-size": "1.5kB", "max-file": "2"}}, 3000),
        ({"Type": "local", "Config": {"max-size": "1k"}}, 5 * 1024),
        ({"Type": "none", "Config": {"max-size": "1k"}}, -1),
    ],
)
def test_max_size_and_max_file_bound_the_output_that_is_kept(config: dict[str, Any], kept: int) -> None:
    assert kept_bytes(config, 7) == kept


@pytest.mark.parametrize(
    "options",
    [{"max-size": ""}, {"max-size": "0"}, {"max-size": "1x"}, {"max-size": "9" * 40}, {"max-file": "²"}, {"x": "y"}],
)
def test_malformed_log_options_are_refused(options: dict[str, str]) -> None:
    with pytest.raises(InvalidParameter):
        check_log_options({"Type": "", "Config": options})


def test_a_volume_without_a_place_on_the_platform_is_a_directory() -> None:
    mounts = [Mount(type="volume", name="v", destination="/data"), Mount(type="tmpfs", destination="/run")]
    container = Container(
        id="c" * 64,
        tenant="t",
        name="web",
        created_at="2026-01-01T00:00:00Z",
        image="busybox",
        image_id="sha256:" + "0" * 64,
        config={},
        host_config={},
        mounts=mounts,
        backend="b",
        gateway="",
    )
    nowhere = launch_spec(container, [], RunSettings())["mounts"]
    assert {"type": "directory", "target": "/data"} in nowhere
    placed = launch_spec(container, [PlatformMount("/.sockerless/volumes/0", "", mounts[0])], RunSettings())["mounts"]
    assert [mount["type"] for mount in placed] == ["bind", "tmpfs"]
