"""The life of a container: ps, inspect, wait, stop, kill, restart, pause, rename, prune, events."""

from __future__ import annotations

import json
import subprocess
import time

import pytest

from tests.e2e.backends import EACH_BACKEND
from tests.e2e.endpoint import Endpoint
from tests.e2e.live_events import until_destroyed

pytestmark = EACH_BACKEND

RUNNING = "{{.State.Running}}"


def test_ps_filters(endpoint: Endpoint, name: str) -> None:
    mark = f"mark={name}"
    running = endpoint.out("run", "-d", "--label", mark, "--label", "kind=a", "busybox", "sleep", "300")
    exited = endpoint.out("create", "--label", mark, "busybox", "sh", "-c", "exit 5")
    endpoint.docker("start", "-a", exited)
    created = endpoint.out("create", "--label", mark, "busybox")
    try:

        def ps(*options: str) -> set[str]:
            return set(endpoint.out("ps", "-q", "--no-trunc", "--filter", f"label={mark}", *options).split())

        assert ps() == {running}
        assert ps("-a") == {running, exited, created}
        assert ps("-a", "--filter", "status=exited") == {exited}
        assert ps("-a", "--filter", "exited=5") == {exited}
        assert ps("-a", "--filter", "label=kind=a") == {running}
        assert ps("-a", "--filter", f"before={exited}") == {running}
        assert ps("-a", "--filter", f"since={exited}") == {created}
        assert ps("-a", "--filter", f"id={created[:14]}") == {created}
        assert ps("-a", "--filter", "ancestor=busybox") == {running, exited, created}
        assert ps("-n", "1") == {created}
        table = endpoint.out(
            "ps", "-a", "--no-trunc", "--format", "{{.ID}} {{.Image}} {{.Status}}", "--filter", f"label={mark}"
        )
        assert f"{created} busybox Created" in table
        assert f"{exited} busybox Exited (5)" in table
        assert f"{running} busybox Up" in table
    finally:
        endpoint.docker("rm", "-f", running, exited, created)


def test_ids_resolve_by_prefix_and_name(endpoint: Endpoint, name: str) -> None:
    identifier = endpoint.out("create", "--name", name, "busybox")
    for reference in (identifier, identifier[:12], identifier[:5], name, f"/{name}"):
        assert endpoint.out("inspect", "-f", "{{.Id}}", reference) == identifier
    missing = endpoint.docker("inspect", "--type", "container", "no-such-container")
    assert b"No such container: no-such-container" in missing.stderr


def test_inspect_tells_what_was_asked_for(endpoint: Endpoint, backend: str, name: str) -> None:
    endpoint.out(
        "create",
        "--name",
        name,
        "-e",
        "A=b",
        "--label",
        "l=v",
        "--stop-signal",
        "USR1",
        "--stop-timeout",
        "3",
        "busybox",
        "echo",
        "x",
    )
    seen = json.loads(endpoint.out("inspect", name))[0]
    assert seen["Config"]["Cmd"] == ["echo", "x"]
    assert "A=b" in seen["Config"]["Env"]
    assert seen["Config"]["Labels"]["l"] == "v"
    assert (seen["Config"]["StopSignal"], seen["Config"]["StopTimeout"]) == ("USR1", 3)
    assert (seen["Path"], seen["Args"]) == ("echo", ["x"])
    assert seen["State"]["Status"] == "created"
    assert seen["HostConfig"]["Runtime"] == backend
    assert seen["Image"].startswith("sha256:")


def test_wait_started_before_and_after_the_exit(endpoint: Endpoint, name: str) -> None:
    endpoint.out("run", "-d", "--name", name, "busybox", "sh", "-c", "sleep 1; exit 9")
    before = endpoint.spawn("wait", name)
    assert before.communicate(timeout=20)[0].strip() == b"9"
    assert endpoint.out("wait", name) == "9"


def test_stop_honours_a_trap(endpoint: Endpoint, name: str) -> None:
    endpoint.out(
        "run",
        "-d",
        "--name",
        name,
        "busybox",
        "sh",
        "-c",
        "trap 'echo trapped; exit 3' TERM; echo ready; while :; do sleep 0.1; done",
    )
    endpoint.until("ready", "logs", name)
    endpoint.out("stop", name)
    assert endpoint.out("inspect", "-f", "{{.State.ExitCode}}", name) == "3"
    assert endpoint.out("logs", name) == "ready\ntrapped"


