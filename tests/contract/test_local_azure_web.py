"""Plans and sites of the local cloud, driven by the official async client."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest
from azure.core.exceptions import HttpResponseError, ResourceNotFoundError

from tests.contract.local_azure_fixtures import GROUP, SETTINGS, SUBSCRIPTION, azure_cloud, push_application, site_body

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


async def refused(work: Any) -> tuple[int, dict[str, Any]]:
    """The status and JSON of a refusal."""
    with pytest.raises(HttpResponseError) as caught:
        await work
    response: Any = caught.value.response
    return int(caught.value.status_code or 0), response.json()


async def test_a_plan_is_created_listed_and_deleted(tmp_path: Path, monkeypatch: Any) -> None:
    async with azure_cloud(tmp_path, monkeypatch) as (_, azure):
        made = await azure.plan("plan")
        assert (made.name, made.sku.tier, made.properties.provisioning_state) == ("plan", "ElasticPremium", "Succeeded")
        assert (made.properties.reserved, made.properties.number_of_sites) == (True, 0)
        plans = azure.web.app_service_plans
        assert [plan.id async for plan in plans.list_by_resource_group(GROUP)] == [made.id]
        assert [plan.id async for plan in plans.list()] == [made.id]
        assert (await plans.get(GROUP, "PLAN")).id == made.id
        await plans.delete(GROUP, "plan")
        with pytest.raises(ResourceNotFoundError, match=r"Microsoft\.Web/serverFarms/plan"):
            await plans.get(GROUP, "plan")
        await plans.delete(GROUP, "plan")


async def test_a_site_keeps_what_it_was_given(tmp_path: Path, monkeypatch: Any) -> None:
    async with azure_cloud(tmp_path, monkeypatch) as (cloud, azure):
        plan = await azure.plan()
        body = site_body(await push_application(cloud), enabled=False) | {"tags": {"a": "b"}}
        made = await (await azure.web.web_apps.begin_create_or_update(GROUP, "tool", body)).result()
        assert (made.properties.state, made.properties.enabled) == ("Stopped", False)
        assert made.properties.default_host_name == "tool.azurewebsites.net"
        assert (made.tags, made.kind, made.properties.server_farm_id) == ({"a": "b"}, body["kind"], plan.id)
        apps = azure.web.web_apps
        assert (await apps.list_application_settings(GROUP, "tool")).properties == SETTINGS
        assert (await apps.get_configuration(GROUP, "tool")).properties.linux_fx_version.startswith("DOCKER|")
        assert [site.name async for site in apps.list_by_resource_group(GROUP)] == ["tool"]
        assert [site.name async for site in apps.list()] == ["tool"]
        assert (await apps.list_host_keys(GROUP, "tool")).master_key
        changed = await apps.update(GROUP, "tool", {"tags": {"c": "d"}, "properties": {"httpsOnly": True}})
        assert (changed.tags, changed.properties.https_only, changed.kind) == ({"c": "d"}, True, body["kind"])
        assert (await apps.list_application_settings(GROUP, "tool")).properties == SETTINGS
        assert cloud.resources()["web.sites"] == 1


async def test_the_plan_goes_with_its_last_site_unless_told_otherwise(tmp_path: Path, monkeypatch: Any) -> None:
    async with azure_cloud(tmp_path, monkeypatch) as (cloud, azure):
        image = await push_application(cloud)
        await azure.plan()
        for name in ("one", "two"):
            await azure.site(name, image, enabled=False)
        status, body = await refused(azure.web.app_service_plans.delete(GROUP, "plan"))
        assert (status, body["Code"]) == (409, "Conflict")
        assert "Server farm 'plan' cannot be deleted because it has web app(s) one,two assigned" in body["Message"]
        await azure.web.web_apps.delete(GROUP, "one")
        assert cloud.resources()["web.plans"] == 1
        await azure.web.web_apps.delete(GROUP, "two", delete_empty_server_farm=False)
        assert cloud.resources()["web.plans"] == 1
        await azure.site("two", image, enabled=False)
        await azure.web.web_apps.delete(GROUP, "two")
        assert (cloud.resources()["web.plans"], cloud.resources()["web.sites"]) == (0, 0)


async def test_creation_is_polled_when_it_takes_time(tmp_path: Path, monkeypatch: Any) -> None:
    async with azure_cloud(tmp_path, monkeypatch, azure_operation_delay=0.5) as (cloud, azure):
        made = await azure.plan()
        assert made.properties.provisioning_state == "Succeeded"
        assert cloud.calls.counts()["ArmOperations.Get"] >= 1
        await cloud_faults(azure, {"Sites.CreateOrUpdate": {"operation_error": "INTERNAL"}})
        status, body = await refused(azure.site("tool", await push_application(cloud), enabled=False))
        assert (status, body["status"], body["error"]["code"]) == (200, "Failed", "InternalServerError")
        assert cloud.resources()["web.sites"] == 0


async def test_an_operation_survives_a_restart(tmp_path: Path, monkeypatch: Any) -> None:
    async with azure_cloud(tmp_path, monkeypatch, azure_operation_delay=0.3) as (_, azure):
        body = {"location": "eastus", "sku": {"name": "EP1"}, "properties": {"reserved": True}}
        await azure.web.app_service_plans.begin_create_or_update(GROUP, "plan", body, polling=False)
    async with azure_cloud(tmp_path, monkeypatch) as (cloud, azure):
        for _ in range(200):
            if cloud.resources()["web.plans"]:
                break
            await asyncio.sleep(0.02)
        assert (await azure.web.app_service_plans.get(GROUP, "plan")).name == "plan"


async def cloud_faults(azure: Any, faults: dict[str, Any]) -> None:
    assert (await azure.http.put("/_local/faults", json=faults)).status_code == 204


async def test_faults_have_azures_form(tmp_path: Path, monkeypatch: Any) -> None:
    async with azure_cloud(tmp_path, monkeypatch) as (_, azure):
        await cloud_faults(azure, {"Plans.*": {"status": "RESOURCE_EXHAUSTED"}, "Sites.*": {"status": "UNAVAILABLE"}})
        status, body = await refused(azure.plan())
        assert (status, body["error"]["code"]) == (429, "TooManyRequests")
        status, body = await refused(azure.web.web_apps.get(GROUP, "tool"))
        assert (status, body["error"]["code"]) == (503, "ServiceUnavailable")
        await cloud_faults(azure, {"Plans.CreateOrUpdate": {"lost_response": True}})
        assert (await refused(azure.plan()))[0] == 503
        assert (await azure.web.app_service_plans.get(GROUP, "plan")).name == "plan"


@pytest.mark.parametrize(
    ("change", "status", "code", "text"),
    [
        ({"kind": "app"}, 501, "NotImplemented", "sites of kind 'app'"),
        ({"location": None}, 400, "LocationRequired", "location property is required"),
        ({"config": {"linuxFxVersion": "DOCKER|"}}, 400, "BadRequest", "LinuxFxVersion has an invalid value"),
        ({"config": {"linuxFxVersion": "DOCKER|a b"}}, 400, "BadRequest", "LinuxFxVersion has an invalid value"),
        ({"config": {"linuxFxVersion": "COMPOSE|eA=="}}, 501, "NotImplemented", "COMPOSE"),
        ({"config": {"appSettings": [{"name": "a-b", "value": ""}]}}, 400, "BadRequest", "'a-b' is not allowed"),
        (
            {"config": {"appSettings": [{"name": "WEBSITES_ENABLE_APP_SERVICE_STORAGE", "value": "true"}]}},
            501,
            "NotImplemented",
            "APP_SERVICE_STORAGE",
        ),
        ({"plan": "nothing"}, 404, "NotFound", "Cannot find ServerFarm with name nothing."),
        ({"plan": "flex"}, 400, "BadRequest", "FlexConsumption"),
        ({"plan": "dynamic"}, 400, "BadRequest", "Dynamic"),
    ],
)
async def test_what_cannot_be_served_is_refused(
    tmp_path: Path, monkeypatch: Any, change: dict[str, Any], status: int, code: str, text: str
) -> None:
    async with azure_cloud(tmp_path, monkeypatch) as (_, azure):
        for name, size in (("plan", "EP1"), ("flex", "FC1"), ("dynamic", "Y1")):
            await azure.plan(name, size)
        body = site_body("127.0.0.1:1/local/apps/tool:latest", change.pop("plan", "plan"))
        body["properties"]["siteConfig"] |= change.pop("config", {})
        found, answer = await refused(azure.web.web_apps.begin_create_or_update(GROUP, "tool", body | change))
        said = answer.get("error") or {"code": answer.get("Code"), "message": answer.get("Message")}
        assert (found, said["code"]) == (status, code)
        assert text in said["message"]


@pytest.mark.parametrize("name", ["a", "-a", "a_b", "a" * 61, "ab-"])
async def test_site_names_have_their_rules(tmp_path: Path, monkeypatch: Any, name: str) -> None:
    async with azure_cloud(tmp_path, monkeypatch) as (_, azure):
        await azure.plan()
        status, body = await refused(azure.site(name, "127.0.0.1:1/local/apps/tool"))
        assert (status, body["Message"]) == (400, "The parameter name has an invalid value.")


async def test_a_site_name_is_taken_everywhere(tmp_path: Path, monkeypatch: Any) -> None:
    async with azure_cloud(tmp_path, monkeypatch, azure_resource_groups=("local", "other")) as (_, azure):
        await azure.plan()
        await azure.site("tool", "127.0.0.1:1/local/apps/tool", enabled=False)
        body = site_body("127.0.0.1:1/local/apps/tool")
        status, answer = await refused(azure.web.web_apps.begin_create_or_update("other", "Tool", body))
        assert (status, answer["Message"]) == (409, "Website with given name Tool already exists.")
        assert answer["Details"][2]["ErrorEntity"]["ExtendedCode"] == "54001"


async def test_resource_manager_refuses_before_the_service_does(tmp_path: Path, monkeypatch: Any) -> None:
    async with azure_cloud(tmp_path, monkeypatch) as (_, azure):
        token = (await azure.credential.get_token("https://management.azure.com/.default")).token
        logs_token = (await azure.credential.get_token("https://api.loganalytics.io/.default")).token

        async def get(subscription: str, group: str, query: str, bearer: str = token) -> tuple[int, str]:
            path = f"/subscriptions/{subscription}/resourceGroups/{group}/providers/Microsoft.Web/sites/tool{query}"
            headers = {"Authorization": f"Bearer {bearer}"} if bearer else {}
            answer: httpx.Response = await azure.http.get(path, headers=headers)
            if answer.status_code == 401:
                assert answer.headers["www-authenticate"].startswith("Bearer ")
            return answer.status_code, answer.json()["error"]["code"]

        version, other = "?api-version=2025-05-01", "00000000-0000-0000-0000-000000000009"
        assert await get(SUBSCRIPTION, "local", version) == (404, "ResourceNotFound")
        assert await get(SUBSCRIPTION, "LOCAL", version) == (404, "ResourceNotFound")
        assert await get(SUBSCRIPTION, "none", version) == (404, "ResourceGroupNotFound")
        assert await get(other, "local", version) == (404, "SubscriptionNotFound")
        assert await get("x", "local", version) == (400, "InvalidSubscriptionId")
        assert await get(SUBSCRIPTION, "local", "") == (400, "MissingApiVersionParameter")
        assert await get(SUBSCRIPTION, "local", "?api-version=2") == (400, "InvalidApiVersionParameter")
        assert await get(SUBSCRIPTION, "local", version, "") == (401, "AuthenticationFailed")
        assert await get(SUBSCRIPTION, "local", version, "x") == (401, "InvalidAuthenticationToken")
        assert await get(SUBSCRIPTION, "local", version, token[:-8] + "AAAAAAAA") == (401, "InvalidAuthenticationToken")
        wrong = await get(SUBSCRIPTION, "local", version, logs_token)
        assert wrong == (401, "InvalidAuthenticationTokenAudience")
