"""Answers of what stands before the control plane (a load balancer, a proxy, some other server altogether).

Answers of the control plane carry `Api-Version`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent_gateway.control_plane_client import Refused

if TYPE_CHECKING:
    import httpx


def from_front_end(answer: httpx.Response) -> bool:
    """Whether an answer is not the control plane's."""
    return "api-version" not in answer.headers


def front_end_refusal(url: str, status: int, *, http2: bool = True) -> Refused:
    """What such a server said, as an error that Docker clients can show. `http2`: large bodies go by HTTP/2 there."""
    if status in (401, 403):
        return Refused(status, f"{url} refused the request before the control plane saw it ({status})")
    if status == 413:
        bound = "" if http2 else ": its front end bounds uploads over HTTP/1.1, and offers no HTTP/2"
        return Refused(413, f"{url} does not take a body of that size{bound}")
    if status == 404 or 300 <= status < 400:
        return Refused(502, f"{url} is not a Sockerless endpoint (it answered {status})")
    return Refused(status if status >= 500 else 502, f"{url} has nobody to serve the request now ({status})")
