"""What is wanted of a service: checked, and written into it; each change of the template makes a revision."""

from __future__ import annotations

import time
import uuid
from typing import Any

from google.api import launch_stage_pb2
from google.cloud import run_v2

from local_cloud.errors import ServiceError, invalid, unserved
from local_cloud.gcp.run import conditions, labels
from local_cloud.gcp.run.template import CREATOR, new_etag
from local_cloud.gcp.services import names, template, traffic
from local_cloud.gcp.services.records import RevisionRecord, ServiceMessage, ServiceRecord, ServiceRecords
from local_cloud.images import Images
from local_cloud.options import Options

INPUT = ("labels", "annotations", "template", "traffic", "custom_audiences", "scaling", "binary_authorization")
PLAIN = ("description", "client", "client_version", "ingress", "invoker_iam_disabled", "default_uri_disabled")
_ALL = int(run_v2.IngressTraffic.INGRESS_TRAFFIC_ALL)


class Changes:
    """Checks and prepares; nothing is written to the state here."""

    def __init__(self, records: ServiceRecords, images: Images, options: Options) -> None:
        self._records = records
        self._images = images
        self._options = options

    def fresh(self, name: str, wanted: Any) -> Any:
        """A new service's message, its contents checked but not yet in it; raises ServiceError."""
        location, _, service_id = name.partition("/services/")
        service = ServiceMessage(name=name, uid=str(uuid.uuid4()), creator=CREATOR)
        self.check(service, wanted)
        if self._records.service(name) is not None:
            raise ServiceError("ALREADY_EXISTS", f"Resource '{service_id}' already exists.")
        self.check_quota(location)
        service.uri = f"https://{names.host(name)}"
        service.urls.extend([f"https://{names.numbered_host(name)}", service.uri])
        service.create_time.FromNanoseconds(time.time_ns())
        return service

    def check_quota(self, location: str) -> None:
        """Raises ServiceError RESOURCE_EXHAUSTED when a region is full of services."""
        limit = self._options.quotas.services
        if limit is not None and self._records.count_services(location) >= limit:
            raise ServiceError(
                "RESOURCE_EXHAUSTED",
                f"Quota exceeded for services per region: the limit is {limit} services in a project and region.",
            )

    def check(self, service: Any, wanted: Any) -> None:
        """Refuses what the service refuses in a Service, and by name what the local cloud lacks."""
        labels.check_labels(wanted.labels, "service.labels")
        labels.check_annotations(wanted.annotations, "service.annotations")
        if len(wanted.description) > 512:
            invalid("service.description: must be at most 512 characters long.")
        if wanted.iap_enabled or wanted.HasField("multi_region_settings") or wanted.HasField("build_config"):
            unserved("service.iap_enabled, multi_region_settings and build_config.")
        if wanted.scaling.min_instance_count or wanted.scaling.HasField("manual_instance_count"):
            unserved("service.scaling: instances are started by requests; set template.scaling.max_instance_count.")
        template.check(wanted.template, self._images, self._options.nfs_servers)
        if wanted.template.revision:
            names.check_revision_id(wanted.template.revision, service.name.rpartition("/")[2])
        named = ServiceMessage(name=service.name, template=wanted.template, traffic=wanted.traffic)
        traffic.check(named, self._records)

    def prepare(self, service: Any, wanted: Any) -> tuple[ServiceRecord, RevisionRecord | None]:
        """A service with what is wanted of it, and its new revision, if any. Raises ServiceError ALREADY_EXISTS."""
        before = type(service)()
        before.CopyFrom(service)
        for field in INPUT:
            service.ClearField(field)
            if _present(wanted, field):
                getattr(service, field).MergeFrom(getattr(wanted, field))
        for field in PLAIN:
            setattr(service, field, getattr(wanted, field))
        service.ingress = service.ingress or _ALL
        service.launch_stage = wanted.launch_stage or launch_stage_pb2.GA
        template.complete(service.template)
        service.generation += 1
        service.last_modifier, service.etag, service.reconciling = CREATOR, new_etag(), True
        service.update_time.FromNanoseconds(time.time_ns())
        del service.conditions[:]
        conditions.fill(service.terminal_condition, "Ready", conditions.RECONCILING)
        return ServiceRecord(service), self._revision(service, before)

    def _revision(self, service: Any, before: Any) -> RevisionRecord | None:
        wanted, unchanged = service.template.revision, template.same(service.template, before.template)
        known = self._records.revision(f"{service.name}/revisions/{wanted}") if wanted else None
        if unchanged and before.latest_created_revision and (not wanted or wanted == before.template.revision):
            return None
        if known is not None:
            raise ServiceError(
                "ALREADY_EXISTS", f"Revision named '{wanted}' with different configuration already exists."
            )
        revision_id = wanted or names.new_revision_id(service.name.rpartition("/")[2], service.generation)
        revision = template.new_revision(service, revision_id)
        service.latest_created_revision = revision.name
        return RevisionRecord(revision, "", "")


def _present(message: Any, field: str) -> bool:
    descriptor = message.DESCRIPTOR.fields_by_name[field]
    return bool(getattr(message, field)) if descriptor.is_repeated else bool(message.HasField(field))
