"""Whatever is sent: every answer is Docker's error form or a success, never a 500."""

from __future__ import annotations

import asyncio
import logging
import tempfile
from pathlib import Path
from typing import Any
from urllib.parse import quote

import orjson
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from control_plane.api.schemas.container import CreateBody
from control_plane.api.schemas.host import HostConfigWire
from control_plane.routes import ROUTES
from tests.core_fakes import MODULES, Endpoint

SETTINGS = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])

text = st.text(max_size=12) | st.sampled_from(
    [
        "",
        "/",
        "/x",
        "a:/b",
        "/a:/b:ro",
        "container:x",
        "host",
        "80/tcp",
        "x=y",
        "busybox",
        "\0",
        "no",
        "é\ud7ff",
        "../..",
    ]
)
scalars = st.none() | st.booleans() | st.integers(-(2**65), 2**65) | st.floats(allow_nan=False) | text
json_values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=8,
)
config_fields = st.sampled_from(sorted(CreateBody.model_fields))
host_fields = st.sampled_from(sorted(HostConfigWire.model_fields))
hosts = st.dictionaries(host_fields, json_values, max_size=4)
bodies = st.builds(
    lambda config, host: {"Image": "busybox", **config, "HostConfig": host},
    st.dictionaries(config_fields, json_values, max_size=4),
    hosts | json_values,
)
right_types: dict[str, Any] = {
    "Binds": st.lists(text, max_size=3),
    "Tmpfs": st.dictionaries(text, text, max_size=2),
    "Mounts": st.lists(
        st.fixed_dictionaries(
            {},
            optional={
                "Type": st.sampled_from(["bind", "volume", "tmpfs", "image", "x"]),
                "Source": text,
                "Target": text,
                "ReadOnly": st.booleans(),
                "BindOptions": st.none() | st.fixed_dictionaries({}, optional={"Propagation": text}),
                "VolumeOptions": st.none()
                | st.fixed_dictionaries({}, optional={"Subpath": text, "DriverConfig": st.just({"Name": "x"})}),
                "TmpfsOptions": st.none()
                | st.fixed_dictionaries(
                    {}, optional={"SizeBytes": st.integers(-5, 2**40), "Mode": st.integers(-5, 99)}
                ),
            },
        ),
        max_size=3,
    ),
    "ExtraHosts": st.lists(text, max_size=2),
    "CapAdd": st.lists(text, max_size=2),
    "NetworkMode": text,
    "RestartPolicy": st.builds(
        lambda name, count: {"Name": name, "MaximumRetryCount": count}, text, st.integers(-3, 3)
    ),
    "VolumesFrom": st.lists(text, max_size=2),
    "Runtime": text,
    "ConsoleSize": st.lists(st.integers(), max_size=3),
    "LogConfig": st.builds(lambda name: {"Type": name}, text),
    "Memory": st.integers(-(2**40), 2**40),
    "IpcMode": text,
}
typed_bodies = st.builds(
    lambda host, env, volumes, name: {
        "Image": "busybox",
        "Env": env,
        "Volumes": volumes,
        "WorkingDir": name,
        "StopSignal": name,
        "HostConfig": host,
    },
    st.fixed_dictionaries({}, optional=right_types),
    st.lists(text, max_size=3),
    st.dictionaries(text, st.just({}), max_size=2),
    text,
)


async def _send(requests: list[tuple[str, str, bytes | None]]) -> list[tuple[int, bytes]]:
    with tempfile.TemporaryDirectory() as directory:
        endpoint = Endpoint(Path(directory))
        try:
            await endpoint.add("box", id="ab" * 32)
            answers = []
            for method, path, content in requests:
                headers = {"content-type": "application/json"} if content is not None else {}
                answer = await endpoint.client.request(method, path, content=content, headers=headers)
                answers.append((answer.status_code, answer.content))
            return answers
        finally:
            await endpoint.close()


def _check(*requests: tuple[str, str, bytes | None]) -> None:
    logging.getLogger("control_plane.app").setLevel(logging.CRITICAL)
    for (method, path, content), (status, body) in zip(requests, asyncio.run(_send(list(requests))), strict=True):
        shown = (method, path, content, status, body)
        assert status < 600, shown
        assert status != 500, shown
        if status >= 400 and method != "HEAD" and b"client version" not in body:
            message = orjson.loads(body)
            assert list(message) == ["message"], shown
            assert isinstance(message["message"], str), shown
            assert message["message"], shown


def _encoded(body: Any) -> bytes:
    return orjson.dumps(body, default=str, option=orjson.OPT_NON_STR_KEYS) if _fits(body) else b"{" + b"9" * 400


def _fits(value: Any) -> bool:
    try:
        orjson.dumps(value)
    except (TypeError, orjson.JSONEncodeError):
        return False
    return True


@SETTINGS
@given(bodies, text)
def test_create_with_any_body(body: Any, name: str) -> None:
    _check(("POST", f"/containers/create?name={quote(name, errors='replace')}", _encoded(body)))


@SETTINGS
@given(typed_bodies, st.sampled_from(["1.24", "1.40", "1.41", "1.43", "1.47", "1.50"]))
def test_create_with_odd_values_of_the_right_type(body: Any, version: str) -> None:
    path = f"/v{version}/containers/create"
    _check(("POST", path, _encoded(body)), ("GET", "/containers/json?all=1&size=1", None), ("GET", "/system/df", None))


@SETTINGS
@given(st.binary(max_size=40) | st.builds(_encoded, json_values))
def test_any_bytes_as_a_body(content: bytes) -> None:
    _check(("POST", "/containers/create", content), ("POST", "/containers/box/update", content))


@SETTINGS
@given(st.dictionaries(host_fields, json_values, max_size=4))
def test_update_with_any_body(body: Any) -> None:
    _check(("POST", "/containers/box/update", _encoded(body)))


FILTERS = "ancestor before expose exited health id is-task isolation label name network publish since status volume x"
filter_names = st.sampled_from(FILTERS.split())
filters = st.dictionaries(filter_names, json_values | st.lists(text, max_size=2), max_size=3)


@SETTINGS
@given(filters | json_values, text, text)
def test_lists_and_events_with_any_query(filters: Any, limit: str, other: str) -> None:
    encoded = quote(_encoded(filters))
    limit, other = quote(limit, errors="replace"), quote(other, errors="replace")
    _check(
        ("GET", f"/containers/json?filters={encoded}&limit={limit}&all={other}&size={other}", None),
        ("GET", f"/events?since={limit}&until=1&filters={encoded}", None),
        ("GET", f"/system/df?type={other}", None),
        ("POST", f"/containers/box/wait?condition={other}", None),
        ("POST", f"/containers/box/rename?name={other}", None),
    )


served = [route for route in ROUTES if not route.handler or route.handler.split(".")[0] in MODULES]
paths = st.builds(
    lambda route, value, version: (
        route.method,
        version + route.path.replace("{id}", value).replace("{name}", value).replace("{checkpoint}", value),
    ),
    st.sampled_from([route for route in served if route.path != "/events"]),
    st.builds(lambda raw: quote(raw, safe="/:@", errors="replace"), text),
    st.sampled_from(["", "/v1.24", "/v1.50", "/v1.60", "/v0", "/v", "/v1..4", "//", "/v1.50/v1.50"]),
)


@SETTINGS
@given(paths, st.binary(max_size=10) | st.none())
def test_any_path(target: tuple[str, str], content: bytes | None) -> None:
    method, path = target
    _check((method, path if path.startswith("/") else f"/{path}", content))
