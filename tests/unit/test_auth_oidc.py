"""Tokens of issuers: genuine ones by rule, hostile ones never; keys fetched rarely, bounded, rotated."""

from __future__ import annotations

import base64
import json
import time
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from control_plane.auth.caller import Caller
from control_plane.auth.oidc import Oidc
from control_plane.auth.oidc_rules import OidcRule, parse_rules
from control_plane.auth.refusal import NotAuthenticated
from control_plane.errors import Forbidden, Unavailable
from tests.auth_issuer import AUDIENCE, Issuer


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def rule(issuer: str, claims: dict[str, Any] | None = None, **fields: Any) -> OidcRule:
    given = {"issuer": issuer, "audience": AUDIENCE, "claims": claims or {"repository": "acme/*"}, "tenant": "acme"}
    return OidcRule.model_validate({**given, **fields})


@pytest.fixture
def issuer() -> Issuer:
    return Issuer()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def oidc(issuer: Issuer, clock: Clock) -> Oidc:
    client = issuer.client()
    return Oidc([rule(issuer.url)], client=lambda: client, clock=clock)


@pytest.mark.parametrize("key", ["rsa", "ec"])
async def test_a_genuine_token(oidc: Oidc, issuer: Issuer, key: str) -> None:
    told = await oidc.caller(issuer.token(key))
    assert told == Caller("acme", "run", "oidc:token.actions.githubusercontent.com:repo:acme/app:ref:refs/heads/main")
    assert issuer.requests == [f"{issuer.url}/.well-known/openid-configuration", f"{issuer.url}/jwks"]
    await oidc.caller(issuer.token(key, aud=["x", AUDIENCE]))
    assert len(issuer.requests) == 2


@pytest.mark.parametrize(
    "claims",
    [
        {"aud": "https://other.example.com"},
        {"aud": None},
        {"aud": []},
        {"aud": {"a": AUDIENCE}},
        {"exp": int(time.time()) - 120},
        {"exp": None},
        {"exp": "soon"},
        {"exp": 10**30},
        {"nbf": int(time.time()) + 3600},
        {"iat": int(time.time()) + 3600},
        {"iat": None},
        {"iat": int(time.time()) - 10 * 86400},
        {"exp": int(time.time()) + 10 * 86400},
        {"iss": "https://evil.example.com"},
        {"iss": "https://token.actions.githubusercontent.com/"},
        {"iss": None},
        {"iss": 5},
        {"sub": None},
        {"sub": 7},
        {"sub": ""},
    ],
)
async def test_claims_that_are_not_ours(oidc: Oidc, issuer: Issuer, claims: dict[str, Any]) -> None:
    given = issuer.claims(**claims)
    # PyJWT would not write some of these itself.
    token = signed(issuer, given)
    with pytest.raises(NotAuthenticated) as refused:
        await oidc.caller(token)
    assert refused.value.message == "the token is not valid, has expired or was revoked"


