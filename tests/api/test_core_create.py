"""`docker create`: what is filled in, what is refused and with which words."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.core_fakes import IMAGE_ID, Endpoint, image


async def create(endpoint: Endpoint, body: dict[str, Any], query: str = "", version: str = "1.50") -> Any:
    return await endpoint.client.post(f"/v{version}/containers/create{query}", json={"Image": "busybox", **body})


async def made(endpoint: Endpoint, body: dict[str, Any], query: str = "", version: str = "1.50") -> Any:
    answer = await create(endpoint, body, query, version)
    assert answer.status_code == 201, answer.text
    return (await endpoint.client.get(f"/containers/{answer.json()['Id']}/json")).json()


async def refused(endpoint: Endpoint, body: dict[str, Any], version: str = "1.50") -> tuple[int, str]:
    answer = await create(endpoint, body, version=version)
    assert answer.status_code >= 400, answer.text
    assert await endpoint.containers.list("default") == []
    assert await endpoint.store.list("names", "default") == []
    return answer.status_code, answer.json()["message"]


async def test_the_least_request(endpoint: Endpoint) -> None:
    answer = await create(endpoint, {}, "?name=box")
    assert answer.status_code == 201
    assert answer.json()["Warnings"] == []
    shown = (await endpoint.client.get("/containers/box/json")).json()
    assert shown["Id"] == answer.json()["Id"]
    assert len(shown["Id"]) == 64
    assert shown["Name"] == "/box"
    assert (shown["Path"], shown["Args"]) == ("sh", [])
    assert shown["Image"] == IMAGE_ID
    config, host = shown["Config"], shown["HostConfig"]
    assert config["Hostname"] == shown["Id"][:12]
    assert config["Image"] == "busybox"
    assert config["Cmd"] == ["sh"]
    assert config["Entrypoint"] is None
    assert config["Env"] == ["PATH=/bin"]
    assert config["Labels"] == {}
    assert "Healthcheck" not in config
    assert host["NetworkMode"] == "bridge"
    assert host["Runtime"] == "fake"
    assert host["RestartPolicy"] == {"Name": "no", "MaximumRetryCount": 0}
    assert host["LogConfig"] == {"Type": "json-file", "Config": {}}
    assert (host["IpcMode"], host["CgroupnsMode"], host["ShmSize"]) == ("private", "private", 67108864)
    assert host["ConsoleSize"] == [0, 0]
    assert "Mounts" not in host
    assert shown["State"]["Status"] == "created"
    assert shown["NetworkSettings"]["Networks"] == {"bridge": {"NetworkID": "n" * 64}}
    stored = await endpoint.containers.resolve("default", "box")
    assert (stored.gateway, stored.backend, stored.name) == ("http://gateway", "fake", "box")


async def test_the_image_fills_what_the_user_left_out(endpoint: Endpoint) -> None:
    endpoint.images.known["busybox"] = image(
        User="app",
        Env=["PATH=/usr/bin", "A=image", "B=image"],
        Entrypoint=["/entry"],
        Cmd=["image-cmd"],
        ExposedPorts={"80/tcp": {}},
        Labels={"a": "image", "b": "image"},
        WorkingDir="/srv",
        StopSignal="SIGINT",
        Volumes={"/data": {}},
        Healthcheck={"Test": ["CMD", "true"], "Interval": 5_000_000_000},
    )
    config = (
        await made(
            endpoint,
            {
                "Env": ["A=user", "C=user"],
                "Labels": {"a": "user"},
                "ExposedPorts": {"53/udp": {}},
                "Healthcheck": {"Interval": 1_000_000_000, "Retries": 2},
            },
        )
    )["Config"]
    assert config["User"] == "app"
    assert config["Env"] == ["A=user", "C=user", "PATH=/usr/bin", "B=image"]
    assert (config["Entrypoint"], config["Cmd"]) == (["/entry"], ["image-cmd"])
    assert config["ExposedPorts"] == {"80/tcp": {}, "53/udp": {}}
    assert config["Labels"] == {"a": "user", "b": "image"}
    assert (config["WorkingDir"], config["StopSignal"]) == ("/srv", "SIGINT")
    assert config["Volumes"] == {"/data": {}}
    assert config["Healthcheck"]["Test"] == ["CMD", "true"]
    assert (config["Healthcheck"]["Interval"], config["Healthcheck"]["Retries"]) == (1_000_000_000, 2)


@pytest.mark.parametrize(
    ("given", "entrypoint", "cmd"),
    [
        ({}, ["/entry"], ["image"]),
        ({"Cmd": ["user"]}, ["/entry"], ["user"]),
        ({"Entrypoint": ["/mine"]}, ["/mine"], None),
        ({"Entrypoint": "/mine", "Cmd": "user"}, ["/mine"], ["user"]),
        ({"Entrypoint": [""], "Cmd": ["user"]}, None, ["user"]),
        ({"Entrypoint": [], "Cmd": ["user"]}, [], ["user"]),
    ],
)
async def test_entrypoint_and_command(endpoint: Endpoint, given: dict[str, Any], entrypoint: Any, cmd: Any) -> None:
    endpoint.images.known["busybox"] = image(Entrypoint=["/entry"], Cmd=["image"])
    config = (await made(endpoint, given))["Config"]
    assert (config["Entrypoint"], config["Cmd"]) == (entrypoint, cmd)


async def test_field_names_in_any_case_and_null_as_not_given(endpoint: Endpoint) -> None:
    shown = await made(endpoint, {"cmd": ["x"], "HOSTNAME": "h", "Env": None, "hostconfig": {"AUTOREMOVE": True}})
    assert shown["Config"]["Cmd"] == ["x"]
    assert shown["Config"]["Hostname"] == "h"
    assert shown["HostConfig"]["AutoRemove"] is True


async def test_generated_names_are_two_words(endpoint: Endpoint) -> None:
    names = {(await made(endpoint, {}))["Name"] for _ in range(5)}
    assert len(names) == 5
    assert all(name.startswith("/") and "_" in name for name in names)


async def test_a_taken_name_is_mobys_conflict(endpoint: Endpoint) -> None:
    first = await made(endpoint, {}, "?name=box")
    answer = await create(endpoint, {"Volumes": {"/v": {}}}, "?name=/box")
    assert answer.status_code == 409
    assert answer.json()["message"] == (
        f'Conflict. The container name "/box" is already in use by container "{first["Id"]}". '
        "You have to remove (or rename) that container to be able to reuse that name."
    )
    assert endpoint.volumes.made == []


async def test_one_of_many_creates_of_one_name_wins_and_the_others_leave_no_volume(endpoint: Endpoint) -> None:
    answers = await asyncio.gather(*(create(endpoint, {"Volumes": {"/v": {}}}, "?name=box") for _ in range(5)))
    assert sorted(answer.status_code for answer in answers) == [201, 409, 409, 409, 409]
    assert len(await endpoint.containers.list("default")) == 1
    assert len(endpoint.volumes.removed) == len(endpoint.volumes.made) - 1


async def test_a_name_left_by_a_crash_is_given_away(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("control_plane.services.names._STALE_AFTER", 0.01)
    await endpoint.store.create("names", "default", "box", {"container": "f" * 64})
    assert (await made(endpoint, {}, "?name=box"))["Name"] == "/box"


@pytest.mark.parametrize("name", ["-x", "a b", "ä", "x", "/", "a/b", "?"])
async def test_invalid_names(endpoint: Endpoint, name: str) -> None:
    answer = await endpoint.client.post("/containers/create", params={"name": name}, json={"Image": "busybox"})
    assert answer.status_code == 400
    assert answer.json()["message"] == (f"Invalid container name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed")


async def test_the_backend_is_chosen_by_runtime_then_label_then_default(endpoint: Endpoint) -> None:
    label = {"sockerless.backend": "other"}
    assert (await made(endpoint, {"Labels": label}))["HostConfig"]["Runtime"] == "other"
    shown = await made(endpoint, {"Labels": label, "HostConfig": {"Runtime": "fake"}})
    assert shown["HostConfig"]["Runtime"] == "fake"


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
    ({"HostConfig": {"PortBindings": {"80/tcp": [{"HostPort": "8080"}]}}}, 501, "publishing ports is not served yet"),
    ({"HostConfig": {"PublishAllPorts": True}}, 501, "publishing ports is not served yet"),
    ({"HostConfig": {"Links": ["a:b"]}}, 501, "--link"),
    ({"HostConfig": {"LogConfig": {"Type": "syslog"}}}, 400, "logger: no log driver named 'syslog' is registered"),
    ({"HostConfig": {"NetworkMode": "absent"}}, 404, "network absent not found"),
    ({"HostConfig": {"NetworkMode": "container:absent"}}, 404, "No such container: absent"),
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


async def test_mounts_of_every_kind(endpoint: Endpoint) -> None:
    shown = await made(
        endpoint,
        {
            "Volumes": {"/anonymous": {}, "/bind": {}},
            "HostConfig": {
                "Binds": ["/host/../dir:/bind:ro", "named:/named", "/other", "nocopy:/nocopy:nocopy"],
                "Tmpfs": {"/run": "size=64m"},
                "Mounts": [
                    {"Type": "tmpfs", "Target": "/tmp", "TmpfsOptions": {"SizeBytes": 1 << 20, "Mode": 0o1777}},
                    {"Type": "volume", "Source": "sub", "Target": "/sub", "VolumeOptions": {"Subpath": "a/b"}},
                    {"Type": "bind", "Source": "/must/exist", "Target": "/m", "BindOptions": {}},
                    {"Type": "volume", "Target": "/labelled", "VolumeOptions": {"Labels": {"l": "1"}, "NoCopy": True}},
                ],
            },
        },
    )
    stored = {mount.destination: mount for mount in (await endpoint.containers.list("default"))[0].mounts}
    assert set(stored) == {
        "/anonymous", "/bind", "/named", "/other", "/nocopy", "/run", "/tmp", "/sub", "/m", "/labelled",
    }  # fmt: skip
    assert (stored["/bind"].type, stored["/bind"].source, stored["/bind"].read_only) == ("bind", "/dir", True)
    assert (stored["/bind"].create_source, stored["/m"].create_source) == (True, False)
    assert (stored["/named"].name, stored["/named"].source) == ("named", "gs://bucket/named")
    assert (stored["/named"].copy_up, stored["/nocopy"].copy_up, stored["/labelled"].copy_up) == (True, False, False)
    assert stored["/other"].name.startswith("anonymous")
    assert stored["/run"].tmpfs_options == "size=64m"
    assert stored["/tmp"].tmpfs_options == "mode=1777,size=1m"
    assert stored["/sub"].subpath == "a/b"
    assert ("", {"l": "1"}) in endpoint.volumes.made
    by_target = {mount["Destination"]: mount for mount in shown["Mounts"]}
    assert set(by_target) == set(stored) - {"/run"}
    assert by_target["/named"] == {
        "Type": "volume",
        "Name": "named",
        "Source": "gs://bucket/named",
        "Destination": "/named",
        "Driver": "local",
        "Mode": "z",
        "RW": True,
        "Propagation": "",
    }
    assert by_target["/bind"] == {
        "Type": "bind",
        "Source": "/dir",
        "Destination": "/bind",
        "Mode": "ro",
        "RW": False,
        "Propagation": "rprivate",
    }


async def test_volumes_from_another_container(endpoint: Endpoint) -> None:
    await made(endpoint, {"HostConfig": {"Binds": ["a:/a", "b:/b:ro"]}}, "?name=source")
    await made(endpoint, {"HostConfig": {"VolumesFrom": ["source:ro"], "Binds": ["c:/b"]}}, "?name=target")
    mounts = {mount.destination: mount for mount in (await endpoint.containers.resolve("default", "target")).mounts}
    assert (mounts["/a"].name, mounts["/a"].read_only, mounts["/a"].copy_up) == ("a", True, False)
    assert mounts["/b"].name == "c"


async def test_platforms(endpoint: Endpoint) -> None:
    for platform in ("linux/amd64", "linux", "amd64", "linux/x86_64"):
        assert (await create(endpoint, {}, f"?platform={platform}")).status_code == 201
    answer = await create(endpoint, {}, "?platform=linux/arm64")
    assert answer.status_code == 404
    assert "does not provide the specified platform (linux/arm64)" in answer.json()["message"]
    assert (await create(endpoint, {}, "?platform=a/b/c/d")).status_code == 400
    assert (await create(endpoint, {}, "?platform=linux/arm64", "1.40")).status_code == 201
    endpoint.images.known["busybox"] = image().model_copy(update={"architecture": "arm64"})
    assert "platform (linux/arm64) does not match" in (await create(endpoint, {})).json()["Warnings"][0]


async def test_old_versions_mean_less(endpoint: Endpoint) -> None:
    body = {"HostConfig": {"AutoRemove": True, "ConsoleSize": [3, 4], "Annotations": {"a": "b"}}}
    old = (await made(endpoint, body, version="1.24"))["HostConfig"]
    assert (old["AutoRemove"], old["ConsoleSize"], old["IpcMode"], "Annotations" in old) == (
        False, [0, 0], "shareable", False,
    )  # fmt: skip
    new = (await made(endpoint, body))["HostConfig"]
    assert (new["AutoRemove"], new["ConsoleSize"], new["Annotations"]) == (True, [3, 4], {"a": "b"})
    two: dict[str, Any] = {"NetworkingConfig": {"EndpointsConfig": {"a": {}, "b": {}}}}
    assert "multiple network endpoints" in (await create(endpoint, two, version="1.43")).json()["message"]


async def test_a_mac_address_moves_to_its_endpoint(endpoint: Endpoint) -> None:
    answer = await create(endpoint, {"MacAddress": "02:42:ac:11:00:02"}, "?name=box")
    assert "deprecated" in answer.json()["Warnings"][0]
    shown = (await endpoint.client.get("/containers/box/json")).json()
    assert shown["NetworkSettings"]["Networks"]["bridge"]["MacAddress"] == "02:42:ac:11:00:02"
    assert "MacAddress" not in shown["Config"]


async def test_limits(endpoint: Endpoint) -> None:
    host = (await made(endpoint, {"HostConfig": {"Memory": 1 << 30, "PidsLimit": -1}}))["HostConfig"]
    assert (host["MemorySwap"], host["PidsLimit"], host["OomKillDisable"]) == (2 << 30, None, None)


async def test_create_tells_an_event(endpoint: Endpoint) -> None:
    shown = await made(endpoint, {"Labels": {"l": "1"}}, "?name=box")
    await endpoint.events.close()
    (document,) = await endpoint.store.list("events", "default")
    (event,) = document.body["events"]
    assert (event["type"], event["action"], event["actor"]) == ("container", "create", shown["Id"])
    assert event["attributes"] == {"image": "busybox", "name": "box", "l": "1"}
