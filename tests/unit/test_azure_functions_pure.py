"""Azure Functions backend: settings, apps as Resource Manager's JSON, sizes, checks at create, answers of an app."""

from __future__ import annotations

import re
from typing import Any

import pytest

from control_plane.backends.azure import tags
from control_plane.backends.azure.sizes import SKUS, size
from control_plane.backends.azure_functions import capabilities
from control_plane.backends.azure_functions.host_config import HOST_CONFIG
from control_plane.backends.azure_functions.invocations import judged
from control_plane.backends.azure_functions.settings import AzureFunctionsSettings, load_settings
from control_plane.backends.azure_functions.site import app_plan, environment_names, invoke_key
from control_plane.backends.cloud_run.host_config import HOST_CONFIG as COMMON
from control_plane.backends.settings_error import SettingsError
from control_plane.backends.sizes import GIB, Resources
from control_plane.errors import DockerError, InvalidParameter, NotServed
from control_plane.model import Container, Image, Mount

REQUIRED = {
    "subscription_id": "00000000-0000-0000-0000-000000000000",
    "resource_group": "group",
    "storage_account": "account",
}
ID = "0123456789ab" + "c" * 52
IDENTITY = "/subscriptions/s/resourceGroups/g/providers/Microsoft.ManagedIdentity/userAssignedIdentities/puller"
KEY = b"k" * 32


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SOCKERLESS_CALLBACK_URL", "SOCKERLESS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)


def settings(**changes: Any) -> AzureFunctionsSettings:
    return load_settings(**{**REQUIRED, **changes})


def container(**changes: Any) -> Container:
    fields: dict[str, Any] = {
        "id": ID, "tenant": "blue", "name": "c", "created_at": "2026-11-20T10:00:00Z", "image": "busybox",
        "image_id": "sha256:" + "1" * 64, "config": {"Env": ["SECRET=hunter2"], "Cmd": ["true"]}, "host_config": {},
        "backend": "azf", "gateway": "https://relay",
    }  # fmt: skip
    return Container(**{**fields, **changes})


def image(**changes: Any) -> Image:
    fields: dict[str, Any] = {
        "id": "sha256:" + "1" * 64, "tenant": "blue", "created_at": "2026-11-20T10:00:00Z", "tags": ["busybox:latest"],
        "repository": "example.azurecr.io/blue/busybox", "manifest_digest": "sha256:" + "2" * 64, "config": {},
    }  # fmt: skip
    return Image(**{**fields, **changes})


def plan(box: Container | None = None, token: str = "token", gateways: tuple[str, ...] = (), **changes: Any) -> Any:
    reference = "example.azurecr.io/blue/busybox@sha256:" + "3" * 64
    return app_plan(box or container(), reference, settings(**changes), key=KEY, agent_token=token, gateways=gateways)


def app_settings(found: Any) -> dict[str, str]:
    return {one["name"]: one["value"] for one in found.site["properties"]["siteConfig"]["appSettings"]}


# --- settings


@pytest.mark.parametrize("field", sorted(REQUIRED))
def test_a_missing_required_value_is_one_line_naming_its_variable(field: str, monkeypatch: pytest.MonkeyPatch) -> None:
    variable = str(AzureFunctionsSettings.model_fields[field].validation_alias)
    monkeypatch.delenv(variable, raising=False)
    with pytest.raises(SettingsError) as error:
        load_settings(**{name: value for name, value in REQUIRED.items() if name != field})
    assert str(error.value).startswith(f"{variable} is not set: it names the ")
    assert "\n" not in str(error.value)


def test_defaults() -> None:
    found = settings()
    assert (found.location, found.timeout, found.plan_sku, found.start_limit) == ("eastus", 600, "EP1", 230)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"plan_sku": "Y1"}, "SOCKERLESS_AZF_PLAN_SKU"),
        ({"registry_user": "u"}, "SOCKERLESS_AZF_REGISTRY_PASSWORD"),
        ({"registry_identity": "id"}, "SOCKERLESS_AZF_IDENTITY"),
        ({"identity": "puller"}, "SOCKERLESS_AZF_IDENTITY"),
        ({"endpoint_url": "localhost:1"}, "SOCKERLESS_ENDPOINT_URL"),
        ({"storage_account": "Not-An-Account"}, "SOCKERLESS_AZF_STORAGE_ACCOUNT"),
    ],
)
def test_settings_that_do_not_fit_are_one_line(changes: dict[str, Any], text: str) -> None:
    with pytest.raises(SettingsError) as error:
        settings(**changes)
    assert text in str(error.value)
    assert "\n" not in str(error.value)


def test_secrets_are_not_shown() -> None:
    found = settings(storage_key="hush1", registry_user="u", registry_password="hush2")
    assert "hush" not in repr(found)


# --- the app


