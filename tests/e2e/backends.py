"""The backends that the suite runs on. What differs on one is what its `Capabilities` say, and nothing else."""

from __future__ import annotations

import pytest

from control_plane.backends.base import Capabilities
from control_plane.compatibility import known_capabilities

BACKENDS = ("cloudrun", "gcf", "azf")

EACH_BACKEND = pytest.mark.parametrize("backend", BACKENDS, indirect=True, scope="session")
"""On tests and modules that hold for every backend: they run once on an endpoint whose default it is."""


def takes(*options: str) -> pytest.MarkDecorator:
    """What a test cannot do without: an option of create (`HostConfig.Binds`), skipped where it is refused, or a word
    of `Capabilities` that can be false (`agentless`)."""
    return pytest.mark.takes(*options)


def capabilities(backend: str) -> Capabilities:
    """What a backend says of itself."""
    return next(known for known in known_capabilities() if known.name == backend)


def missing(backend: str, taken: str) -> str:
    """Why a backend has not what a test takes; empty when it has."""
    says = capabilities(backend)
    if taken == "agentless":
        return "" if says.agentless else says.differences["without agent"]
    return says.refused_options.get(taken, "")
