"""The agent's HTTP face: what a function's or a site's front end asks of the real agent."""

from __future__ import annotations

import asyncio
import json
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.contract.agent_container import spec
from tests.contract.agent_instance import KEY, UNNAMED, Instance, instance


async def test_pings_are_answered_and_nothing_else_is_served(tmp_path: Path) -> None:
    async with instance(tmp_path) as one:
        for method, path in [("GET", "/"), ("HEAD", "/any/path?x=y"), ("GET", "/robots.txt"), ("GET", "/api/run")]:
            answer = await one.client.request(method, path)
            assert (answer.status_code, answer.content) == (200, b""), path
        for method in ("GET", "POST"):
            assert (await one.client.request(method, "/admin/host/ping")).status_code == 200
            status = await one.client.request(method, "/admin/host/status")
            assert (status.status_code, status.json()["state"]) == (200, "Running")
        assert (await one.client.post("/other", headers={"X-Sockerless-Invoke": KEY})).status_code == 404
        refused = await one.client.put("/")
        assert (refused.status_code, refused.headers["allow"]) == (405, "GET, HEAD, POST")
        assert one.peer.links == 0


async def test_an_invocation_without_the_key_is_refused(tmp_path: Path) -> None:
    async with instance(tmp_path) as one:
        for key in ("", "x", KEY[:-1], KEY + "0", KEY.upper()):
            assert (await one.invoke(key=key)).status_code == 403, key
        assert (await one.client.post("/", content=b"{")).status_code == 403
        assert one.peer.links == 0


@pytest.mark.parametrize("path", ["/", "/run", "/api/run"])
async def test_a_held_invocation_is_answered_with_the_exit(tmp_path: Path, path: str) -> None:
    async with instance(tmp_path) as one:
        held = one.hold(path=path)
        assert (await one.peer.hello())["held"] is True
        assert (await one.peer.start(spec("sh", "-c", "exit 7")))["type"] == "started"
        answer = await held
        exited = await one.peer.event("exited")
        assert answer.status_code == 200
        exit_info = {"code": 7, "oom": False, "at": exited["at"]}
        assert answer.json() == {"container": "c0ffee", "run": 1, "exit": exit_info, "released": False}
        assert "error" not in exited
        assert await one.container.exit_code() == 7


async def test_every_held_invocation_is_answered(tmp_path: Path) -> None:
    async with instance(tmp_path) as one:
        first = one.hold()
        await one.peer.start(spec("sleep", "60"))
        others = [one.hold() for _ in range(5)]
        assert (await one.invoke(hold=False)).status_code == 202
        await asyncio.sleep(0.2)
        await one.peer.call("signal", signal=9)
        answers = [await held for held in [first, *others]]
        assert {answer.json()["exit"]["code"] for answer in answers} == {137}


async def test_nothing_is_dialled_before_the_first_invocation_which_says_who_the_agent_is(tmp_path: Path) -> None:
    async with instance(tmp_path, **UNNAMED) as one:
        await asyncio.sleep(0.3)
        assert one.peer.links == 0
        lacking = await one.invoke()
        assert (lacking.status_code, "lacks callback" in lacking.text) == (400, True)
        held = one.hold(container="another", callback=one.peer.url, token="secret")
        assert (await one.peer.hello())["container"] == "another"
        refused = await one.invoke()
        assert (refused.status_code, "another container" in refused.text) == (409, True)
        await one.peer.start(spec("true"))
        assert (await held).json()["container"] == "another"


async def test_what_the_invocation_brings_counts(tmp_path: Path) -> None:
    async with instance(tmp_path, SOCKERLESS_AGENT_TOKEN="stale", SOCKERLESS_CALLBACK_URL="http://127.0.0.1:9") as one:
        held = one.hold(callback=one.peer.url, token="secret")
        await one.peer.start(spec("true"))
        assert (await held).json()["exit"]["code"] == 0


async def test_an_invocation_may_bring_several_gateways(tmp_path: Path) -> None:
    async with instance(tmp_path, **UNNAMED) as one:
        held = one.hold(callback=f"http://127.0.0.1:9 http://127.0.0.1:10 {one.peer.url}", token="secret")
        await one.peer.start(spec("true"))
        assert (await held).json()["exit"]["code"] == 0


async def test_another_containers_invocation_is_refused(tmp_path: Path) -> None:
    async with instance(tmp_path) as one:
        assert (await one.invoke(container="another")).status_code == 409
        assert one.peer.links == 0