def part(value: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def signed(issuer: Issuer, claims: dict[str, Any], header: dict[str, Any] | None = None) -> str:
    head = part({"alg": "RS256", "typ": "JWT", "kid": "rsa", **(header or {})})
    content = f"{head}.{part(claims)}"
    algorithm = jwt.algorithms.RSAAlgorithm(jwt.algorithms.RSAAlgorithm.SHA256)
    signature = algorithm.sign(content.encode(), issuer.keys["rsa"])
    return f"{content}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"


async def test_clocks_may_differ_by_a_minute(oidc: Oidc, issuer: Issuer) -> None:
    now = int(time.time())
    assert await oidc.caller(issuer.token(exp=now - 30, iat=now - 300))
    assert await oidc.caller(issuer.token(iat=now + 30, nbf=now + 30))


def hostile(issuer: Issuer) -> dict[str, str]:
    public = (
        issuer.keys["rsa"]
        .public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    head, content, signature = issuer.token().split(".")
    with_secret = jwt.algorithms.HMACAlgorithm(jwt.algorithms.HMACAlgorithm.SHA256)
    confused = f"{part({'alg': 'HS256', 'kid': 'rsa'})}.{content}"
    mac = base64.urlsafe_b64encode(with_secret.sign(confused.encode(), public)).rstrip(b"=").decode()
    thief = Issuer(issuer.url)
    claims = issuer.claims()
    return {
        "no signature": f"{part({'alg': 'none', 'kid': 'rsa'})}.{content}.",
        "none in capitals": f"{part({'alg': 'NONE', 'kid': 'rsa'})}.{content}.",
        "public key as a secret": f"{confused}.{mac}",
        "another's key, same id": thief.token(),
        "other content": f"{head}.{part({**claims, 'repository': 'acme/evil'})}.{signature}",
        "signature cut": f"{head}.{content}.{signature[:-8]}",
        "RS512": signed(issuer, claims, {"alg": "RS512"}),
        "ES256 with an RSA key": signed(issuer, claims, {"alg": "ES256"}),
        "key of its own": signed(thief, claims, {"jwk": thief.jwk("rsa"), "kid": "own"}),
        "keys elsewhere": signed(thief, claims, {"jku": "https://evil.example.com/jwks", "kid": "own"}),
        "critical extension": signed(issuer, claims, {"crit": ["b64"], "b64": True}),
        "no key id": signed(issuer, claims, {"kid": None}),
        "key id of another type": signed(issuer, claims, {"kid": ["rsa"]}),
        "long key id": signed(issuer, claims, {"kid": "x" * 5000}),
        "unknown key id": signed(issuer, claims, {"kid": "../../etc/passwd"}),
        "header not an object": f"{part([])}.{content}.{signature}",
        "claims not an object": f"{head}.{part([1])}.{signature}",
        "not base64": "ey!.!.!",
        "empty parts": "ey..",
        "deep": f"{head}.{base64.urlsafe_b64encode(b'[' * 9000).decode()}.{signature}",
    }


@pytest.mark.parametrize("which", list(hostile(Issuer())))
async def test_hostile_tokens(oidc: Oidc, issuer: Issuer, which: str) -> None:
    with pytest.raises(NotAuthenticated):
        await oidc.caller(hostile(issuer)[which])
    assert all(request.startswith(issuer.url) for request in issuer.requests)
    assert len(issuer.requests) <= 2


async def test_a_genuine_token_without_a_rule_is_told_so(oidc: Oidc, issuer: Issuer) -> None:
    with pytest.raises(Forbidden, match="no rule"):
        await oidc.caller(issuer.token(repository="evil/app"))


async def test_rotated_keys_are_found_and_strange_ids_do_not_make_us_ask(
    oidc: Oidc, issuer: Issuer, clock: Clock
) -> None:
    await oidc.caller(issuer.token())
    asked = len(issuer.requests)
    issuer.keys["rsa2"] = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    issuer.published = ["rsa2"]
    with pytest.raises(NotAuthenticated):
        await oidc.caller(issuer.token("rsa2"))
    assert len(issuer.requests) == asked  # asked a moment ago
    clock.now += 31
    assert await oidc.caller(issuer.token("rsa2"))
    assert len(issuer.requests) == asked + 2
    with pytest.raises(NotAuthenticated):
        await oidc.caller(issuer.token("rsa"))  # withdrawn
    for number in range(50):
        with pytest.raises(NotAuthenticated):
            await oidc.caller(issuer.token("rsa2", {"kid": f"k{number}"}))
    assert len(issuer.requests) == asked + 2


async def test_an_issuer_that_is_down(oidc: Oidc, issuer: Issuer, clock: Clock) -> None:
    issuer.down = True
    with pytest.raises(Unavailable, match="cannot be reached"):
        await oidc.caller(issuer.token())
    issuer.down = False
    clock.now += 31
    assert await oidc.caller(issuer.token())
    issuer.down = True
    clock.now += 4000
    assert await oidc.caller(issuer.token())  # with the keys of an hour ago
    clock.now += 24 * 3600
    with pytest.raises(Unavailable):
        await oidc.caller(issuer.token())


@pytest.mark.parametrize(
    "change",
    [
        {"discovery": {"issuer": "https://other.example.com", "jwks_uri": "https://x.example.com/jwks"}},
        {"discovery": {"issuer": "https://token.actions.githubusercontent.com", "jwks_uri": "http://x.example.com/j"}},
        {"discovery": {"issuer": "https://token.actions.githubusercontent.com", "jwks_uri": "file:///etc/passwd"}},
        {"discovery": {"issuer": "https://token.actions.githubusercontent.com"}},
        {"answers": {"/jwks": httpx.Response(302, headers={"location": "https://evil.example.com/jwks"})}},
        {"answers": {"/jwks": httpx.Response(200, content=b"[" + b" " * 300_000 + b"]")}},
        {"answers": {"/jwks": httpx.Response(200, content=b"no JSON")}},
        {"answers": {"/jwks": httpx.Response(200, json={"keys": "x"})}},
        {"answers": {"/jwks": httpx.Response(200, json={"keys": [{}] * 100})}},
        {"answers": {"/jwks": httpx.Response(200, json={"keys": [None, {"kid": 1}, {"kty": "oct", "kid": "rsa"}]})}},
        {"answers": {"/jwks": httpx.Response(500)}},
    ],
    ids=str,
)
async def test_documents_of_an_issuer_that_are_not_taken(oidc: Oidc, issuer: Issuer, change: dict[str, Any]) -> None:
    for name, value in change.items():
        setattr(issuer, name, value)
    with pytest.raises(Unavailable):
        await oidc.caller(issuer.token())
    assert not any("evil" in request or "file" in request for request in issuer.requests)


async def test_weak_and_foreign_keys_are_none(oidc: Oidc, issuer: Issuer) -> None:
    issuer.keys["small"] = rsa.generate_private_key(public_exponent=65537, key_size=1024)
    issuer.keys["ec-large"] = ec.generate_private_key(ec.SECP384R1())
    issuer.keys["encryption"] = issuer.keys["rsa"]
    issuer.extra = [issuer.jwk("small"), issuer.jwk("ec-large"), issuer.jwk("encryption", use="enc")]
    for key in ("small", "encryption"):
        with pytest.raises(NotAuthenticated):
            await oidc.caller(issuer.token(key))


EXAMPLES: list[tuple[str, dict[str, Any], dict[str, Any], dict[str, Any]]] = [
    (
        "https://token.actions.githubusercontent.com",
        {"repository_owner_id": "12345", "repository": "acme/*", "ref": ["refs/heads/main", "refs/tags/**"]},
        {"repository_owner_id": "12345", "repository": "acme/app", "ref": "refs/tags/v1/rc"},
        {"repository_owner_id": "12345", "repository": "acme/app", "ref": "refs/heads/x"},
    ),
    (
        "https://gitlab.com",
        {"namespace_path": "acme", "project_path": "acme/*", "ref_protected": "true"},
        {"namespace_path": "acme", "project_path": "acme/app", "ref_protected": "true"},
        {"namespace_path": "acme", "project_path": "acme/app/deeper", "ref_protected": "true"},
    ),
    (
        "https://accounts.google.com",
        {"email": "ci@acme.iam.gserviceaccount.com", "email_verified": True},
        {"email": "ci@acme.iam.gserviceaccount.com", "email_verified": True},
        {"email": "ci@acme.iam.gserviceaccount.com", "email_verified": "true"},
    ),
    (
        "https://login.microsoftonline.com/11111111-1111-1111-1111-111111111111/v2.0",
        {"tid": "11111111-1111-1111-1111-111111111111", "roles": "Docker.Run"},
        {"tid": "11111111-1111-1111-1111-111111111111", "roles": ["Other", "Docker.Run"]},
        {"tid": "11111111-1111-1111-1111-111111111111", "roles": ["Docker.Run.Not"]},
    ),
]


@pytest.mark.parametrize(("url", "conditions", "fits", "not_quite"), EXAMPLES, ids=lambda value: str(value)[:30])
async def test_the_four_issuers(
    url: str, conditions: dict[str, Any], fits: dict[str, Any], not_quite: dict[str, Any]
) -> None:
    issuer = Issuer(url)
    client = issuer.client()
    oidc = Oidc([rule(url, conditions, scope="full")], client=lambda: client)
    assert (await oidc.caller(signed_with(issuer, fits))).scope == "full"
    with pytest.raises(Forbidden):
        await oidc.caller(signed_with(issuer, not_quite))
    for missing in conditions:
        with pytest.raises(Forbidden):
            await oidc.caller(signed_with(issuer, {k: v for k, v in fits.items() if k != missing}))


def signed_with(issuer: Issuer, claims: dict[str, Any]) -> str:
    return signed(issuer, {**issuer.claims(repository=None, repository_owner=None, ref=None), **claims})


def test_a_pattern_does_not_cross_what_separates() -> None:
    one = rule("https://gitlab.com", {"sub": "project_path:acme/*:ref_type:branch:ref:main"})
    assert one.fits({"aud": AUDIENCE, "sub": "project_path:acme/app:ref_type:branch:ref:main"})
    for sub in (
        "project_path:acme/a:ref_type:branch:ref:x:ref_type:branch:ref:main",
        "project_path:acme/a/b:ref_type:branch:ref:main",
        "project_path:acme/app:ref_type:branch:ref:main2",
        "xproject_path:acme/app:ref_type:branch:ref:main",
        "project_path:acme/app:ref_type:branch:ref:main\n",
    ):
        assert not one.fits({"aud": AUDIENCE, "sub": sub})


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"issuer": "http://gitlab.example.com"}, "https"),
        ({"issuer": "https://user@gitlab.example.com"}, "https"),
        ({"audience": ""}, "audience"),
        ({"claims": {}}, "claims"),
        ({"claims": {"repository": "*"}}, "everything meets"),
        ({"claims": {"repository": ["acme/x", "**"]}}, "everything meets"),
        ({"claims": {"repository": []}}, "everything meets"),
        ({"claims": {"repository": ""}}, "empty"),
        ({"claims": {"email_verified": True}}, "name nobody"),
        ({"scope": "admin"}, "scope"),
        ({"tenant": ""}, "tenant"),
        ({"surprise": 1}, "surprise"),
    ],
    ids=str,
)
def test_rules_that_would_let_in_too_many_are_refused(change: dict[str, Any], text: str) -> None:
    good = {"issuer": "https://gitlab.com", "audience": AUDIENCE, "claims": {"sub": "x"}, "tenant": "acme"}
    assert parse_rules(json.dumps([good]))[0].scope == "run"
    with pytest.raises(ValueError, match="rule 1: ") as refused:
        parse_rules(json.dumps([{**good, **change}]))
    assert text in str(refused.value)
    for malformed in ("", "{}", "[1]", "null"):
        with pytest.raises(ValueError):  # noqa: PT011
            parse_rules(malformed)
