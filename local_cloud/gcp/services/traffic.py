"""Which revision gets a request."""

from __future__ import annotations

import random
from typing import Any

from google.cloud import run_v2

from local_cloud.errors import invalid
from local_cloud.gcp.services.records import ServiceRecords

_LATEST = int(run_v2.TrafficTargetAllocationType.TRAFFIC_TARGET_ALLOCATION_TYPE_LATEST)
_REVISION = int(run_v2.TrafficTargetAllocationType.TRAFFIC_TARGET_ALLOCATION_TYPE_REVISION)


def check(service: Any, records: ServiceRecords) -> None:
    """Checks a service's wanted traffic; raises ServiceError INVALID_ARGUMENT."""
    if not service.traffic:
        return
    tags: set[str] = set()
    for number, target in enumerate(service.traffic):
        if target.percent < 0 or target.percent > 100:
            invalid(f"traffic[{number}].percent: must be between 0 and 100, got {target.percent}.")
        if target.revision:
            own = f"{service.name}/revisions/{target.revision}"
            if target.revision != service.template.revision and records.revision(own) is None:
                invalid(f"traffic[{number}].revision: Revision '{target.revision}' does not exist.")
        elif target.type_ == _REVISION:
            invalid(f"traffic[{number}].revision: must be set for this type of target.")
        if target.tag and (target.tag in tags or "---" in target.tag):
            invalid(f"traffic[{number}].tag: '{target.tag}' is not a unique tag.")
        tags.add(target.tag)
    total = sum(target.percent for target in service.traffic)
    if total != 100:
        invalid(f"traffic: The sum of traffic percentages must be 100, got {total}.")


def settle(service: Any) -> None:
    """Writes what the service's traffic has become: all of it on the latest revision when nothing was said."""
    del service.traffic_statuses[:]
    if not service.traffic:
        service.traffic.add(type_=_LATEST, percent=100)
    for target in service.traffic:
        status = service.traffic_statuses.add(
            type_=target.type_ or (_REVISION if target.revision else _LATEST),
            revision=target.revision,
            percent=target.percent,
            tag=target.tag,
        )
        if target.tag:
            status.uri = service.uri.replace("https://", f"https://{target.tag}---", 1)


def serving(service: Any) -> set[str]:
    """The full names of the revisions that may get requests."""
    found = {target.revision for target in service.traffic_statuses if target.percent or target.tag}
    return {f"{service.name}/revisions/{name}" if name else service.latest_ready_revision for name in found} - {""}


def choose(service: Any, tag: str) -> str | None:
    """The full name of the revision for one request; None when there is none."""
    targets = [target for target in service.traffic_statuses if target.tag == tag] if tag else []
    if not tag:
        targets = [target for target in service.traffic_statuses if target.percent]
    if not targets:
        return None
    weights = [target.percent or 1 for target in targets]
    target = targets[0] if len(targets) == 1 else random.choices(targets, weights)[0]
    name = f"{service.name}/revisions/{target.revision}" if target.revision else service.latest_ready_revision
    return name or None
