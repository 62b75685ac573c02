"""The gRPC face of Cloud Run Admin v2: Services and Revisions."""

from __future__ import annotations

from typing import Any

from google.cloud import run_v2

from local_cloud.calls import Calls
from local_cloud.gcp.grpc_face import Message, Unary, unary
from local_cloud.gcp.services import names
from local_cloud.gcp.services.model import Services
from local_cloud.gcp.services.records import RevisionMessage, ServiceRecords

SERVICES = "google.cloud.run.v2.Services"
REVISIONS = "google.cloud.run.v2.Revisions"


class ServicesFace:
    """Requests in, model calls, answers out."""

    def __init__(self, services: Services, records: ServiceRecords, calls: Calls, project: str) -> None:
        self._services = services
        self._records = records
        self._calls = calls
        self._project = project

    def services(self) -> dict[str, dict[str, Any]]:
        """gRPC service → method → handler."""
        requests: dict[str, dict[str, tuple[Any, Unary]]] = {
            SERVICES: {
                "CreateService": (run_v2.CreateServiceRequest, self.create_service),
                "GetService": (run_v2.GetServiceRequest, self.get_service),
                "ListServices": (run_v2.ListServicesRequest, self.list_services),
                "UpdateService": (run_v2.UpdateServiceRequest, self.update_service),
                "DeleteService": (run_v2.DeleteServiceRequest, self.delete_service),
            },
            REVISIONS: {
                "GetRevision": (run_v2.GetRevisionRequest, self.get_revision),
                "ListRevisions": (run_v2.ListRevisionsRequest, self.list_revisions),
                "DeleteRevision": (run_v2.DeleteRevisionRequest, self.delete_revision),
            },
        }
        return {service: self._handlers(service, methods) for service, methods in requests.items()}

    def _handlers(self, service: str, methods: dict[str, tuple[Any, Unary]]) -> dict[str, Any]:
        short = service.rpartition(".")[2]
        return {name: unary(self._calls, f"{short}.{name}", kind.pb(), work) for name, (kind, work) in methods.items()}

    async def create_service(self, request: Message) -> Message:
        """Services.CreateService."""
        wanted = request.service
        return await self._services.create(request.parent, request.service_id, wanted, dry=request.validate_only)

    async def get_service(self, request: Message) -> Message:
        """Services.GetService."""
        return self._services.get(request.name).service

    async def list_services(self, request: Message) -> Message:
        """Services.ListServices; the location may be `-`. Deleted services are not kept."""
        found, token = self._services.page(request.parent, request.page_size, request.page_token)
        return run_v2.ListServicesResponse.pb()(services=found, next_page_token=token)

    async def update_service(self, request: Message) -> Message:
        """Services.UpdateService."""
        return await self._services.update(
            request.service, request.update_mask, allow_missing=request.allow_missing, dry=request.validate_only
        )

    async def delete_service(self, request: Message) -> Message:
        """Services.DeleteService."""
        return await self._services.delete(request.name, request.etag, dry=request.validate_only)

    async def get_revision(self, request: Message) -> Message:
        """Revisions.GetRevision."""
        return self._services.get_revision(request.name).revision

    async def list_revisions(self, request: Message) -> Message:
        """Revisions.ListRevisions; the service may be `-`."""
        names.service(request.parent, self._project)
        size, token = request.page_size, request.page_token
        bodies, following = self._records.page("run_revisions", "service", request.parent, size, token)
        revisions = [RevisionMessage.FromString(body) for body in bodies]
        return run_v2.ListRevisionsResponse.pb()(revisions=revisions, next_page_token=following)

    async def delete_revision(self, request: Message) -> Message:
        """Revisions.DeleteRevision."""
        return self._services.delete_revision(request.name, request.etag, dry=request.validate_only)