async def test_a_lingering_agent_is_released_at_the_limit_and_invoked_again(tmp_path: Path) -> None:
    async with instance(tmp_path) as one:
        held = one.hold(limit_seconds=1)
        await one.peer.start(spec("true", linger_seconds=-1))
        answer = (await held).json()
        assert (answer["released"], answer["exit"]["code"]) == (True, 0)
        released = await one.peer.event("released")
        assert (released["run"], len([e for e in one.peer.events if e["type"] == "released"])) == (1, 1)
        again = one.hold(run=2)
        await asyncio.sleep(0.2)
        await one.peer.call("start", spec=spec("sh", "-c", "exit 3", run=2), streams=[])
        answer = (await again).json()
        assert (answer["run"], answer["exit"]["code"], answer["released"]) == (2, 3, False)


@pytest.mark.parametrize("mode", ["function", "app"])
async def test_the_limit_ends_the_process_and_says_so(tmp_path: Path, mode: str) -> None:
    async with instance(tmp_path, mode) as one:
        held = one.hold(limit_seconds=1.5)
        await one.peer.start(spec("sleep", "60"))
        exited = await one.peer.event("exited")
        assert (exited["code"], exited["error"]) == (143, "the run limit of 1.5 seconds was reached")
        answer = (await held).json()
        assert (answer["exit"]["code"], answer["released"]) == (143, False)


async def test_a_run_ended_at_its_limit_lingers_released(tmp_path: Path) -> None:
    async with instance(tmp_path) as one:
        held = one.hold(limit_seconds=1)
        await one.peer.start(spec("sleep", "60", linger_seconds=-1))
        answer = (await held).json()
        assert (answer["exit"]["code"], answer["released"]) == (143, True)
        kinds = [e["type"] for e in one.peer.events]
        await one.peer.event("released")
        assert kinds[:2] == ["started", "exited"]


async def test_a_newer_invocation_brings_a_limit_of_its_own(tmp_path: Path) -> None:
    async with instance(tmp_path) as one:
        one.hold(limit_seconds=1)
        await one.peer.start(spec("sh", "-c", "sleep 2; exit 4"))
        held = one.hold(limit_seconds=60)
        assert (await held).json()["exit"]["code"] == 4


async def test_a_connection_that_breaks_is_reported(tmp_path: Path) -> None:
    async with instance(tmp_path) as one:
        held = one.hold()
        await one.peer.start(spec("sleep", "60"))
        other = one.hold()
        await asyncio.sleep(0.2)
        held.cancel()
        await asyncio.sleep(0.2)
        assert not [e for e in one.peer.events if e["type"] == "released"]
        other.cancel()
        assert (await one.peer.event("released"))["run"] == 1
        assert one.peer.link
        one.peer.link.cut()
        await one.peer.until(lambda: len(one.peer.hellos) == 2)
        assert one.peer.hellos[1]["held"] is False
        await one.peer.until(lambda: one.peer.link is not None)
        one.peer.tell({"type": "welcome", "action": "resume", "streams": []})
        again = one.hold()
        await asyncio.sleep(0.2)
        await one.peer.call("shutdown", kill=True)
        assert (await again).json()["exit"]["code"] == 137


def _custom(body: Any, **headers: Any) -> dict[str, Any]:
    request = {"Url": "https://x/api/run", "Method": "POST", "Headers": headers, "Body": body}
    return {"Data": {"req": request}, "Metadata": {"sys": {"MethodName": "run"}}}


async def test_the_functions_hosts_contract(tmp_path: Path) -> None:
    async with instance(tmp_path) as one:
        refused = await one.client.post("/run", json=_custom(one.body()))
        assert (refused.status_code, refused.json()["Outputs"]["res"]["statusCode"]) == (200, 403)
        key = {"x-sockerless-invoke": [KEY]}
        answer = await one.client.post("/run", json=_custom(one.body(hold=False), **key))
        outputs = answer.json()
        assert (answer.status_code, outputs["Logs"], outputs["ReturnValue"]) == (200, None, None)
        assert outputs["Outputs"]["res"]["statusCode"] == 202
        assert outputs["Outputs"]["res"]["body"]["boot"] == (await one.peer.hello())["boot"]
        plain = {"X-Sockerless-Invoke": KEY}
        held = asyncio.create_task(one.client.post("/run", json=_custom(json.dumps(one.body()), **plain)))
        await asyncio.sleep(0.2)
        await one.peer.start(spec("true"))
        response = (await held).json()["Outputs"]["res"]
        assert (response["statusCode"], response["body"]["exit"]["code"]) == (200, 0)


