"""What an endpoint left in the cloud when its state was lost is found by its labels and removed."""

from __future__ import annotations

from tests.e2e.backends import BACKENDS
from tests.e2e.cloud import Cloud
from tests.e2e.conftest import load_images
from tests.e2e.endpoint import running_endpoint

SETTINGS = {
    "SOCKERLESS_SWEEP_INTERVAL": "1",
    "SOCKERLESS_SWEEP_GRACE": "1",
    "SOCKERLESS_RECONCILE_INTERVAL": "0.5",
    "SOCKERLESS_GCF_POOL": "0",
}
OF_ONE_EACH = {
    "run.executions.running": 1,
    "functions": 1, "run.services": 1, "run.instances": 1,
    "web.sites": 1, "web.plans": 1,
    "instances": 2,
}  # fmt: skip


def test_orphans_of_all_kinds_are_removed_and_nothing_else() -> None:
    with running_endpoint(environment=SETTINGS) as own:
        load_images(own)
        cloud = Cloud(own)
        for chosen in BACKENDS:
            own.out("run", "-d", "--runtime", chosen, "busybox", "sleep", "3600")
            own.out("create", "--runtime", chosen, "busybox", "true")
            exited = own.out("run", "-d", "--runtime", chosen, "busybox", "true")
            own.out("wait", exited)
        cloud.settled()
        before = cloud.resources()
        assert (before["functions"], before["web.sites"]) == (3, 3), before
        own.stop()
        for file in own.data.glob("state.sqlite*"):
            file.unlink()
        own.start()
        assert own.out("ps", "-aq") == ""
        load_images(own)
        boxes = [own.out("run", "-d", "--runtime", chosen, "busybox", "sleep", "3600") for chosen in BACKENDS]
        cloud.until_left(OF_ONE_EACH, limit=60)
        assert own.out("ps", "-q", "--no-trunc").split() == boxes[::-1]
        assert [own.out("exec", box, "echo", "here") for box in boxes] == ["here"] * 3
        own.out("rm", "-f", *boxes)
        cloud.until_left({})
