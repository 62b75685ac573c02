"""An OpenID Connect issuer of the test's own: real keys and signatures, answers as the test wants them."""

from __future__ import annotations

import json
import time
from typing import Any

import httpx
import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa

AUDIENCE = "https://docker.example.com"


class Issuer:
    """`url` signs with the keys that are in `keys`; only the public halves of `published` are told."""

    def __init__(self, url: str = "https://token.actions.githubusercontent.com") -> None:
        self.url = url
        self.keys: dict[str, Any] = {
            "rsa": rsa.generate_private_key(public_exponent=65537, key_size=2048),
            "ec": ec.generate_private_key(ec.SECP256R1()),
        }
        self.published = ["rsa", "ec"]
        self.extra: list[dict[str, Any]] = []
        self.requests: list[str] = []
        self.down = False
        self.discovery: dict[str, Any] = {"issuer": url, "jwks_uri": f"{url}/jwks"}
        self.answers: dict[str, httpx.Response] = {}

    def client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(transport=httpx.MockTransport(self._answer), follow_redirects=False)

    def _answer(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(str(request.url))
        if self.down:
            raise httpx.ConnectError("down")
        if request.url.path in self.answers:
            return self.answers[request.url.path]
        if request.url.path.endswith("/.well-known/openid-configuration"):
            return httpx.Response(200, json=self.discovery)
        return httpx.Response(200, json={"keys": [self.jwk(name) for name in self.published] + self.extra})

    def jwk(self, name: str, **fields: Any) -> dict[str, Any]:
        public = self.keys[name].public_key()
        kind: Any = jwt.algorithms.RSAAlgorithm if isinstance(public, rsa.RSAPublicKey) else jwt.algorithms.ECAlgorithm
        return {**json.loads(kind.to_jwk(public)), "kid": name, "use": "sig", **fields}

    def claims(self, **claims: Any) -> dict[str, Any]:
        """GitHub's; a None takes one away."""
        now = int(time.time())
        given = {
            "iss": self.url,
            "aud": AUDIENCE,
            "sub": "repo:acme/app:ref:refs/heads/main",
            "iat": now,
            "nbf": now,
            "exp": now + 300,
            "repository": "acme/app",
            "repository_owner": "acme",
            "ref": "refs/heads/main",
            **claims,
        }
        return {name: value for name, value in given.items() if value is not None}

    def token(self, key: str = "rsa", headers: dict[str, Any] | None = None, **claims: Any) -> str:
        algorithm = "ES256" if key.startswith("ec") else "RS256"
        return jwt.encode(self.claims(**claims), self.keys[key], algorithm, {"kid": key, **(headers or {})})