def test_the_app_holds_the_image_and_nothing_else_of_the_users() -> None:
    found = plan(storage_key="a2V5")
    assert found.name == "skls-0123456789ab"
    site = found.site
    assert site["kind"] == "functionapp,linux,container"
    assert site["properties"]["enabled"] is False
    assert site["properties"]["reserved"] is True
    assert site["properties"]["httpsOnly"] is True
    config = site["properties"]["siteConfig"]
    assert config["linuxFxVersion"] == "DOCKER|example.azurecr.io/blue/busybox@sha256:" + "3" * 64
    assert "appCommandLine" not in config
    assert "hunter2" not in repr(site)
    ours = app_settings(found)
    assert ours["AzureWebJobsStorage"].startswith("DefaultEndpointsProtocol=https;AccountName=account;AccountKey=a2V5;")
    assert ours["FUNCTIONS_EXTENSION_VERSION"] == "~4"
    assert ours["WEBSITES_ENABLE_APP_SERVICE_STORAGE"] == "false"
    assert (ours["WEBSITES_PORT"], ours["WEBSITES_CONTAINER_START_TIME_LIMIT"]) == ("34117", "230")
    assert ours["SOCKERLESS_INVOKE_KEY"] == invoke_key(KEY, found.name)
    assert ours["SOCKERLESS_CALLBACK_URL"] == "https://relay"
    assert set(environment_names()) == {name for name in ours if name.startswith("SOCKERLESS_")}


def test_identities_of_storage_and_registry() -> None:
    found = plan(identity=IDENTITY, registry_identity="client")
    assert found.site["identity"] == {"type": "UserAssigned", "userAssignedIdentities": {IDENTITY: {}}}
    config = found.site["properties"]["siteConfig"]
    assert (config["acrUseManagedIdentityCreds"], config["acrUserManagedIdentityID"]) == (True, "client")
    ours = app_settings(found)
    assert "AzureWebJobsStorage" not in ours
    assert ours["AzureWebJobsStorage__accountName"] == "account"
    assert ours["AzureWebJobsStorage__credential"] == "managedidentity"
    assert ours["AzureWebJobsStorage__clientId"] == "client"


def test_the_registrys_password() -> None:
    ours = app_settings(plan(registry_user="u", registry_password="p"))
    assert ours["DOCKER_REGISTRY_SERVER_URL"] == "https://example.azurecr.io"
    assert (ours["DOCKER_REGISTRY_SERVER_USERNAME"], ours["DOCKER_REGISTRY_SERVER_PASSWORD"]) == ("u", "p")


def test_tags_tell_whose_it_is() -> None:
    found = plan(endpoint_name="mine")
    for resource in (found.site, found.plan):
        assert resource["tags"][tags.CONTAINER] == ID
        assert resource["tags"][tags.TENANT] == "blue"
        assert tags.is_ours(resource["tags"], "mine")
        assert not tags.is_ours(resource["tags"], "another")
        assert tags.created_at(resource["tags"]) > 1e9
    assert not tags.is_ours(None, "mine")
    assert not tags.is_ours({tags.ENDPOINT: "mine"}, "mine")


def test_the_template_is_the_apps_content_without_its_token() -> None:
    first = plan().site["tags"][tags.TEMPLATE]
    assert plan(token="another").site["tags"][tags.TEMPLATE] == first
    assert plan(callback_url="https://elsewhere").site["tags"][tags.TEMPLATE] != first
    others = plan(gateways=("https://other",))
    assert app_settings(others)["SOCKERLESS_CALLBACK_URL"] == "https://relay https://other"
    assert others.site["tags"][tags.TEMPLATE] == first


def test_a_plan_of_its_own_and_a_shared_one() -> None:
    own = plan(container(host_config={"Memory": 6 * GIB}))
    assert own.plan["sku"] == {"name": "EP2", "tier": "ElasticPremium", "size": "EP2", "family": "EP", "capacity": 1}
    assert (own.plan["kind"], own.plan["properties"]["reserved"]) == ("elastic", True)
    assert own.site["properties"]["serverFarmId"].endswith("/serverfarms/skls-0123456789ab")
    assert "alwaysOn" not in own.site["properties"]["siteConfig"]
    shared = plan(app_service_plan="big", plan_sku="P1v3")
    assert shared.plan is None
    assert shared.site["properties"]["serverFarmId"].endswith(
        "/resourceGroups/group/providers/Microsoft.Web/serverfarms/big"
    )
    assert shared.site["properties"]["siteConfig"]["alwaysOn"] is True
    elsewhere = "/subscriptions/s/resourceGroups/other/providers/Microsoft.Web/serverfarms/big"
    assert plan(app_service_plan=elsewhere).site["properties"]["serverFarmId"] == elsewhere


@pytest.mark.parametrize(
    ("cpus", "memory", "least", "name"),
    [
        (0, 0, "EP1", "EP1"),
        (0, 0, "EP2", "EP2"),
        (0.5, 0, "EP1", "EP1"),
        (1, 3.5, "EP1", "EP1"),
        (1, 3.6, "EP1", "EP2"),
        (1.5, 0, "EP1", "EP2"),
        (0.1, 14, "EP1", "EP3"),
        (4, 0, "EP1", "EP3"),
        (8, 0, "P1v3", "P3v3"),
    ],
)
def test_sizes_are_rounded_up(cpus: float, memory: float, least: str, name: str) -> None:
    assert size(Resources(int(cpus * 1e9), int(memory * GIB)), SKUS[least]).name == name


