"""Azure Resource Manager's refusals in our terms."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest
from azure.core.exceptions import ClientAuthenticationError, HttpResponseError, ResourceNotFoundError

from control_plane.backends.azure.arm import arm_failure


def _response(status: int, body: dict[str, Any]) -> Any:
    text = json.dumps(body)
    headers = {"Content-Type": "application/json"}
    return SimpleNamespace(
        status_code=status, reason="", headers=headers, text=lambda *_: text, body=text.encode, content_type=None
    )


@pytest.mark.parametrize(
    ("kind", "status", "body", "code", "text"),
    [
        (
            ClientAuthenticationError,
            401,
            {"Code": "Unauthorized", "Message": "This region has quota of 0 instances for your subscription."},
            "FAILED_PRECONDITION",
            "quota of 0 instances",
        ),
        (
            ClientAuthenticationError,
            401,
            {"error": {"code": "InvalidAuthenticationToken", "message": "The access token is invalid."}},
            "UNAUTHENTICATED",
            "",
        ),
        (
            HttpResponseError,
            429,
            {"error": {"code": "SubscriptionRequestsThrottled", "message": "Number of requests exceeded."}},
            "RESOURCE_EXHAUSTED",
            "exceeded",
        ),
        (
            HttpResponseError,
            409,
            {"Code": "Conflict", "Message": "Website with given name x already exists."},
            "ALREADY_EXISTS",
            "already exists",
        ),
        (
            ResourceNotFoundError,
            404,
            {"error": {"code": "ResourceNotFound", "message": "The Resource was not found."}},
            "NOT_FOUND",
            "not found",
        ),
    ],
)
def test_codes(kind: type[HttpResponseError], status: int, body: dict[str, Any], code: str, text: str) -> None:
    failure = arm_failure(kind(message="no", response=_response(status, body)), "making the app")
    assert failure is not None
    assert failure.code == code
    assert text in failure.text
    assert "making the app" in failure.docker().message
