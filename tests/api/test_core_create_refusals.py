"""`docker create`: what is refused, and with which words."""

from __future__ import annotations

from typing import Any

import pytest

from tests.api.create_requests import create, made, refused
from tests.core_fakes import Endpoint, image


@pytest.mark.parametrize("name", ["-x", "a b", "ä", "x", "/", "a/b", "?"])
async def test_invalid_names(endpoint: Endpoint, name: str) -> None:
    answer = await endpoint.client.post("/containers/create", params={"name": name}, json={"Image": "busybox"})
    assert answer.status_code == 400
    assert answer.json()["message"] == (f"Invalid container name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed")


async def test_what_the_backend_refuses_and_warns_of(endpoint: Endpoint) -> None:
    status = await refused(endpoint, {"HostConfig": {"Privileged": True}, "Volumes": {"/v": {}}})
    assert status == (501, "--privileged is not served")
    assert endpoint.volumes.made == []
    answer = await create(endpoint, {"HostConfig": {"ReadonlyRootfs": True}})
    assert answer.json()["Warnings"] == ["told by the backend"]


REFUSALS: list[tuple[dict[str, Any], int, str]] = [
    ({"Image": "absent"}, 404, "No such image: absent:latest"),
    ({"Image": ""}, 400, "no image specified"),
    ({"Entrypoint": [""]}, 400, "no command specified"),
    ({"WorkingDir": "rel"}, 400, "the working directory 'rel' is invalid, it needs to be an absolute path"),
    ({"Env": ["=x"]}, 400, "invalid environment variable: =x"),
    ({"StopSignal": "NOPE"}, 400, "invalid signal: NOPE"),
    ({"Healthcheck": {"Interval": 3}}, 400, "Interval in Healthcheck cannot be less than 1ms"),
    ({"ExposedPorts": {"99999/tcp": {}}}, 400, 'invalid port specification: "99999/tcp"'),
    ({"HostConfig": {"Runtime": "runsc"}}, 400, "unknown or invalid runtime name: runsc"),
    ({"Labels": {"sockerless.backend": "x"}}, 400, "no such backend; this endpoint has fake, other"),
    (
        {"HostConfig": {"AutoRemove": True, "RestartPolicy": {"Name": "always"}}},
        400,
        "can't create 'AutoRemove' container with restart policy",
    ),
    ({"HostConfig": {"RestartPolicy": {"Name": "x"}}}, 400, "invalid restart policy: unknown policy 'x'; use one of"),
    (
        {"HostConfig": {"RestartPolicy": {"Name": "no", "MaximumRetryCount": 2}}},
        400,
        "invalid restart policy: maximum retry count can only be used with 'on-failure'",
    ),
    ({"HostConfig": {"Memory": 1024}}, 400, "Minimum memory limit allowed is 6MB"),
    ({"HostConfig": {"CapAdd": ["NOPE"]}}, 400, 'invalid CapAdd: unknown capability: "CAP_NOPE"'),
    ({"HostConfig": {"ExtraHosts": ["x"]}}, 400, 'bad format for add-host: "x"'),
    ({"HostConfig": {"ExtraHosts": ["x:y"]}}, 400, 'invalid IP address in add-host: "y"'),
    ({"HostConfig": {"PidMode": "x"}}, 400, "invalid PID mode: x"),
    ({"HostConfig": {"IpcMode": "container:"}}, 400, "invalid IPC mode: container:"),
    ({"HostConfig": {"OomScoreAdj": 1001}}, 400, "Invalid value 1001, range for oom score adj is [-1000, 1000]"),
    ({"HostConfig": {"Links": ["a:b"]}}, 501, "--link"),
    ({"HostConfig": {"LogConfig": {"Type": "syslog"}}}, 501, "driver syslog is not served"),
    (
        {"HostConfig": {"LogConfig": {"Type": "bogus"}}},
        400,
        'error looking up logging plugin bogus: plugin "bogus" not found',
    ),
    ({"HostConfig": {"Tmpfs": {"/t": "size=1m,bogus=1"}}}, 400, 'invalid tmpfs option "bogus"'),
    ({"HostConfig": {"LogConfig": {"Config": {"mode": "x"}}}}, 400, "logger: logging mode not supported: x"),
    (
        {"HostConfig": {"LogConfig": {"Config": {"max-buffer-size": "1m"}}}},
        400,
        "logger: max-buffer-size option is only supported with 'mode=non-blocking'",
    ),
    (
        {"HostConfig": {"LogConfig": {"Type": "json-file", "Config": {"max-sise": "1m"}}}},
        400,
        "unknown log opt 'max-sise' for json-file log driver",
    ),
    ({"HostConfig": {"LogConfig": {"Config": {"max-size": "lots"}}}}, 400, "invalid value for max-size: 'lots'"),
    ({"HostConfig": {"LogConfig": {"Config": {"max-file": "0"}}}}, 400, "max-file must be a positive number"),
    ({"NetworkDisabled": True}, 501, "Config.NetworkDisabled"),
    ({"HostConfig": {"NetworkMode": "absent"}}, 404, "network absent not found"),
    (
        {"HostConfig": {"NetworkMode": "container:absent"}},
        400,
        "joining network namespace of container: No such container: absent",
    ),
    ({"HostConfig": {"CapAdd": ["CAP_BOGUS"]}}, 400, 'invalid CapAdd: unknown capability: "CAP_BOGUS"'),
    ({"HostConfig": {"CapDrop": ["bogus"]}}, 400, 'invalid CapDrop: unknown capability: "CAP_BOGUS"'),
    (
        {"Hostname": "h", "HostConfig": {"NetworkMode": "container:x"}},
        400,
        "conflicting options: hostname and the network mode",
    ),
    ({"HostConfig": {"Binds": ["/a:/x", "b:/x"]}}, 400, "Duplicate mount point: /x"),
    ({"HostConfig": {"Binds": ["/a:/x"], "Tmpfs": {"/x": ""}}}, 400, "Duplicate mount point: /x"),
    ({"HostConfig": {"Binds": ["/a:/"]}}, 400, "invalid specification: destination can't be '/'"),
    ({"HostConfig": {"Binds": ["/a:rel"]}}, 400, "invalid mount path: 'rel' mount path must be absolute"),
    ({"HostConfig": {"Binds": ["/a:/x:bad"]}}, 400, "invalid mode: bad"),
    ({"HostConfig": {"Binds": ["a:b:c:d"]}}, 400, "invalid volume specification: 'a:b:c:d'"),
    ({"HostConfig": {"Binds": [":/x"]}}, 400, "invalid volume specification: ':/x'"),
    ({"HostConfig": {"Binds": ["/a:/x:rshared"]}}, 501, "bind propagation rshared is not served"),
    ({"HostConfig": {"Mounts": [{"Type": "bind", "Target": "/x"}]}}, 400, "field Source must not be empty"),
    (
        {"HostConfig": {"Mounts": [{"Type": "x", "Target": "/x"}]}},
        400,
        'invalid mount config for type "x": mount type unknown',
    ),
    (
        {"HostConfig": {"Mounts": [{"Type": "bind", "Source": "/a", "Target": "/x", "TmpfsOptions": {}}]}},
        400,
        'TmpfsOptions must not be specified on mount type "bind"',
    ),
    (
        {"HostConfig": {"Mounts": [{"Type": "volume", "Target": "/x", "VolumeOptions": {"Subpath": "a"}}]}},
        400,
        "must not set Subpath when using anonymous volumes",
    ),
    (
        {
            "HostConfig": {
                "Mounts": [{"Type": "volume", "Source": "v", "Target": "/x", "VolumeOptions": {"Subpath": "../a"}}]
            }
        },
        400,
        "subpath must be a relative path within the volume",
    ),
    ({"HostConfig": {"VolumesFrom": ["absent"]}}, 400, "No such container: absent"),
    ({"HostConfig": {"VolumeDriver": "nfs"}}, 400, 'error looking up volume plugin nfs: plugin "nfs" not found'),
    ({"Image": 5}, 400, "invalid JSON: Image"),
    ({"HostConfig": {"Memory": 2**63}}, 400, "invalid JSON: HostConfig.Memory"),
    ({"HostConfig": {"Memory": True}}, 400, "invalid JSON: HostConfig.Memory"),
    ({"HostConfig": {"Binds": [None]}}, 400, "invalid JSON: HostConfig.Binds.0"),
]


