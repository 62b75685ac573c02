"""The ways into a hosted endpoint."""

from __future__ import annotations

import pytest

WAYS = ("connect", "haproxy")

BY_EACH_WAY = pytest.mark.parametrize("endpoint", WAYS, indirect=True, scope="session")
"""On modules whose tests hold on both: `sockerless connect`, and the docker CLI alone through HAProxy."""
