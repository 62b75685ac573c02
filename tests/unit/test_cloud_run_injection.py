"""How the agent gets into a container: which way is taken, and why one is not. Without it: what is refused."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from control_plane.backends.agent_image import AGENT_PATH
from control_plane.backends.cloud_run import injection
from control_plane.backends.cloud_run.job import agent_job, plain_job
from control_plane.backends.location import Location
from control_plane.errors import NotFound, NotServed, ServerError
from control_plane.model import Image
from tests.unit.test_cloud_run_pure import container, image, settings


class Images:
    def __init__(self, *paths: str) -> None:
        self.paths = paths

    async def stat(self, image: Image, path: str) -> Mapping[str, Any]:
        if path not in self.paths:
            raise NotFound(path)
        return {"name": path}

    async def ensure_agent_layer(self, image: Image) -> Image:
        return image.model_copy(update={"agent_digest": "sha256:d"})


class Unwritable(Images):
    """A registry that turns us away."""

    async def ensure_agent_layer(self, image: Image) -> Image:
        raise ServerError("the agent could not be added to the image")


async def test_auto_goes_on_where_the_registry_turns_us_away() -> None:
    launch = await injection.choose(image(), settings(), Unwritable("/bin/sh", "/usr/bin/curl"))
    assert launch.mode == "startup_command"
    with pytest.raises(NotServed, match=r"image_layer: the agent could not be added.*volume: no bucket.*no /bin/sh"):
        await injection.choose(image(), settings(), Unwritable())
    with pytest.raises(ServerError, match="could not be added"):
        await injection.choose(image(), settings(injection="image_layer"), Unwritable("/bin/sh", "/usr/bin/curl"))


async def test_what_no_way_works_for_is_refused_at_create() -> None:
    await injection.check(image(), settings(), Images())
    env = settings(registry_writable=False)
    reasons = (
        r"image_layer: the registry is not writable.*volume: no bucket is named.*startup_command: the image has no"
    )
    with pytest.raises(NotServed, match=reasons):
        await injection.check(image(), env, Images())
    await injection.check(image(), env, Images("/bin/sh", "/bin/wget"))


@pytest.mark.parametrize(
    ("config", "host", "named"),
    [
        ({"User": "app"}, {}, "--user"),
        ({"OpenStdin": True}, {}, "-i"),
        ({"Hostname": "mine"}, {}, "--hostname"),
        ({}, {"ReadonlyRootfs": True}, "--read-only"),
        ({}, {"CapAdd": ["NET_ADMIN"]}, "--cap-add"),
        ({}, {"ShmSize": 1 << 20}, "--shm-size"),
        ({}, {"SecurityOpt": ["no-new-privileges"]}, "--security-opt"),
    ],
)
def test_what_only_an_agent_can_do_is_not_run_without_one(
    config: dict[str, Any], host: dict[str, Any], named: str
) -> None:
    with pytest.raises(NotServed, match=named):
        plain_job(container(config=config, host_config=host), image(), settings())
    usual = {"ShmSize": 64 << 20, "LogConfig": {"Type": "json-file"}, "SecurityOpt": ["label=disable"], "Init": False}
    plain_job(container(config={"Hostname": ("ab" * 32)[:12]}, host_config=usual), image(), settings())


async def test_auto_takes_the_image_layer_first() -> None:
    launch = await injection.choose(image(), settings(), Images("/bin/sh", "/usr/bin/curl"))
    assert (launch.mode, launch.image) == ("image_layer", "host:5/p/busybox@sha256:d")


class AgentPlace:
    """Stands for `AgentVolume`."""

    async def location(self, architecture: str) -> Location:
        return Location("gs", "b", f"agents/linux-{architecture}")


async def test_volume_before_startup_command_where_layers_cannot_be_pushed() -> None:
    env = settings(registry_writable=False, agent_location="gs://b/agents")
    volume: Any = AgentPlace()
    launch = await injection.choose(image(), env, Images("/bin/sh", "/usr/bin/curl"), volume)
    assert launch.mode == "volume"
    job = agent_job(container(), launch, env).job["template"]["template"]
    assert job["volumes"][-1]["gcs"]["read_only"] is True
    assert "only-dir=agents/linux-amd64" in job["volumes"][-1]["gcs"]["mount_options"]
    assert job["containers"][0]["command"] == ["/.sockerless/bin/agent"]


@pytest.mark.parametrize("tool", ["curl", "wget"])
async def test_startup_command_is_a_script_a_shell_can_read(tool: str) -> None:
    env = settings(injection="startup_command")
    launch = await injection.choose(image(), env, Images("/bin/sh", f"/usr/bin/{tool}"))
    assert launch.image == "host:5/p/busybox@sha256:a"
    assert launch.command[:2] == ("/bin/sh", "-c")
    assert f"/usr/bin/{tool} " in launch.command[2]
    assert "agent/binary/linux-amd64" in launch.command[2]
    subprocess.run(["/bin/sh", "-n", "-c", launch.command[2]], check=True)  # noqa: ASYNC221


@pytest.mark.parametrize("tool", ["curl", "wget"])
async def test_startup_command_tries_one_gateway_after_the_other(tool: str, tmp_path: Path) -> None:
    """With a downloader that knows one address and hands out an agent which says that it runs."""
    (tmp_path / "work").mkdir()
    fetch = tmp_path / tool
    fetch.write_text(
        f"""#!/bin/sh
for last; do case $previous in -o|-O) file=$last;; esac; previous=$last; done
echo "$last" >> {tmp_path}/asked
case $last in https://b/*) printf '#!/bin/sh\\necho the agent\\n' > "$file";; *) exit 7;; esac
"""
    )
    fetch.chmod(0o755)
    launch = await injection.choose(
        image(), settings(injection="startup_command"), Images("/bin/sh", f"/usr/bin/{tool}")
    )
    script = launch.command[2].replace(AGENT_PATH, f"{tmp_path}/agent").replace(f"/usr/bin/{tool} ", f"{fetch} ")
    (tmp_path / "work" / "https:").mkdir()  # what a pattern in an address could stand for
    done = subprocess.run(  # noqa: ASYNC221
        ["/bin/sh", "-c", script],
        env={"PATH": "", "SOCKERLESS_CALLBACK_URL": "https://a/pre/ https:* https://b", "SOCKERLESS_AGENT_TOKEN": "t"},
        cwd=tmp_path / "work",
        capture_output=True,
        check=True,
    )
    assert done.stdout == b"the agent\n"
    asked = (tmp_path / "asked").read_text().split()
    path = "/agent/binary/linux-amd64"
    assert asked == [f"https://a/pre{path}", f"https:*{path}", f"https://b{path}"]


@pytest.mark.parametrize(
    ("paths", "user", "callback", "reason"),
    [
        ((), "", "", "no /bin/sh"),
        (("/bin/sh",), "", "", "neither curl nor wget"),
        (("/bin/sh", "/bin/wget"), "app", "", "user is not root"),
        (("/bin/sh", "/bin/wget"), "", "unix:///x.sock", "unix socket"),
    ],
)
async def test_why_startup_command_does_not_work_is_said(
    paths: tuple[str, ...], user: str, callback: str, reason: str
) -> None:
    env = settings(injection="startup_command", callback_url=callback)
    with pytest.raises(NotServed, match=reason):
        await injection.choose(image(config={"config": {"User": user}}), env, Images(*paths))