@pytest.mark.parametrize(("body", "status", "message"), REFUSALS, ids=[message[:40] for _, _, message in REFUSALS])
async def test_refusals(endpoint: Endpoint, body: dict[str, Any], status: int, message: str) -> None:
    answer = await refused(endpoint, body)
    assert answer[0] == status
    assert message in answer[1]


async def test_an_image_with_a_malformed_configuration_is_refused(endpoint: Endpoint) -> None:
    malformed: list[dict[str, Any]] = [
        {"Env": "A=1", "Cmd": {}},
        {"Labels": {"a": 1}},
        {"Healthcheck": 3},
        {"User": []},
        {"Volumes": []},
    ]
    for broken in malformed:
        endpoint.images.known["busybox"] = image(**broken)
        status, message = await refused(endpoint, {})
        assert (status, "configuration is malformed" in message) == (400, True)


@pytest.mark.parametrize(
    ("content", "headers", "message"),
    [
        (b"", {"content-type": "application/json"}, "invalid JSON: got EOF while reading request body"),
        (b"{", {"content-type": "application/json"}, "invalid JSON"),
        (b"[]", {"content-type": "application/json"}, "invalid JSON"),
        (
            b"{}",
            {"content-type": "text/plain"},
            "unsupported Content-Type header (text/plain): must be 'application/json'",
        ),
        (b"{}", {}, "malformed Content-Type header"),
    ],
)
async def test_bodies_that_are_no_json(
    endpoint: Endpoint, content: bytes, headers: dict[str, str], message: str
) -> None:
    answer = await endpoint.client.post("/containers/create", content=content, headers=headers)
    assert answer.status_code == 400
    assert message in answer.json()["message"]


async def test_limits(endpoint: Endpoint) -> None:
    host = (await made(endpoint, {"HostConfig": {"Memory": 1 << 30, "PidsLimit": -1}}))["HostConfig"]
    assert (host["MemorySwap"], host["PidsLimit"], host["OomKillDisable"]) == (2 << 30, None, None)
