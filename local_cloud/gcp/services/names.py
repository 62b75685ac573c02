"""Names and addresses of Cloud Run services and their revisions."""

from __future__ import annotations

import base64
import hashlib
import random
import re

from local_cloud.errors import invalid
from local_cloud.gcp.run import names
from local_cloud.options import PROJECT_NUMBER

_ID = r"[a-z](?:[a-z0-9-]{0,61}[a-z0-9])?"
_SERVICE_ID = re.compile(_ID)
_SERVICE = re.compile(rf"(projects/[^/]+/locations/[^/]+)/services/({_ID}|-)")
_REVISION = re.compile(rf"(projects/[^/]+/locations/[^/]+/services/(?:{_ID}|-))/revisions/({_ID})")
_LETTERS = "bcdfghjklmnpqrstvwxz"
_VOWELS = "aeiou"
_LONGEST_ID = 49
_REGION_CODES = {"us-central1": "uc", "us-east1": "ue", "us-west1": "uw", "europe-west1": "ew", "europe-north1": "lz",
                 "asia-east1": "de", "asia-northeast1": "an"}  # fmt: skip


def service(name: str, project: str) -> tuple[str, str]:
    """`…/services/S` → (`projects/P/locations/R`, S); S may be `-` in a parent."""
    match = _SERVICE.fullmatch(name)
    if match is None:
        invalid(
            f"Invalid resource name '{name}': must be of the form "
            "projects/{project}/locations/{location}/services/{service}."
        )
    names.location(match[1], project)
    return match[1], match[2]


def revision(name: str, project: str) -> tuple[str, str]:
    """`…/services/S/revisions/V` → (service name, V)."""
    match = _REVISION.fullmatch(name)
    if match is None:
        invalid(
            f"Invalid resource name '{name}': must be of the form "
            "projects/{project}/locations/{location}/services/{service}/revisions/{revision}."
        )
    names.location("/".join(name.split("/")[:4]), project)
    return match[1], match[2]


def check_service_id(service_id: str) -> str:
    """A service id as the service accepts it; raises ServiceError INVALID_ARGUMENT."""
    if not service_id:
        invalid("Violation in CreateServiceRequest.service_id: required field not present.")
    if len(service_id) > _LONGEST_ID or not _SERVICE_ID.fullmatch(service_id):
        invalid(
            f"Violation in CreateServiceRequest.service_id: '{service_id}' must use only lowercase alphanumeric "
            "characters and dashes, begin with a letter, not end with a dash, and be less than 50 characters long."
        )
    return service_id


def check_revision_id(revision_id: str, service_id: str) -> None:
    """An explicit revision name; raises ServiceError INVALID_ARGUMENT."""
    if len(revision_id) > 63 or not _SERVICE_ID.fullmatch(revision_id):
        invalid(
            f"template.revision: '{revision_id}' must use only lowercase alphanumeric characters and dashes, begin "
            "with a letter, not end with a dash, and be at most 63 characters long."
        )
    if not revision_id.startswith(f"{service_id}-"):
        invalid(f"template.revision: the name must be prefixed by the name of the service and a dash: '{service_id}-'.")


def new_revision_id(service_id: str, generation: int) -> str:
    """A revision name as the service makes them: `service-00001-kod`."""
    ending = "".join((random.choice(_LETTERS), random.choice(_VOWELS), random.choice(_LETTERS)))
    return f"{service_id[: 63 - 10].rstrip('-')}-{generation:05d}-{ending}"


def host(name: str) -> str:
    """The host name of a service: `service-hash-region.a.run.app`; its first label is at most 63 characters long."""
    _, project, _, region, _, service_id = name.split("/")
    digest = hashlib.sha256(f"{project}/{region}".encode()).digest()
    code = _REGION_CODES.get(region) or re.sub(r"[^a-z]", "", region)[:2]
    ending = f"-{base64.b32encode(digest).decode().lower()[:10]}-{code}"
    if len(service_id) + len(ending) > 63:
        mark = hashlib.sha256(service_id.encode()).hexdigest()[:6]
        service_id = f"{service_id[: 63 - len(ending) - 7].rstrip('-')}-{mark}"
    return f"{service_id}{ending}.a.run.app"


def numbered_host(name: str) -> str:
    """The other host name of a service, made of the project's number."""
    _, _, _, region, _, service_id = name.split("/")
    return f"{service_id}-{PROJECT_NUMBER}.{region}.run.app"
