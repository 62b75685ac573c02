"""The backends that the suite runs on. What differs on one is what its `Capabilities` say, and nothing else."""

from __future__ import annotations

import pytest

from control_plane.backends.base import Capabilities
from control_plane.compatibility import known_capabilities

_KNOWN = {known.name: known for known in known_capabilities()}

BACKENDS = ("cloudrun", "gcf", "azf")

EACH_BACKEND = pytest.mark.parametrize("backend", BACKENDS, indirect=True, scope="session")
"""On tests and modules that hold for every backend: they run once on an endpoint whose default it is."""


def takes(*options: str) -> pytest.MarkDecorator:
    """Options of create (`HostConfig.Binds`) that a test cannot do without: it is skipped where one is refused."""
    return pytest.mark.takes(*options)


def capabilities(backend: str) -> Capabilities:
    """What a backend says of itself."""
    return _KNOWN[backend]


def missing(backend: str, option: str) -> str:
    """Why a backend refuses an option; empty when it does not."""
    return capabilities(backend).refused_options.get(option, "")
