"""The modules give each role what it reads, and nothing that it does not."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from agent_gateway.entrypoint import Environment
from control_plane.entrypoints.hosted_settings import load_backends, load_settings
from control_plane.store.base import Collection
from control_plane.store.key_ring import read_keys
from tests.terraform import document
from tests.terraform.check import why_not, workplace
from tests.terraform.schema_types import TERRAFORM
from tests.terraform.variables import given, known, of_gateway

_CLOUDS = ("gcp", "azure")
_SECRET = {"SOCKERLESS_KEY": "k" * 64}
_KEY = "0123456789012345678901234567890123456789"
"""The signing key of the run `whole`: it must be nowhere in state."""

Runs = Mapping[str, Mapping[str, Any]]


@pytest.fixture(scope="module", params=_CLOUDS)
def applied(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Runs]:
    """The outputs of each run of the module's own test."""
    reason = why_not()
    if reason:
        pytest.skip(reason)
    copy = tmp_path_factory.mktemp("terraform") / "terraform"
    shutil.copytree(TERRAFORM, copy)
    root = copy / "modules" / str(request.param)
    place = workplace(tmp_path_factory.mktemp("workplace"))
    assert place.run(root, "init", "-backend=false").code == 0
    with place:
        done = place.run(root, "test", "-json", "-verbose", "-filter=tests/endpoint.tftest.hcl")
    runs: dict[str, Mapping[str, Any]] = {}
    for line in done.output.splitlines():
        message = json.loads(line)
        if message["type"] == "test_state":
            assert _KEY not in line
            found = message["test_state"]["outputs"]
            runs[message["@testrun"]] = {name: output["value"] for name, output in found.items()}
    assert {"smallest", "whole"} <= set(runs), done.output
    return str(request.param), runs


def _only(monkeypatch: pytest.MonkeyPatch, variables: Mapping[str, str]) -> None:
    import os

    for name in list(os.environ):
        if name.startswith("SOCKERLESS_"):
            monkeypatch.delenv(name)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize("run", ["smallest", "whole"])
@pytest.mark.timeout(180)
def test_the_control_plane_starts_with_what_it_is_given(
    applied: tuple[str, Runs], run: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    cloud, runs = applied
    variables = dict(runs[run]["control_plane_environment"])
    if cloud == "azure":
        # Made-up ids of mocks are no resource ids.
        variables["SOCKERLESS_AZF_IDENTITY"] = (
            "/subscriptions/s/resourceGroups/g/providers/Microsoft.ManagedIdentity/userAssignedIdentities/i"
        )
    _only(monkeypatch, {**variables, **_SECRET})
    settings = load_settings()
    backends = load_backends(settings)
    assert settings.endpoint_name == variables["SOCKERLESS_ENDPOINT_NAME"]
    assert backends.default == variables["SOCKERLESS_BACKEND"]
    assert len(read_keys(settings.sealing_key.get_secret_value(), "SOCKERLESS_SEALING_KEY")) == 1
    assert (backends.azure_functions is not None) == (cloud == "azure")


@pytest.mark.parametrize("run", ["smallest", "whole"])
@pytest.mark.timeout(180)
def test_gateways_start_with_what_they_are_given(applied: tuple[str, Runs], run: str, tmp_path: Path) -> None:
    _, runs = applied
    urls = set()
    key = tmp_path / "key"
    key.write_text("k" * 64)
    for variables in runs[run]["gateway_environment"].values():
        secret = {"SOCKERLESS_KEY_FILE": str(key)} if "SOCKERLESS_KEY_FILE" in variables else _SECRET
        urls.add(Environment.read({**variables, **secret}).gateway_url)
    assert len(urls) == len(runs[run]["gateway_environment"])


@pytest.mark.parametrize("cloud", _CLOUDS)
def test_every_variable_is_one_that_is_read(cloud: str) -> None:
    control, gateway = given(cloud)
    assert set(control) - set(known(cloud)) == set()
    assert set(gateway) - set(of_gateway()) == set()
    assert {"SOCKERLESS_CONTROL_PLANE_URL", "SOCKERLESS_GATEWAY_URL", "SOCKERLESS_LISTEN"} <= set(gateway)


def test_the_document_is_up_to_date() -> None:
    text = document.DOCUMENT.read_text()
    assert document.rendered(text) == text


def test_the_database_knows_every_collection() -> None:
    text = (TERRAFORM / "modules/gcp/state/main.tf").read_text()
    listed = re.findall(r'"(\w+)"', text[text.index("collections = toset([") : text.index("])")])
    assert set(listed) == set(Collection.__args__)  # type: ignore[attr-defined]


def test_the_key_that_is_looked_for_is_the_one_that_is_given() -> None:
    for cloud in _CLOUDS:
        assert _KEY in (TERRAFORM / "modules" / cloud / "tests/endpoint.tftest.hcl").read_text()


def test_both_proxies_are_told_the_same() -> None:
    one, other = (TERRAFORM / f"modules/{cloud}/direct/haproxy.cfg.tftpl" for cloud in _CLOUDS)
    assert one.read_text() == other.read_text()
