"""The hosted control plane's settings: what is wrong is told in one line that names the variable."""

from __future__ import annotations

from pathlib import Path

import pytest

from control_plane.backends.settings_error import SettingsError
from control_plane.entrypoints.hosted_settings import load_backends, load_settings

KEY = "k" * 32
GOOD = {
    "SOCKERLESS_STORE": "firestore://project/database",
    "SOCKERLESS_KEY": KEY,
    "SOCKERLESS_REGISTRY_URL": "https://europe-docker.pkg.dev",
    "SOCKERLESS_REGISTRY_PREFIX": "project/repository",
    "SOCKERLESS_GCR_PROJECT": "project",
}


@pytest.fixture(autouse=True)
def _only_these(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    for name in list(os.environ):
        if name.startswith("SOCKERLESS_") or name == "PORT":
            monkeypatch.delenv(name)
    for name, value in GOOD.items():
        monkeypatch.setenv(name, value)


def test_what_is_required_is_enough() -> None:
    settings = load_settings()
    assert settings.signing_key() == KEY.encode()
    assert settings.port == 8080
    backends = load_backends(settings)
    assert backends.cloud_run is not None
    assert (backends.cloud_functions, backends.azure_functions, backends.default) == (None, None, "cloudrun")


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("SOCKERLESS_STORE", "", "SOCKERLESS_STORE is not set"),
        ("SOCKERLESS_STORE", "mysql://x/y", "SOCKERLESS_STORE: 'mysql://x/y' is none of firestore://"),
        ("SOCKERLESS_STORE", "sqlite://relative", "SOCKERLESS_STORE: "),
        ("SOCKERLESS_REGISTRY_URL", "docker.io", "SOCKERLESS_REGISTRY_URL: "),
        ("SOCKERLESS_REGISTRY_PREFIX", "../x", "SOCKERLESS_REGISTRY_PREFIX: "),
        ("SOCKERLESS_REGISTRY_USERNAME", "u", "SOCKERLESS_REGISTRY_USERNAME and SOCKERLESS_REGISTRY_PASSWORD"),
        ("SOCKERLESS_BACKEND", "lambda", "SOCKERLESS_BACKEND: "),
        ("SOCKERLESS_KEY", "", "one of SOCKERLESS_KEY and SOCKERLESS_KEY_FILE is wanted"),
        ("SOCKERLESS_KEY_FILE", "/key", "one of SOCKERLESS_KEY and SOCKERLESS_KEY_FILE is wanted"),
        ("SOCKERLESS_GATEWAY_URL", "gateway:80", "SOCKERLESS_GATEWAY_URL: "),
        ("PORT", "http", "PORT: "),
    ],
)
def test_a_bad_one_is_named(monkeypatch: pytest.MonkeyPatch, name: str, value: str, said: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as refused:
        load_settings()
    assert str(refused.value).startswith(said)
    assert "\n" not in str(refused.value)
    assert KEY not in str(refused.value)


def test_the_key_must_be_long_enough_and_is_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOCKERLESS_KEY", "short-secret")
    settings = load_settings()
    with pytest.raises(SettingsError, match="SOCKERLESS_KEY: the key has 12 bytes, 32 are wanted"):
        settings.signing_key()
    assert "short-secret" not in repr(settings)


def test_the_key_may_be_in_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("SOCKERLESS_KEY")
    monkeypatch.setenv("SOCKERLESS_KEY_FILE", str(tmp_path / "key"))
    with pytest.raises(SettingsError, match=r"SOCKERLESS_KEY_FILE: .* cannot be read"):
        load_settings().signing_key()
    (tmp_path / "key").write_bytes(b"\x00" * 40 + b"\n")
    assert load_settings().signing_key() == b"\x00" * 40


def test_there_must_be_a_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SOCKERLESS_GCR_PROJECT")
    with pytest.raises(SettingsError, match="there is no backend: one of SOCKERLESS_GCR_PROJECT"):
        load_backends(load_settings())


def test_the_default_backend_must_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOCKERLESS_BACKEND", "gcf")
    with pytest.raises(SettingsError, match="SOCKERLESS_BACKEND: gcf needs SOCKERLESS_GCF_PROJECT"):
        load_backends(load_settings())


def test_azure_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SOCKERLESS_GCR_PROJECT")
    monkeypatch.setenv("SOCKERLESS_AZF_SUBSCRIPTION_ID", "s")
    with pytest.raises(SettingsError, match="SOCKERLESS_AZF_RESOURCE_GROUP is not set"):
        load_backends(load_settings())
    monkeypatch.setenv("SOCKERLESS_AZF_RESOURCE_GROUP", "g")
    monkeypatch.setenv("SOCKERLESS_AZF_STORAGE_ACCOUNT", "account")
    found = load_backends(load_settings())
    assert found.cloud_run is None
    assert found.default == "azf"


def test_lists_are_comma_separated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOCKERLESS_REGISTRY_MIRROR", "https://a.example, https://b.example")
    assert load_settings().registry_mirror == ("https://a.example", "https://b.example")


def test_instances_differ_and_the_endpoint_is_one() -> None:
    one, other = load_settings(), load_settings()
    assert one.instance != other.instance
    assert one.server_id(b"k") == other.server_id(b"k")
