"""Microsoft.Web's methods over Resource Manager."""

from __future__ import annotations

from starlette.responses import JSONResponse, Response

from local_cloud.azure.arm_face import Action, ArmCall, action, listing
from local_cloud.azure.names import resource_id
from local_cloud.azure.operations import Operations
from local_cloud.azure.web.plans import Plans
from local_cloud.azure.web.sites import Sites
from local_cloud.calls import operation_fault

PUT_PLAN, PUT_SITE = "plan", "site"


class WebFace:
    """The actions of plans and sites."""

    def __init__(self, plans: Plans, sites: Sites, operations: Operations) -> None:
        self._plans = plans
        self._sites = sites
        self._operations = operations
        operations.serve(PUT_PLAN, plans.put)
        operations.serve(PUT_SITE, sites.put)

    def actions(self) -> list[Action]:
        """All methods, by the names that `Calls` counts them under."""
        plan, site = "serverfarms/{name}", "sites/{name}"
        web, app_settings = f"{site}/config/web", f"{site}/config/appsettings"
        return [
            action("PUT", plan, "Plans.CreateOrUpdate", self.put_plan),
            action("GET", plan, "Plans.Get", self.get_plan),
            action("DELETE", plan, "Plans.Delete", self.delete_plan),
            action("GET", "serverfarms", "Plans.ListByResourceGroup", self.list_plans),
            action("GET", "*serverfarms", "Plans.List", self.list_plans),
            action("PUT", site, "Sites.CreateOrUpdate", self.put_site),
            action("PATCH", site, "Sites.Update", self.patch_site),
            action("GET", site, "Sites.Get", self.get_site),
            action("DELETE", site, "Sites.Delete", self.delete_site),
            action("GET", "sites", "Sites.ListByResourceGroup", self.list_sites),
            action("GET", "*sites", "Sites.List", self.list_sites),
            action("POST", f"{site}/start", "Sites.Start", self.start),
            action("POST", f"{site}/stop", "Sites.Stop", self.stop),
            action("POST", f"{site}/restart", "Sites.Restart", self.restart),
            action("GET", web, "Sites.GetConfiguration", self.get_config),
            action("PUT", web, "Sites.CreateOrUpdateConfiguration", self.put_config),
            action("PATCH", web, "Sites.UpdateConfiguration", self.put_config),
            action("PUT", app_settings, "Sites.UpdateApplicationSettings", self.put_settings),
            action("POST", f"{app_settings}/list", "Sites.ListApplicationSettings", self.list_settings),
            action("POST", f"{site}/host/default/listkeys", "Sites.ListHostKeys", self.list_keys),
        ]

    # --- plans

    async def put_plan(self, call: ArmCall) -> Response:
        """AppServicePlans.CreateOrUpdate."""
        wanted = self._plans.check(call.group, call.name, call.body)
        return self._operations.run(call, PUT_PLAN, resource_id(call.group, "serverfarms", wanted["name"]), wanted)

    async def get_plan(self, call: ArmCall) -> Response:
        """AppServicePlans.Get."""
        return JSONResponse(self._plans.get(call.group, call.name))

    async def list_plans(self, call: ArmCall) -> Response:
        """AppServicePlans.List and ListByResourceGroup."""
        return listing(self._plans.list(call.group))

    async def delete_plan(self, call: ArmCall) -> Response:
        """AppServicePlans.Delete."""
        _check_fault()
        return Response(status_code=200 if self._plans.delete(call.group, call.name) else 204)

    # --- sites

    async def put_site(self, call: ArmCall) -> Response:
        """WebApps.CreateOrUpdate."""
        wanted = self._sites.check(call.group, call.name, call.body)
        return self._operations.run(call, PUT_SITE, resource_id(call.group, "sites", wanted["name"]), wanted)

    async def patch_site(self, call: ArmCall) -> Response:
        """WebApps.Update."""
        _check_fault()
        return JSONResponse(self._sites.put(self._sites.check(call.group, call.name, call.body, patch=True)))

    async def get_site(self, call: ArmCall) -> Response:
        """WebApps.Get."""
        return JSONResponse(self._sites.get(call.group, call.name))

    async def list_sites(self, call: ArmCall) -> Response:
        """WebApps.List and ListByResourceGroup."""
        return listing(self._sites.list(call.group))

    async def delete_site(self, call: ArmCall) -> Response:
        """WebApps.Delete. Unless told otherwise, a plan goes with its last site."""
        _check_fault()
        empty_plan = call.flag("deleteEmptyServerFarm", True)
        gone = self._sites.delete(call.group, call.name, empty_plan=empty_plan)
        return Response(status_code=200 if gone else 204)

    async def start(self, call: ArmCall) -> Response:
        """WebApps.Start: answered at once; the container follows."""
        self._sites.start(call.group, call.name, _check_fault())
        return Response(status_code=200)

    async def stop(self, call: ArmCall) -> Response:
        """WebApps.Stop: answered at once; the container gets SIGTERM."""
        _check_fault()
        self._sites.stop(call.group, call.name)
        return Response(status_code=200)

    async def restart(self, call: ArmCall) -> Response:
        """WebApps.Restart."""
        _check_fault()
        self._sites.restart(call.group, call.name)
        return Response(status_code=200)

    # --- configuration

    async def get_config(self, call: ArmCall) -> Response:
        """WebApps.GetConfiguration."""
        return JSONResponse(self._sites.configuration(call.group, call.name))

    async def put_config(self, call: ArmCall) -> Response:
        """WebApps.CreateOrUpdateConfiguration and UpdateConfiguration."""
        _check_fault()
        return JSONResponse(self._sites.configure(call.group, call.name, call.body))

    async def put_settings(self, call: ArmCall) -> Response:
        """WebApps.UpdateApplicationSettings."""
        _check_fault()
        return JSONResponse(self._sites.set_settings(call.group, call.name, call.body))

    async def list_settings(self, call: ArmCall) -> Response:
        """WebApps.ListApplicationSettings."""
        return JSONResponse(self._sites.settings(call.group, call.name))

    async def list_keys(self, call: ArmCall) -> Response:
        """WebApps.ListHostKeys."""
        return JSONResponse(self._sites.host_keys(call.group, call.name))


def _check_fault() -> float:
    """Raises the error that an injected fault wants of a call that is no operation of its own; its delay in seconds."""
    fault = operation_fault()
    if fault is not None and fault.refusal is not None:
        raise fault.refusal
    return fault.delay if fault is not None else 0.0
