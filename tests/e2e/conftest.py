"""One endpoint a backend for the whole run, with two images loaded; tests that break things start their own."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator

import pytest

from tests import images
from tests.e2e.backends import missing
from tests.e2e.endpoint import Endpoint, running_endpoint


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "takes(*options): skipped on backends whose capabilities refuse one of them")


def load_images(endpoint: Endpoint) -> None:
    assert "Loaded image: busybox:latest" in endpoint.out("load", stdin=images.busybox())
    assert "Loaded image: single:latest" in endpoint.out("load", stdin=images.scratch())


@pytest.fixture(scope="session")
def backend(request: pytest.FixtureRequest) -> str:
    """Where a test's containers run: `backends.EACH_BACKEND` gives it one after the other, else it is `cloudrun`."""
    return str(getattr(request, "param", "cloudrun"))


@pytest.fixture(autouse=True)
def _served(request: pytest.FixtureRequest, backend: str) -> None:
    for mark in request.node.iter_markers("takes"):
        for taken in mark.args:
            if reason := missing(backend, taken):
                pytest.skip(f"{taken} on {backend}: {reason}")


@pytest.fixture(scope="session")
def endpoints() -> Iterator[Callable[[str], Endpoint]]:
    """Backend → the endpoint whose default it is, started when first asked for."""
    if shutil.which("docker") is None:
        pytest.fail("the docker CLI is not installed (Debian: docker.io)")
    running: dict[str, Endpoint] = {}
    with contextlib.ExitStack() as all_of_them:

        def of(backend: str) -> Endpoint:
            if backend not in running:
                running[backend] = all_of_them.enter_context(running_endpoint("--backend", backend))
                load_images(running[backend])
            return running[backend]

        yield of


@pytest.fixture(scope="session")
def endpoint(backend: str, endpoints: Callable[[str], Endpoint]) -> Endpoint:
    return endpoints(backend)


@pytest.fixture
def name(request: pytest.FixtureRequest, endpoint: Endpoint) -> Iterator[str]:
    """A container name of the test's own; whatever bears it is removed afterwards."""
    chosen = request.node.name.replace("[", "-").replace("]", "").replace("/", "-")[:60]
    yield chosen
    endpoint.docker("rm", "-f", "-v", chosen)
