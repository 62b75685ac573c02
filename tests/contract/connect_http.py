"""Requests to a connector that no docker command makes."""

from __future__ import annotations

from typing import Any

import httpx


def client(address: str) -> httpx.Client:
    if address.startswith("unix://"):
        return httpx.Client(
            transport=httpx.HTTPTransport(uds=address.removeprefix("unix://")), base_url="http://d", timeout=60
        )
    return httpx.Client(base_url=address.replace("tcp://", "http://"), timeout=60, trust_env=False)


def over_unix(address: str, method: str, path: str) -> tuple[int, Any]:
    with client(address) as connection:
        answer = connection.request(method, path)
        return answer.status_code, answer.json()
