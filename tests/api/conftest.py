from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.core_fakes import Endpoint


@pytest.fixture
async def endpoint(tmp_path: Path) -> AsyncIterator[Endpoint]:
    opened = Endpoint(tmp_path)
    yield opened
    await opened.close()
