"""What agents that are held by requests say on their links reaches the control plane as it is."""

from __future__ import annotations

from tests.contract.gateway_peers import FakeAgent, FakeControlPlane, echo, running_gateway
from tests.contract.relay_peers import eventually


async def test_whether_it_is_held_its_limit_and_its_release() -> None:
    plane = FakeControlPlane()
    async with running_gateway(plane) as gateway:
        agent = FakeAgent(gateway.url, "c1", echo)
        await agent.connect(held=True, run=1, running=False)
        await eventually(agent.welcomed.is_set)
        assert (plane.hellos[0]["held"], plane.hellos[0]["container"]) == (True, "c1")
        at = "2026-01-02T03:04:05.000000006Z"
        limit = "the run limit of 3600 seconds was reached"
        exited = {"type": "exited", "seq": 1, "run": 1, "code": 143, "oom": False, "at": at, "error": limit}
        released = {"type": "released", "seq": 2, "run": 1, "at": at}
        for event in (exited, released):
            agent.send(event)
        await eventually(lambda: agent.acked == 2)
        assert plane.events == [exited, released]
        await agent.close()
