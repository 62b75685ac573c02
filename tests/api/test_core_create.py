"""`docker create`: what is filled in and kept."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.api.create_requests import create, made
from tests.core_fakes import IMAGE_ID, Endpoint, image


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
    assert list(shown["NetworkSettings"]["Networks"]) == ["bridge"]
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


async def test_the_backend_is_chosen_by_runtime_then_label_then_default(endpoint: Endpoint) -> None:
    label = {"sockerless.backend": "other"}
    assert (await made(endpoint, {"Labels": label}))["HostConfig"]["Runtime"] == "other"
    shown = await made(endpoint, {"Labels": label, "HostConfig": {"Runtime": "fake"}})
    assert shown["HostConfig"]["Runtime"] == "fake"


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
    assert answer.json()["message"] == (
        "image with reference busybox was found but its platform (linux/amd64) "
        "does not match the specified platform (linux/arm64)"
    )
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


async def test_create_tells_an_event(endpoint: Endpoint) -> None:
    shown = await made(endpoint, {"Labels": {"l": "1"}}, "?name=box")
    await endpoint.events.close()
    (document,) = await endpoint.store.list("events", "default")
    (event,) = document.body["events"]
    assert (event["type"], event["action"], event["actor"]) == ("container", "create", shown["Id"])
    assert event["attributes"] == {"image": "busybox", "name": "box", "l": "1"}
