"""An endpoint whose only backend is Azure Functions: no bucket anywhere."""

from __future__ import annotations

import io
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests import images
from tests.contract.hosted_process import ControlPlaneProcess, local_cloud, new_token


@pytest.fixture
def served(tmp_path: Path) -> Iterator[ControlPlaneProcess]:
    with local_cloud(tmp_path) as variables:
        azure = {
            "SOCKERLESS_GCR_PROJECT": "",
            "SOCKERLESS_GCP_ENDPOINT": "",
            "SOCKERLESS_GCP_STORAGE_ENDPOINT": "",
            "SOCKERLESS_REGISTRY_URL": variables["SOCKERLESS_REGISTRY_URL"],
            "SOCKERLESS_ENDPOINT_URL": variables["SOCKERLESS_REGISTRY_URL"],
            "SOCKERLESS_AZF_SUBSCRIPTION_ID": "00000000-0000-0000-0000-000000000000",
            "SOCKERLESS_AZF_RESOURCE_GROUP": "local",
            "SOCKERLESS_AZF_STORAGE_ACCOUNT": "local",
            "SOCKERLESS_AZF_STORAGE_KEY": "bG9jYWw=",
        }
        served = ControlPlaneProcess(tmp_path, azure, token=new_token(tmp_path))
        served.start()
        try:
            served.out("load", stdin=images.busybox())
            yield served
        finally:
            served.stop()


def test_files_copied_in_before_a_start_are_kept_in_the_registry(served: ControlPlaneProcess, tmp_path: Path) -> None:
    assert "azf: Azure Functions" in served.out("info")
    container = served.out("create", "busybox", "sleep", "1")
    content = bytes(range(256)) * 12_000
    (tmp_path / "file").write_bytes(content)
    served.out("cp", str(tmp_path / "file"), f"{container}:/tmp/one")
    served.out("cp", str(tmp_path / "file"), f"{container}:/tmp/two")
    for name in ("one", "two"):
        back = served.docker("cp", f"{container}:/tmp/{name}", "-")
        assert back.returncode == 0, back.stderr
        with tarfile.open(fileobj=io.BytesIO(back.stdout)) as tar:
            member = tar.extractfile(name)
            assert member is not None
            assert member.read() == content
    kept = _tags(served)
    assert len(kept) == 2
    served.out("rm", container)
    deadline = time.monotonic() + 10
    while _tags(served):  # given up in the background
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _tags(served: ControlPlaneProcess) -> list[str]:
    base = served.variables["SOCKERLESS_REGISTRY_URL"]
    answer = httpx.get(f"{base}/v2/local/sockerless/team/sockerless.internal/staged/tags/list")
    return list(answer.json().get("tags") or []) if answer.status_code == 200 else []


def test_a_volume_is_refused_with_the_reason(served: ControlPlaneProcess) -> None:
    refused = served.docker("volume", "create", "data")
    assert refused.returncode == 1
    assert b"cannot mount any" in refused.stderr
    assert served.out("volume", "ls", "-q") == ""
    mounted = served.docker("create", "-v", "data:/data", "busybox")
    assert mounted.returncode == 1
    assert served.out("volume", "ls", "-q") == ""
