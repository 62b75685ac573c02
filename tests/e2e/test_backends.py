"""Three backends behind one endpoint: chosen, listed, limited, and found again after a crash."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import pytest

from tests.e2e.backends import BACKENDS, EACH_BACKEND, capabilities
from tests.e2e.cloud import Cloud
from tests.e2e.conftest import load_images
from tests.e2e.endpoint import Endpoint, running_endpoint

TITLES = {"cloudrun": "Cloud Run", "gcf": "Cloud Functions", "azf": "Azure Functions"}
LIMIT = 4
LIMITS = {name: str(LIMIT) for name in ("SOCKERLESS_GCR_TIMEOUT", "SOCKERLESS_GCF_TIMEOUT", "SOCKERLESS_AZF_TIMEOUT")}
ASKED = {
    "HostConfig.Binds": ["-v", "kept:/v"],
    "HostConfig.VolumesFrom": ["--volumes-from", "{other}"],
    "HostConfig.Privileged": ["--privileged"],
    "HostConfig.Devices": ["--device", "/dev/null"],
    "HostConfig.PidMode": ["--pid", "host"],
    "HostConfig.UTSMode": ["--uts", "host"],
    "HostConfig.CgroupParent": ["--cgroup-parent", "/x"],
}
"""What the CLI is given for an option that capabilities may refuse."""


def test_info_lists_the_runtimes_and_the_default(endpoint: Endpoint) -> None:
    info = json.loads(endpoint.out("info", "--format", "{{json .}}"))
    assert {name: told["path"] for name, told in info["Runtimes"].items()} == TITLES
    assert info["DefaultRuntime"] == "cloudrun"
    assert set(TITLES) == set(BACKENDS)


@EACH_BACKEND
def test_the_endpoints_default(endpoint: Endpoint, backend: str, name: str) -> None:
    assert endpoint.out("info", "-f", "{{.DefaultRuntime}}") == backend
    endpoint.out("create", "--name", name, "busybox")
    assert (
        endpoint.out("inspect", "-f", "{{.HostConfig.Runtime}} {{.Sockerless.Backend}}", name) == f"{backend} {backend}"
    )


@pytest.mark.parametrize("chosen", BACKENDS)
@pytest.mark.parametrize("way", ["flag", "label"])
def test_a_container_chooses_its_backend(endpoint: Endpoint, name: str, chosen: str, way: str) -> None:
    option = ["--runtime", chosen] if way == "flag" else ["--label", f"sockerless.backend={chosen}"]
    done = endpoint.docker("run", "--name", name, *option, "busybox", "sh", "-c", "echo here; exit 3")
    assert (done.returncode, done.stdout, done.stderr) == (3, b"here\n", b"")
    seen = json.loads(endpoint.out("inspect", name))[0]
    assert seen["HostConfig"]["Runtime"] == chosen
    assert seen["Sockerless"] == {"Backend": chosen, "RunLimitSeconds": seen["Sockerless"]["RunLimitSeconds"]}
    assert 0 < seen["Sockerless"]["RunLimitSeconds"] <= capabilities(chosen).max_run_seconds


def test_the_flag_comes_before_the_label(endpoint: Endpoint, name: str) -> None:
    endpoint.out("create", "--name", name, "--runtime", "azf", "--label", "sockerless.backend=gcf", "busybox")
    assert endpoint.out("inspect", "-f", "{{.Sockerless.Backend}}", name) == "azf"


@pytest.mark.parametrize(
    ("option", "text"),
    [
        (["--runtime", "nosuch"], "unknown or invalid runtime name: nosuch"),
        (
            ["--label", "sockerless.backend=nosuch"],
            "label sockerless.backend=nosuch: no such backend; this endpoint has azf, cloudrun, gcf",
        ),
    ],
    ids=["flag", "label"],
)
def test_an_unknown_backend_is_refused(endpoint: Endpoint, name: str, option: list[str], text: str) -> None:
    done = endpoint.docker("create", "--name", name, *option, "busybox")
    assert (done.returncode, done.stderr.decode()) == (1, f"Error response from daemon: {text}\n")
    assert endpoint.docker("inspect", name).returncode == 1


def test_one_list_shows_all(endpoint: Endpoint, name: str) -> None:
    mark = ["--label", f"all={name}"]
    boxes = {
        chosen: endpoint.out("run", "-d", "--runtime", chosen, *mark, "busybox", "sh", "-c", "echo up; exec sleep 300")
        for chosen in BACKENDS
    }
    try:
        listed = endpoint.out("ps", "-q", "--no-trunc", "--filter", f"label=all={name}").split()
        assert sorted(listed) == sorted(boxes.values())
        for chosen, box in boxes.items():
            assert endpoint.out("exec", box, "echo", chosen) == chosen
            endpoint.until("up", "logs", box)
        endpoint.out("kill", *boxes.values())
        assert endpoint.out("ps", "-q", "--filter", f"label=all={name}") == ""
        assert endpoint.out("wait", *boxes.values()).split() == ["137"] * 3
    finally:
        endpoint.docker("rm", "-f", *boxes.values())


@EACH_BACKEND
def test_what_capabilities_refuse_is_refused_with_their_reason(endpoint: Endpoint, backend: str, name: str) -> None:
    refused = {option: reason for option, reason in capabilities(backend).refused_options.items() if option in ASKED}
    assert "HostConfig.Privileged" in refused
    other = endpoint.out("create", "--name", name, "busybox")
    for option, reason in refused.items():
        done = endpoint.docker("create", *(word.format(other=other) for word in ASKED[option]), "busybox")
        assert done.returncode == 1, option
        assert reason in done.stderr.decode(), option
        assert TITLES[backend] in done.stderr.decode(), option


@EACH_BACKEND
def test_each_difference_has_a_reason(backend: str) -> None:
    for what, reason in capabilities(backend).differences.items():
        assert len(reason.split()) > 5, what


# --- the run limit ---


@pytest.fixture(scope="module")
def limited(backend: str) -> Iterator[Endpoint]:
    with running_endpoint("--backend", backend, environment=LIMITS) as endpoint:
        load_images(endpoint)
        yield endpoint


@EACH_BACKEND
def test_inspect_shows_the_run_limit(limited: Endpoint, backend: str) -> None:
    box = limited.out("create", "busybox")
    shown = json.loads(limited.out("inspect", "-f", "{{json .Sockerless}}", box))
    assert shown["Backend"] == backend
    assert 0 < shown["RunLimitSeconds"] <= LIMIT
    limited.out("rm", box)


@EACH_BACKEND
def test_a_run_that_passes_its_limit_ends_and_says_why(limited: Endpoint, backend: str) -> None:
    script = "trap 'echo told; exit 0' TERM; echo up; while :; do sleep 0.1; done"
    box = limited.out("run", "-d", "busybox", "sh", "-c", script)
    following = limited.spawn("logs", "-f", box)
    limited.out("wait", box, timeout=40)
    assert following.communicate(timeout=20)[0] == b"up\ntold\n"
    state = json.loads(limited.out("inspect", "-f", "{{json .State}}", box))
    assert state["Status"] == "exited"
    if not capabilities(backend).enforces_limit:
        assert "limit" in state["Error"], state
    # Its next run has a limit of its own.
    limited.out("start", box)
    assert limited.out("exec", box, "echo", "again") == "again"
    assert limited.docker("run", "--rm", "busybox", "sh", "-c", "sleep 1; exit 5").returncode == 5
    limited.out("rm", "-f", box)


# --- a crash ---


@EACH_BACKEND
def test_what_runs_while_up_is_killed_is_held_again(backend: str) -> None:
    """An instance that no request holds is ended after the platform's idle time: here six seconds."""
    settings = {"SOCKERLESS_LOCAL_IDLE": "6", "SOCKERLESS_GCF_POOL": "0", "SOCKERLESS_RECONCILE_INTERVAL": "0.5"}
    with running_endpoint("--backend", backend, environment=settings) as own:
        load_images(own)
        script = "echo before; while ! test -e /go; do sleep 0.1; done; echo after; exit 8"
        box = own.out("run", "-d", "--name", "box", "busybox", "sh", "-c", script)
        ended = own.out("run", "-d", "--name", "ended", "busybox", "sh", "-c", "sleep 1; exit 9")
        own.until("before", "logs", "box")
        own.kill()
        time.sleep(1.5)
        own.start()
        assert own.out("wait", ended) == "9"
        time.sleep(9)
        assert own.out("ps", "-q", "--no-trunc") == box
        assert own.out("exec", "box", "echo", "inside") == "inside"
        own.docker("exec", "box", "touch", "/go")  # may itself be killed with the container
        assert own.out("wait", "box") == "8"
        assert own.out("logs", "box") == "before\nafter"
        assert own.out("inspect", "-f", "{{.RestartCount}}", "box") == "0"
        own.out("rm", "box", "ended")
        Cloud(own).until_left({})


# --- settings ---


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("SOCKERLESS_GCF_TIMEOUT", "3601"),
        ("SOCKERLESS_GCF_CPU", "none"),
        ("SOCKERLESS_GCF_POOL", "-1"),
        ("SOCKERLESS_AZF_TIMEOUT", "soon"),
    ],
)
def test_up_names_a_setting_it_cannot_use(tmp_path_factory: pytest.TempPathFactory, variable: str, value: str) -> None:
    endpoint = Endpoint(tmp_path_factory.mktemp("d"), environment={variable: value})
    with pytest.raises(RuntimeError):
        endpoint.start()
    assert endpoint.process is not None
    assert endpoint.process.wait(20) == 1
    (line,) = endpoint.log.read_text().splitlines()
    assert line.startswith(f"sockerless: {variable}: ")


def test_up_refuses_an_unknown_default(tmp_path_factory: pytest.TempPathFactory) -> None:
    endpoint = Endpoint(tmp_path_factory.mktemp("d"), options=("--backend", "nosuch"))
    with pytest.raises(RuntimeError):
        endpoint.start()
    (line,) = endpoint.log.read_text().splitlines()
    assert all(f"{word}" in line for word in ("nosuch", *BACKENDS))