def test_stop_kills_after_the_grace(endpoint: Endpoint, name: str) -> None:
    endpoint.out(
        "run", "-d", "--name", name, "busybox", "sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.1; done"
    )
    endpoint.until("ready", "logs", name)
    endpoint.out("stop", "-t", "1", name)
    assert endpoint.out("inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", name) == "exited 137"
    assert endpoint.docker("stop", name).returncode == 0


def test_kill_with_a_signal(endpoint: Endpoint, name: str) -> None:
    endpoint.out(
        "run",
        "-d",
        "--name",
        name,
        "busybox",
        "sh",
        "-c",
        "trap 'echo usr1' USR1; echo ready; while :; do sleep 0.1; done",
    )
    endpoint.until("ready", "logs", name)
    endpoint.out("kill", "-s", "USR1", name)
    endpoint.until("ready\nusr1", "logs", name)
    assert endpoint.out("inspect", "-f", RUNNING, name) == "true"
    endpoint.out("kill", name)
    assert endpoint.out("wait", name) == "137"
    refused = endpoint.docker("kill", name)
    assert refused.returncode == 1
    assert b"is not running" in refused.stderr


def test_restart_keeps_the_file_system(endpoint: Endpoint, name: str) -> None:
    endpoint.out("run", "-d", "--name", name, "busybox", "sh", "-c", "echo run >> /runs; cat /runs; exec sleep 300")
    endpoint.until("run", "logs", name)
    endpoint.out("restart", "-t", "0", name)
    endpoint.until("run\nrun\nrun", "logs", name)
    assert endpoint.out("inspect", "-f", RUNNING, name) == "true"


def test_start_again_after_the_exit(endpoint: Endpoint, name: str) -> None:
    endpoint.out("run", "--name", name, "busybox", "sh", "-c", "echo x >> /n; wc -l < /n")
    assert endpoint.out("start", "-a", name) == "2"
    assert endpoint.out("start", "-a", name) == "3"


def test_pause_stops_the_clock(endpoint: Endpoint, name: str) -> None:
    endpoint.out("run", "-d", "--name", name, "busybox", "sh", "-c", "while :; do echo tick; sleep 0.05; done")
    endpoint.out("pause", name)
    assert endpoint.out("inspect", "-f", "{{.State.Status}} {{.State.Paused}}", name) == "paused true"
    still = endpoint.out("logs", name)
    time.sleep(0.4)
    assert endpoint.out("logs", name) == still
    refused = endpoint.docker("exec", name, "true")
    assert b"is paused" in refused.stderr
    endpoint.out("unpause", name)
    deadline = time.monotonic() + 10
    while endpoint.out("logs", name) == still:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_rename(endpoint: Endpoint, name: str) -> None:
    identifier = endpoint.out("create", "--name", f"{name}-old", "busybox")
    endpoint.out("rename", f"{name}-old", name)
    assert endpoint.out("inspect", "-f", "{{.Id}}", name) == identifier
    assert endpoint.docker("inspect", f"{name}-old").returncode == 1


def test_update_changes_the_restart_policy(endpoint: Endpoint, name: str) -> None:
    endpoint.out("create", "--name", name, "busybox")
    endpoint.out("update", "--restart", "on-failure:2", name)
    assert endpoint.out("inspect", "-f", "{{.HostConfig.RestartPolicy.Name}}", name) == "on-failure"


def test_restart_policy_runs_it_again(endpoint: Endpoint, name: str) -> None:
    endpoint.out("run", "-d", "--name", name, "--restart", "on-failure:2", "busybox", "sh", "-c", "echo once; exit 4")
    endpoint.until("exited 4 2", "inspect", "-f", "{{.State.Status}} {{.State.ExitCode}} {{.RestartCount}}", name)
    assert endpoint.out("logs", name) == "once\nonce\nonce"


def test_running_container_is_removed_by_force_only(endpoint: Endpoint, name: str) -> None:
    endpoint.out("run", "-d", "--name", name, "busybox", "sleep", "300")
    refused = endpoint.docker("rm", name)
    assert refused.returncode == 1
    assert b"container is running" in refused.stderr
    endpoint.out("rm", "-f", name)
    assert endpoint.docker("inspect", name).returncode == 1


def test_top_lists_the_processes(endpoint: Endpoint, name: str) -> None:
    endpoint.out("run", "-d", "--name", name, "busybox", "sleep", "300")
    titles, *rows = endpoint.out("top", name).splitlines()
    assert titles.split()[0] == "UID"
    assert [row for row in rows if row.endswith("sleep 300")]
    assert endpoint.out("top", name, "-o", "pid,args").splitlines()[0].split() == ["PID", "COMMAND"]


