"""How many cloud calls each Docker command costs on each backend, as the local cloud counted them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.backends import EACH_BACKEND
from tests.e2e.cloud import Cloud
from tests.e2e.conftest import load_images
from tests.e2e.endpoint import Endpoint, running_endpoint

pytestmark = EACH_BACKEND

NONE: dict[str, int] = {}
STEPS: dict[str, list[list[str]]] = {
    "create, the first of its image": [["create", "--name", "one", "busybox", "sleep", "300"]],
    "its start": [["start", "one"]],
    "what looks at it": [
        ["ps", "-a"], ["inspect", "one"], ["exec", "one", "true"], ["logs", "one"], ["top", "one"],
        ["cp", "one:/etc/passwd", "-"], ["pause", "one"], ["unpause", "one"],
    ],
    "stop": [["stop", "-t", "0", "one"]],
    "wait": [["wait", "one"]],
    "start again": [["start", "one"]],
    "restart": [["restart", "-t", "0", "one"]],
    "create, the second": [["create", "--name", "two", "busybox", "sleep", "300"]],
    "the second's start": [["start", "two"]],
    "rm": [["rm", "-f", "two"]],
    "create, after one was removed": [["create", "--name", "three", "busybox", "sh", "-c", "exit 5"]],
    "the third's start and end": [["start", "three"], ["wait", "three"]],
    "rm of a stopped one": [["rm", "three"]],
}  # fmt: skip
"""Docker commands in their order, by what a row of the table is called."""

COSTS: dict[str, dict[str, dict[str, int]]] = {
    "cloudrun": {
        # The image with the agent's layer is pushed; then the job that is not there is made, and run again.
        "its start": {
            "Registry.HeadBlob": 2, "Registry.StartUpload": 2, "Registry.FinishUpload": 2, "Registry.PutManifest": 1,
            "Jobs.RunJob": 2, "Jobs.CreateJob": 1,
        },
        "the second's start": {"Jobs.RunJob": 1},
        "the third's start and end": {"Jobs.RunJob": 1},
    },
    "gcf": {},
    "azf": {},
}  # fmt: skip
"""Backend → row → calls by method. A row that is not there costs nothing."""


@pytest.fixture(scope="module")
def costs(backend: str) -> Iterator[dict[str, dict[str, int]]]:
    with running_endpoint("--backend", backend, environment={"SOCKERLESS_GCF_POOL": "1"}) as own:
        load_images(own)
        cloud = Cloud(own)
        cloud.settled()
        counted = {}
        for row, commands in STEPS.items():
            cloud.reset()
            for command in commands:
                own.docker(*command, check=True)
            counted[row] = cloud.settled()
        yield counted


@pytest.mark.parametrize("row", STEPS)
def test_costs(costs: dict[str, dict[str, int]], backend: str, row: str) -> None:
    assert costs[row] == COSTS[backend].get(row, NONE)


@pytest.fixture
def box(endpoint: Endpoint, name: str) -> str:
    endpoint.out("run", "-d", "--name", name, "busybox", "sh", "-c", "echo line; sleep 300")
    endpoint.until("line", "logs", name)
    Cloud(endpoint).settled()
    return name


@pytest.mark.parametrize(
    "command",
    [["info"], ["version"], ["images"], ["volume", "ls"], ["network", "ls"], ["ps", "-a"], ["inspect", "{box}"]],
    ids=lambda command: command[0],
)
def test_what_is_only_looked_at_costs_nothing(endpoint: Endpoint, box: str, command: list[str]) -> None:
    Cloud(endpoint).reset()
    endpoint.docker(*(part.format(box=box) for part in command), check=True)
    assert Cloud(endpoint).calls() == NONE


def test_attach_costs_none(endpoint: Endpoint, box: str) -> None:
    Cloud(endpoint).reset()
    attached = endpoint.spawn("attach", "--no-stdin", box)
    endpoint.out("exec", box, "true")
    attached.kill()
    attached.communicate()
    assert Cloud(endpoint).calls() == NONE
