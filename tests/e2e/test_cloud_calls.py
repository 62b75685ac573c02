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
        ["info"], ["version"], ["images"], ["volume", "ls"], ["network", "ls"], ["system", "df"],
    ],
    "stop": [["stop", "-t", "0", "one"]],
    "wait": [["wait", "one"]],
    "start again": [["start", "one"]],
    "restart": [["restart", "-t", "0", "one"]],
    "create, the second of its image": [["create", "--name", "two", "busybox", "sleep", "300"]],
    "the second's start": [["start", "two"]],
    "rm of a running one": [["rm", "-f", "two"]],
    "ten seconds with one running": [],
    "create, the third": [["create", "--name", "three", "busybox", "sh", "-c", "exit 5"]],
    "the third's start and end": [["start", "three"], ["wait", "three"]],
    "rm of a stopped one": [["rm", "three"]],
}  # fmt: skip
"""Docker commands in their order, by what a row of the table is called."""

QUIET = {"rm of a running one": 3.0, "ten seconds with one running": 11.0}
"""Row → seconds without a call after which it counts as over, where it is longer than the usual: what a removed
container ran in goes two seconds after its agent, and a function is made in a claimed one's place after ten."""

_PUSHED = {"Registry.HeadBlob": 2, "Registry.StartUpload": 2, "Registry.FinishUpload": 2, "Registry.PutManifest": 1}
"""The image with the agent's layer: two blobs and a manifest."""
_DEPLOYED = {"Plans.CreateOrUpdate": 1, "Plans.Get": 1, "Sites.CreateOrUpdate": 1, "Sites.Get": 1}
"""An app and its plan, and a look at each when its operation is over."""

COSTS: dict[str, dict[str, dict[str, int]]] = {
    "cloudrun": {
        # The job that is not there is made, and run again.
        "its start": _PUSHED | {"Jobs.RunJob": 2, "Jobs.CreateJob": 1},
        "the second's start": {"Jobs.RunJob": 1},
        "the third's start and end": {"Jobs.RunJob": 1},
    },
    "gcf": {
        # One for the container and one for the next, and the stub's source for all.
        "create, the first of its image": _PUSHED | {
            "Storage.GetBucket": 1, "Storage.InsertBucket": 1, "Storage.GetObject": 1, "Storage.InsertObject": 1,
            "Functions.CreateFunction": 2, "Services.GetService": 2, "Services.UpdateService": 2,
            "Metadata.IdentityToken": 1,
        },
        "its start": {"Functions.Invoke": 1},
        "create, the second of its image": {"Metadata.IdentityToken": 1},
        "the second's start": {"Functions.Invoke": 1},
        "the third's start and end": {"Functions.Invoke": 1},
    },
    "azf": {
        "create, the first of its image": _PUSHED | {"Identity.Token": 1} | _DEPLOYED,
        "its start": {"Sites.Start": 1, "Sites.Invoke": 1},
        "create, the second of its image": _DEPLOYED,
        "the second's start": {"Sites.Start": 1, "Sites.Invoke": 1},
        "rm of a running one": {"Sites.Delete": 1, "Plans.Delete": 1},
        "create, the third": _DEPLOYED,
        "the third's start and end": {"Sites.Start": 1, "Sites.Invoke": 1},
        "rm of a stopped one": {"Sites.Delete": 1, "Plans.Delete": 1},
    },
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
            cloud.until_all(COSTS[backend].get(row, NONE))
            counted[row] = cloud.settled(QUIET.get(row, 0.8))
        yield counted


@pytest.mark.parametrize("row", STEPS)
def test_costs(costs: dict[str, dict[str, int]], backend: str, row: str) -> None:
    assert costs[row] == COSTS[backend].get(row, NONE)


def test_attach_costs_none(endpoint: Endpoint, name: str) -> None:
    cloud = Cloud(endpoint)
    endpoint.out("run", "-d", "--name", name, "busybox", "sh", "-c", "echo line; sleep 300")
    endpoint.until("line", "logs", name)
    cloud.settled(3)
    cloud.reset()
    attached = endpoint.spawn("attach", "--no-stdin", name)
    endpoint.out("exec", name, "true")
    attached.kill()
    attached.communicate()
    assert cloud.calls() == NONE