def test_health_check(endpoint: Endpoint, name: str) -> None:
    endpoint.out(
        "run", "-d", "--name", name, "--health-cmd", "test -e /ok", "--health-interval", "200ms",
        "--health-retries", "1",
        "busybox", "sh", "-c", "sleep 1; touch /ok; exec sleep 300",
    )  # fmt: skip
    endpoint.until("healthy", "inspect", "-f", "{{.State.Health.Status}}", name)
    assert "(healthy)" in endpoint.out("ps", "--filter", f"name={name}", "--format", "{{.Status}}")


def test_container_prune(endpoint: Endpoint, name: str) -> None:
    endpoint.out("run", "--name", name, "--label", f"prune={name}", "busybox", "true")
    assert endpoint.out("inspect", "-f", "{{.Id}}", name) in endpoint.out(
        "container", "prune", "-f", "--filter", f"label=prune={name}"
    )
    assert endpoint.docker("inspect", name).returncode == 1


def test_events_tell_the_story(endpoint: Endpoint, name: str) -> None:
    live = endpoint.spawn("events", "--filter", f"container={name}", "--format", "{{.Action}}")
    time.sleep(2)  # for it to listen, also on a busy machine
    endpoint.docker("run", "--rm", "--name", name, "busybox", "sh", "-c", "exit 6")
    assert until_destroyed(live) == ["create", "start", "die", "destroy"]
    past = endpoint.out(
        "events",
        "--since",
        "1m",
        "--until",
        f"{time.time():.9f}",  # of "0s" the CLI makes whole seconds
        "--filter",
        f"container={name}",
        "--filter",
        "event=die",
        "--format",
        '{{index .Actor.Attributes "exitCode"}}',
    )
    assert past == "6"


def test_attach_to_a_running_container(endpoint: Endpoint, name: str) -> None:
    endpoint.out("run", "-d", "-i", "--name", name, "busybox", "sh", "-c", "read line; echo got $line; exit 5")
    attached = endpoint.spawn("attach", name)
    assert _told_in_return(attached, b"something\n") == b"got something\n"
    assert attached.wait(20) == 5


def _told_in_return(attached: subprocess.Popen[bytes], line: bytes) -> bytes:
    """Everything a `docker attach` prints for one line of stdin.

    Its stdin stays open until it has ended by itself: the CLI loses what comes after the end of its stdin when the
    container exits at once (with dockerd too).
    """
    assert attached.stdin is not None
    assert attached.stdout is not None
    attached.stdin.write(line)
    attached.stdin.flush()
    with attached:
        return attached.stdout.read()


def test_several_attachments_see_the_same(endpoint: Endpoint, name: str) -> None:
    endpoint.out("run", "-d", "-i", "--name", name, "busybox", "sh", "-c", "read go; echo once; sleep 0.3")
    watchers = [endpoint.spawn("attach", "--no-stdin", name) for _ in range(2)]
    time.sleep(2)
    leader = endpoint.spawn("attach", name)
    assert _told_in_return(leader, b"go\n") == b"once\n"
    assert leader.wait(20) == 0
    assert [watcher.communicate(timeout=20)[0] for watcher in watchers] == [b"once\n", b"once\n"]


def test_info_and_version(endpoint: Endpoint, backend: str) -> None:
    assert endpoint.out("version", "-f", "{{.Server.Os}}") == "linux"
    assert tuple(map(int, endpoint.out("version", "-f", "{{.Server.APIVersion}}").split("."))) >= (1, 47)
    assert endpoint.out("info", "-f", "{{.DefaultRuntime}}") == backend


@pytest.mark.parametrize("version", ["1.24", "1.41", "1.47"])
def test_older_clients(endpoint: Endpoint, name: str, version: str) -> None:
    done = subprocess.run(
        ["docker", "run", "--rm", "--name", name, "busybox", "echo", "old"],
        env=endpoint.docker_environment(DOCKER_API_VERSION=version), capture_output=True, timeout=30, check=False,
    )  # fmt: skip
    assert done.stdout == b"old\n", done.stderr


def test_published_networks_and_volumes_are_records(endpoint: Endpoint, name: str) -> None:
    endpoint.out("network", "create", name)
    try:
        endpoint.out("run", "-d", "--name", name, "--network", name, "busybox", "sleep", "300")
        assert name in endpoint.out("network", "inspect", "-f", "{{range .Containers}}{{.Name}}{{end}}", name)
        endpoint.out("network", "disconnect", "-f", name, name)
        endpoint.out("network", "connect", name, name)
    finally:
        endpoint.docker("rm", "-f", name)
        endpoint.out("network", "rm", name)
