"""What a wait that is given up says of the work it waited for."""

from __future__ import annotations

import asyncio

import pytest

from control_plane import trouble
from control_plane.backends.calls import CloudError, call


async def test_the_latest_failure_of_a_call_that_goes_on_trying() -> None:
    async def attempt(_: float) -> None:
        raise CloudError("RESOURCE_EXHAUSTED", "", "making it", "writes per minute")

    with trouble.watching() as met, pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await call("making it", attempt)
    assert "cloud quota exhausted while making it: writes per minute" in met.text


async def test_of_a_task_begun_inside_and_of_no_other() -> None:
    async def work() -> None:
        trouble.note("inside")

    with trouble.watching() as met:
        task = asyncio.create_task(work())
    other = trouble.Trouble()
    await task
    trouble.note("nobody watches")
    assert (met.text, other.text) == ("inside", "")