async def _ended(one: Instance) -> None:
    assert one.container.process.poll() is None
    assert (await one.client.get("/")).status_code == 200
    late = await one.invoke(run=2, hold=False)
    assert (late.status_code, late.json()) == (409, {"message": "ended"})
    one.container.signal(signal.SIGTERM)


async def test_an_app_stays_when_it_is_done_until_it_is_told_to_end(tmp_path: Path) -> None:
    async with instance(tmp_path, "app") as one:
        assert "held" not in one.peer.hellos[0]
        answer = await one.invoke(hold=False)
        assert (answer.status_code, answer.json()) == (
            202,
            {"container": "c0ffee", "boot": one.peer.hellos[0]["boot"]},
        )
        held = one.hold()
        end = one.peer.attach()
        await one.peer.start(spec("sh", "-c", "echo out; exit 5"), [end.id])
        assert (await held).json()["exit"]["code"] == 5
        assert (await end.end()).demultiplexed()[0] == b"out\n"
        assert one.peer.link
        await one.peer.until(lambda: one.peer.link.close_code == 1000)  # type: ignore[union-attr]
        again = (await one.invoke()).json()
        assert (again["run"], again["exit"]["code"], again["released"]) == (1, 5, False)
        await asyncio.sleep(0.5)
        assert (one.peer.links, one.peer.spares) == (1, [])
        await _ended(one)
        assert await one.container.exit_code() == 5


@pytest.mark.parametrize("how", ["welcome", "call"])
async def test_an_app_that_is_shut_down_waits_as_well(tmp_path: Path, how: str) -> None:
    async with instance(tmp_path, "app") as one:
        if how == "welcome":
            one.peer.tell({"type": "welcome", "action": "shutdown", "streams": []})
        else:
            await one.peer.start(spec("sleep", "60", linger_seconds=-1))
            await one.peer.call("shutdown", kill=True)
            await one.peer.event("exited", code=137)
        assert one.peer.link
        await one.peer.until(lambda: one.peer.link.close_code == 1000)  # type: ignore[union-attr]
        await _ended(one)
        await one.container.exit_code()


async def test_held_invocations_are_answered_when_the_platform_ends_the_instance(tmp_path: Path) -> None:
    async with instance(tmp_path) as one:
        held = one.hold()
        await one.peer.hello()
        end = one.peer.attach()
        script = "trap 'exit 9' TERM; echo up; while :; do sleep 0.1; done"
        await one.peer.start(spec("sh", "-c", script, linger_seconds=-1), [end.id])
        await end.output(b"up")
        one.peer.ack_events = False  # the answer does not wait for a control plane that is slow
        one.container.signal(signal.SIGTERM)
        assert (await held).json()["exit"]["code"] == 9
        assert await one.container.exit_code() == 9


async def test_an_instance_that_was_never_invoked_ends(tmp_path: Path) -> None:
    async with instance(tmp_path, **UNNAMED) as one:
        one.container.signal(signal.SIGTERM)
        assert await one.container.exit_code() == 143


async def test_invocations_that_make_no_sense_are_refused(tmp_path: Path) -> None:
    async with instance(tmp_path, **UNNAMED) as one:
        headers = {"X-Sockerless-Invoke": KEY}
        whole = one.body(callback=one.peer.url, token="secret")
        wrong: list[dict[str, Any]] = [
            {"container": ""},
            {"container": "a/b"},
            {"container": "x" * 200},
            {"container": 7},
            {"run": -1},
            {"run": "1"},
            {"limit_seconds": -1},
            {"limit_seconds": 1e300},
            {"limit_seconds": "10"},
            {"hold": "yes"},
            {"token": "a\r\nHost: b"},
            {"token": "x" * 9000},
            {"callback": "ftp://h"},
            {"callback": "http://h ftp://i"},
            {"callback": " "},
            {"callback": "http://h\r\nX: y"},
        ]
        bodies = [json.dumps(whole | fields).encode() for fields in wrong]
        bodies += [b"", b"{", b"[]", b"null", b"\xff", b"{}", json.dumps(whole).encode() + b"x", b"[" * 60000]
        for body in bodies:
            answer = await one.client.post("/", content=body, headers=headers)
            assert answer.status_code == 400, (body[:100], answer.text)
        too_long = await one.client.post("/", content=b" " * 65537, headers=headers)
        assert too_long.status_code == 413
        assert (await one.client.post("/", content=b" " * (4 << 20), headers=headers)).status_code == 413
        assert one.peer.links == 0


