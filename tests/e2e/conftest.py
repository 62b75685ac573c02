"""One endpoint for the whole run, with two images loaded; tests that break things start their own."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest

from tests import images
from tests.e2e.endpoint import Endpoint, running_endpoint


def load_images(endpoint: Endpoint) -> None:
    assert "Loaded image: busybox:latest" in endpoint.out("load", stdin=images.busybox())
    assert "Loaded image: single:latest" in endpoint.out("load", stdin=images.scratch())


@pytest.fixture(scope="session")
def endpoint() -> Iterator[Endpoint]:
    if shutil.which("docker") is None:
        pytest.fail("the docker CLI is not installed (Debian: docker.io)")
    with running_endpoint() as running:
        load_images(running)
        yield running


@pytest.fixture
def name(request: pytest.FixtureRequest, endpoint: Endpoint) -> Iterator[str]:
    """A container name of the test's own; whatever bears it is removed afterwards."""
    chosen = request.node.name.replace("[", "-").replace("]", "").replace("/", "-")[:60]
    yield chosen
    endpoint.docker("rm", "-f", "-v", chosen)
