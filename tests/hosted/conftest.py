"""One hosted endpoint for a kind of store, and the ways in."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.contract.store_servers import Missing, firestore_server
from tests.e2e.endpoint import Endpoint
from tests.hosted.deployment import Deployment, deployed
from tests.hosted.ways import WAYS


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "takes(*options): what a test needs of a backend; the one here has it all")


def _stores() -> list[str]:
    """`REHEARSAL_STORES`, with commas between; else Firestore where its emulator is, else SQLite."""
    if chosen := os.environ.get("REHEARSAL_STORES"):
        return chosen.split(",")
    try:
        firestore_server()
    except Missing:
        return ["sqlite"]
    return ["firestore"]


@pytest.fixture(scope="session", params=_stores())
def deployment(request: pytest.FixtureRequest) -> Iterator[Deployment]:
    with deployed(request.param) as found:
        yield found


@pytest.fixture(scope="session")
def backend() -> str:
    """The one that a hosted deployment here has."""
    return "cloudrun"


@pytest.fixture(scope="session", params=WAYS)
def endpoint(request: pytest.FixtureRequest, deployment: Deployment) -> Endpoint:
    """The tenant red's."""
    return deployment.connects["red"] if request.param == "connect" else deployment.direct("red")


@pytest.fixture
def name(request: pytest.FixtureRequest, deployment: Deployment) -> Iterator[str]:
    """A container name of the test's own; whatever bears it is removed afterwards."""
    chosen = "".join(c if c.isalnum() else "-" for c in request.node.name).strip("-")[:60]
    yield chosen
    for connect in deployment.connects.values():
        connect.docker("rm", "-f", "-v", chosen)
