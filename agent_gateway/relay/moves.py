"""Agents and streams that move between gateways: told to, because this one drains, or found to have done so.

docs/wire-protocol.md, section 9. Where an agent is, the control plane knows by its hellos; a client half that is sent
off asks there before it dials again, so that the two halves of a stream meet at the same relay.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from agent_gateway.relay.links import Links
from agent_gateway.relay.pairing import Pair, Pairs

ATTACH = "attach"
_KEPT_SECONDS = 120.0
_MOVE_SECONDS = 1.0
"""While draining: so long agents have for their move before their streams are sent after them."""
_ELSEWHERE = "the agent is linked to another gateway"
_OTHERS_TOLD = 4


class Moves:
    """What this relay knows of the other gateways, and of agents that went there."""

    def __init__(self, links: Links, pairs: Pairs) -> None:
        self._links = links
        self._pairs = pairs
        self._others: list[str] = []
        self._gone: dict[str, asyncio.TimerHandle] = {}
        """Containers whose agents have turned up elsewhere lately."""

    def others(self, urls: Sequence[str]) -> None:
        """The other gateways that live now; agents are told where they may dial when this one is gone."""
        if set(urls) == set(self._others):
            return
        self._others = list(urls)
        for link in self._links.all():
            self.tell(link.container)

    def welcomed(self, container: str, gateways: object) -> None:
        """An agent is welcome here. `gateways`: the URLs of the others, if the control plane has said them."""
        if isinstance(gateways, list):
            self.others([url for url in gateways if isinstance(url, str)])
        self.tell(container)

    def tell(self, container: str) -> None:
        """Tells one agent."""
        link = self._links.get(container)
        if link is not None and link.socket is not None and link.welcomed and self._others:
            # Not all agents the same ones, lest all go to one gateway.
            start = hash(container) % len(self._others)
            turned = self._others[start:] + self._others[:start]
            link.socket.send({"type": "gateways", "urls": turned[:_OTHERS_TOLD]})

    def elsewhere(self, container: str) -> bool:
        """Whether the container's agent was last seen at another gateway."""
        return container in self._gone

    def arrived(self, container: str) -> None:
        """Its agent is here (again)."""
        timer = self._gone.pop(container, None)
        if timer is not None:
            timer.cancel()

    def move(self, container: str, params: Mapping[str, Any]) -> dict[str, Any]:
        """The control plane says that the agent is at another gateway: client halves that wait here follow it.

        The answer's `streams` are attachments: the agent starts its process when they have come.
        """
        link = self._links.get(container)
        number = params.get("link")
        if link is not None and link.socket is not None:
            same = link.hello.get("boot") == params.get("boot")
            if same and isinstance(number, int) and int(link.hello.get("link") or 0) > number:
                return {"streams": []}  # it has come back since
            self._links.give_up(link)
        elif link is not None:
            self._links.give_up(link)
        self.arrived(container)
        loop = asyncio.get_running_loop()
        self._gone[container] = loop.call_later(_KEPT_SECONDS, self._gone.pop, container, None)
        waiting = [pair for pair in self._pairs.of(container) if pair.client is not None and pair.agent is None]
        for pair in waiting:
            pair.send_off(_ELSEWHERE)
        return {"streams": [pair.stream for pair in waiting if pair.kind == ATTACH]}

    def follow(self, pair: Pair) -> bool:
        """Sends a client half without agent half after an agent that has moved; False when it has not."""
        if not self.elsewhere(pair.container) or pair.ended:
            return False
        pair.send_off(_ELSEWHERE)
        return True

    async def drain(self, seconds: float) -> None:
        """Tells agents to dial elsewhere, then cuts what can go on elsewhere; what cannot has `seconds` to end."""
        targets = itertools.cycle(self._others or [""])
        for link in self._links.all():
            if link.socket is not None:
                target = next(targets)
                link.socket.send({"type": "drain", "gateway": target} if target else {"type": "drain"})
        loop = asyncio.get_running_loop()
        begun = loop.time()
        while len(self._pairs) and loop.time() < begun + seconds:
            for pair in self._pairs.all():
                linked = self._links.get(pair.container)
                moved = linked is None or linked.socket is None or loop.time() > begun + _MOVE_SECONDS
                if moved and pair.redials:
                    pair.go_away()
            await asyncio.sleep(0.05)
        for pair in self._pairs.all():
            pair.go_away()
        for link in self._links.all():
            if link.gone_timer is not None:
                link.gone_timer.cancel()
            if link.socket is not None:
                link.socket.close(1001, "going away")
            self._links.drop_spares(link.container)
