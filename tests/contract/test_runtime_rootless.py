"""Containers for an ordinary user: with one id, and with a range from /etc/subuid."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from local_cloud.runtime import userns

_SCRIPT = Path(__file__).with_name("runtime_rootless_script.py")
_NOBODY = 65534


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory every user can reach, unlike pytest's own."""
    directory = Path(tempfile.mkdtemp(prefix="sockerless-rootless-"))
    yield directory
    subprocess.run(["rm", "-rf", str(directory)], check=False)


def results(place: Path, uid: int) -> dict[str, Any]:
    """What the script printed as this user."""
    if os.geteuid() != 0:
        pytest.skip("only root can become another user; the other tests are then the ordinary user's")
    os.chown(place, uid, uid)
    for python in (sys.executable, shutil.which("python3", path="/usr/bin:/usr/local/bin") or ""):
        done = subprocess.run(
            [python, "-c", f"import sys; assert sys.version_info >= (3, 11); open({str(_SCRIPT)!r})"],
            user=uid, group=uid, extra_groups=[], capture_output=True, check=False, cwd="/",
        ) if python and _reachable(python, uid) else None  # fmt: skip
        if done is not None and done.returncode == 0:
            break
    else:
        pytest.skip("no Python that an ordinary user may run can read this directory")
    done = subprocess.run(
        [python, "-B", str(_SCRIPT), str(place)], user=uid, group=uid, extra_groups=[], capture_output=True,
        check=False, cwd="/", env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr.decode()
    found = dict(json.loads(done.stdout))
    if "skip" in found:
        pytest.skip(found["skip"])
    return found


def _reachable(path: str, uid: int) -> bool:
    try:
        return (
            subprocess.run(["/usr/bin/test", "-x", path], user=uid, group=uid, extra_groups=[], check=False).returncode
            == 0
        )
    except OSError:
        return False


def _check_common(found: dict[str, Any]) -> None:
    assert found["root"] == [0, "0\napp\n3\nx\n1\n", ""]
    assert found["network"] == "host"
    assert found["left"] == []


def test_with_a_single_id(place: Path) -> None:
    if not userns.range_available(_NOBODY):
        pytest.skip("nobody has a range of ids here")
    found = results(place, _NOBODY)
    _check_common(found)
    assert any("one user id only" in text for text in found["shortcomings"])
    assert found["other"][:2] == [0, "77\n88\nx\n"], found["other"]
    code, out, errors = found["files"]
    assert (code, out) == (1, "0\n"), errors  # there is no id 5 to give the file to
    assert "Invalid argument" in errors


def test_with_a_range_of_ids(place: Path) -> None:
    account = next(
        (entry for entry in pwd.getpwall() if entry.pw_uid >= 1000 and not userns.range_available(entry.pw_uid)), None
    )
    if account is None:
        pytest.skip("no account with newuidmap and a range in /etc/subuid (apt-get install uidmap)")
    found = results(place, account.pw_uid)
    _check_common(found)
    assert not any("one user id only" in text for text in found["shortcomings"])
    assert found["other"][:2] == [0, "77\n88\nx\n"], found["other"]
    assert found["files"][:2] == [0, "1000\n5\n"], found["files"]