async def test_hostile_requests_are_refused_and_leave_the_agent_well(tmp_path: Path) -> None:
    async with instance(tmp_path) as one:
        post = b"POST / HTTP/1.1\r\nHost: h\r\n"
        for request, status in [
            (b"nonsense\r\n\r\n", b"400"),
            (post + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", b"400"),
            (post + b"X-Sockerless-Invoke: a\r\nX-Sockerless-Invoke: b\r\n\r\n", b"400"),
            (b"GET / HTTP/1.1\r\nHost: h\r\nX: " + b"x" * 50000 + b"\r\n\r\n", b"431"),
        ]:
            assert (await one.raw(request)).startswith(b"HTTP/1.1 " + status)
        crowd = [await asyncio.open_connection("127.0.0.1", one.port) for _ in range(300)]
        assert await asyncio.wait_for(crowd[-1][0].read(), 5) == b""  # too many at once
        for _, writer in crowd:
            writer.close()
        await asyncio.sleep(0.2)
        assert (await one.client.get("/")).status_code == 200
        assert one.container.resident() < 24 << 20


async def test_the_process_gets_neither_the_listener_nor_the_key(tmp_path: Path) -> None:
    async with instance(tmp_path) as one:
        held = one.hold()
        script = """
          ls /proc/$$/fd; env | grep -E 'SOCKERLESS|PORT'; cat /proc/1/environ 2>/dev/null && echo leaked
          readlink /proc/1/fd/* && echo leaked; true"""
        await one.peer.hello()
        end = one.peer.attach()
        limits = [{"name": "nofile", "soft": 100, "hard": 200}]
        await one.peer.start(spec("sh", "-c", script, ulimits=limits), [end.id])
        assert (await end.end()).demultiplexed()[0] == b"0\n1\n2\n"
        await held


async def test_lines_of_a_functions_log_are_labelled(tmp_path: Path) -> None:
    async with instance(tmp_path, **UNNAMED) as one:
        held = one.hold(callback=one.peer.url, token="secret")
        await one.peer.start(spec("echo", 'a "line"'))
        await held
        (line,) = one.lines()
        assert line["message"] == 'a "line"'
        assert line["sockerless"] == {"run": 1, "partial": False}
        assert line["logging.googleapis.com/labels"] == {"sockerless-container": "c0ffee"}


async def test_lines_of_an_apps_log_say_their_stream_and_order(tmp_path: Path) -> None:
    async with instance(tmp_path, "app") as one:
        await one.peer.start(spec("sh", "-c", "echo a; sleep 0.1; echo b >&2; sleep 0.1; printf c"))
        await one.peer.event("exited")
        await one.peer.until(lambda: one.peer.link.close_code == 1000)  # type: ignore[union-attr]
        lines = sorted(one.lines() + one.lines("stderr"), key=lambda line: int(line["sockerless"]["n"]))
        base = {"run": 1, "container": "c0ffee"}
        assert [(line["message"], line["sockerless"]) for line in lines] == [
            ("a", base | {"partial": False, "stream": "stdout", "n": 1}),
            ("b", base | {"partial": False, "stream": "stderr", "n": 2}),
            ("c", base | {"partial": True, "stream": "stdout", "n": 3}),
        ]


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"SOCKERLESS_AGENT_MODE": "other"}, "SOCKERLESS_AGENT_MODE must be"),
        ({"SOCKERLESS_INVOKE_KEY": ""}, "SOCKERLESS_INVOKE_KEY must be set"),
        ({"PORT": ""}, "must be set"),
        ({"PORT": "70000"}, "PORT must be a port"),
        ({"SOCKERLESS_AGENT_MODE": "app", "SOCKERLESS_CONTAINER_ID": ""}, "SOCKERLESS_CONTAINER_ID"),
    ],
)
async def test_an_agent_that_cannot_serve_says_why(tmp_path: Path, settings: dict[str, str], text: str) -> None:
    with pytest.raises(AssertionError, match=text):
        async with instance(tmp_path, **settings):
            pass


@pytest.mark.parametrize("name", ["FUNCTIONS_CUSTOMHANDLER_PORT", "WEBSITES_PORT"])
async def test_other_names_of_the_settings(tmp_path: Path, name: str) -> None:
    settings = {"SOCKERLESS_CALLBACK_URL": "", "SOCKERLESS_AGENT_CALLBACK_URL": "{url}"}
    async with instance(tmp_path, "app", PORT="", **{name: "{port}"}, **settings) as one:
        assert (await one.client.get("/")).status_code == 200