def test_more_than_a_plan_has_is_refused() -> None:
    with pytest.raises(InvalidParameter, match=r"--cpus 5 .* 4 CPUs \(EP3\)"):
        size(Resources(5_000_000_000, 0), SKUS["EP1"])
    with pytest.raises(InvalidParameter, match=r"--memory 15g .* 14 GiB \(EP3\)"):
        size(Resources(0, 15 * GIB), SKUS["EP1"])


# --- checks at create


def test_every_field_of_host_config_has_a_row() -> None:
    assert {option.field for option in HOST_CONFIG} == {option.field for option in COMMON}


@pytest.mark.parametrize(
    "host_config",
    [
        {"Binds": ["/src:/dst"]},
        {"Binds": ["data:/data"]},
        {"Mounts": [{"Type": "volume", "Source": "data", "Target": "/data"}]},
        {"Mounts": [{"Type": "bind", "Source": "/src", "Target": "/data"}]},
        {"VolumesFrom": ["other"]},
    ],
)
def test_volumes_are_refused_with_the_way_out(host_config: dict[str, Any]) -> None:
    with pytest.raises(NotServed, match="docker cp") as error:
        capabilities.check(container(host_config=host_config), settings())
    assert "Azure Functions" in error.value.message


def test_mounts_that_were_resolved_are_refused_by_name() -> None:
    mounts = [Mount(type="volume", name="data", destination="/data")]
    with pytest.raises(NotServed, match="data"):
        capabilities.check(container(mounts=mounts), settings())


def test_tmpfs_is_the_agents_and_a_volume_without_name_a_directory() -> None:
    mounts = [
        Mount(type="tmpfs", destination="/run"),
        Mount(type="volume", name="a" * 64, destination="/var/lib/data", copy_up=True),
    ]
    host_config = {"Tmpfs": {"/run": ""}, "Mounts": [{"Type": "tmpfs", "Target": "/x"}]}
    warnings = capabilities.check(container(mounts=mounts, host_config=host_config), settings())
    assert len(warnings) == 1
    assert "/var/lib/data" in warnings[0]


def test_sizes_warn_on_a_shared_plan_alone() -> None:
    box = container(host_config={"Memory": GIB})
    assert capabilities.check(box, settings()) == []
    assert "-m and --cpus" in capabilities.check(box, settings(app_service_plan="big"))[0]
    with pytest.raises(InvalidParameter):
        capabilities.check(container(host_config={"NanoCpus": 9_000_000_000}), settings())


def test_capabilities_have_a_reason_for_each_difference() -> None:
    found = capabilities.capabilities(settings(timeout=77))
    assert (found.name, found.max_run_seconds, found.agentless, found.enforces_limit) == ("azf", 77, False, False)
    assert all(text and not text.endswith(".") for text in found.differences.values())
    assert "HostConfig.Binds" in found.refused_options
    assert not any("Cloud Logging" in option.note or "NFS" in option.note for option in HOST_CONFIG)


@pytest.mark.parametrize("repository", ["example.azurecr.io/a/b", "https://example.azurecr.io/a/b"])
def test_images_of_the_registry_the_apps_pull_from(repository: str) -> None:
    capabilities.check_image(image(repository=repository), settings(registry="example.azurecr.io"))
    capabilities.check_image(image(repository=repository), settings())
    with pytest.raises(NotServed, match="SOCKERLESS_AZF_REGISTRY"):
        capabilities.check_image(image(repository=repository), settings(registry="other.azurecr.io"))


def test_images_of_another_processor_are_refused() -> None:
    with pytest.raises(DockerError, match="linux/arm64"):
        capabilities.check_image(image(architecture="arm64"), settings())


# --- what an app answers


@pytest.mark.parametrize(
    ("status", "content", "taken", "final"),
    [
        (202, b"{}", True, True),
        (200, b"{}", True, True),
        (404, b"<h1>404 Web Site not found.</h1>", False, False),
        (403, b"<h1>Error 403 - This web app is stopped.</h1>", False, False),
        (409, b'{"message":"ended"}', False, False),
        (429, b"", False, False),
        (500, b"", False, False),
        (502, b"", False, False),
        (504, b"", False, False),
        (301, b"", False, True),
        (400, b'{"message":"x"}', False, True),
        (401, b"", False, True),
        (403, b'{"message":"the header does not show the key"}', False, True),
        (409, b'{"message":"this is the instance of another container"}', False, True),
    ],
)
def test_which_answers_are_final(status: int, content: bytes, taken: bool, final: bool) -> None:
    kind = "application/json" if content.startswith(b"{") else "text/html"
    answer = judged(status, kind, content)
    assert (answer.taken, answer.final) == (taken, final)
    assert taken or re.match(rf"HTTP {status}", answer.text)


def test_a_hostile_answer_is_cut() -> None:
    assert len(judged(400, "application/json", b'{"message":"' + b"x" * 10_000 + b'"}').text) < 300
    assert judged(400, "application/json", b"[" * 10_000).text == "HTTP 400"
