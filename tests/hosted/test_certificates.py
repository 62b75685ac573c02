"""Client certificates through HAProxy: a tenant's own, in place of a token, with every control plane and gateway."""

from __future__ import annotations

import hashlib
import random

from tests.hosted.deployment import Deployment


def test_a_certificate_in_place_of_a_token(deployment: Deployment, name: str) -> None:
    red, blue = deployment.certified("red"), deployment.certified("blue")
    data = random.Random(1).randbytes(3_000_000)
    said = red.out("run", "-i", "--name", name, "busybox", "sha256sum", stdin=data)
    assert said.split()[0] == hashlib.sha256(data).hexdigest()
    # Whoever has a token of the tenant is the same tenant; whoever has a certificate of another is not.
    assert name in deployment.direct("red").out("ps", "-a", "--format", "{{.Names}}").split()
    assert name not in blue.out("ps", "-a", "--format", "{{.Names}}").split()
    assert blue.docker("inspect", name).returncode == 1
    # HAProxy takes the gateways in turn, and gateways the control planes.
    assert {red.out("inspect", "-f", "{{.Name}}", name) for _ in range(6)} == {f"/{name}"}


def test_neither_certificate_nor_token(deployment: Deployment) -> None:
    nobody = deployment.certified("red")
    nobody.tls = "tls"
    assert b"wants a token" in nobody.docker("ps").stderr
