"""Resource names of Cloud Run Admin v2."""

from __future__ import annotations

import re
from dataclasses import dataclass

from local_cloud.errors import ServiceError, invalid

_PARENT = re.compile(r"projects/([a-z0-9][a-z0-9:.-]{0,62})/locations/([a-z0-9-]{1,40})")
_ID = r"[a-z](?:[a-z0-9-]{0,61}[a-z0-9])?"
_JOB_ID = re.compile(_ID)
_JOB = re.compile(rf"(projects/[^/]+/locations/[^/]+)/jobs/({_ID}|-)")
_EXECUTION = re.compile(rf"(projects/[^/]+/locations/[^/]+/jobs/(?:{_ID}|-))/executions/({_ID}|-)")
_TASK = re.compile(rf"(projects/[^/]+/locations/[^/]+/jobs/{_ID}/executions/{_ID})/tasks/({_ID})")


@dataclass(frozen=True, slots=True)
class Location:
    """`projects/P/locations/R`."""

    project: str
    region: str

    def __str__(self) -> str:
        return f"projects/{self.project}/locations/{self.region}"


def location(parent: str, project: str) -> Location:
    """Reads a parent; raises ServiceError for a malformed one or another project."""
    match = _PARENT.fullmatch(parent)
    if match is None:
        invalid(f"Invalid resource name '{parent}': must be of the form projects/{{project}}/locations/{{location}}.")
    if match[1] != project:
        raise ServiceError(
            "PERMISSION_DENIED",
            f"Permission denied on resource project {match[1]}, or it does not exist (here is only {project}).",
        )
    return Location(match[1], match[2])


def _split(name: str, pattern: re.Pattern[str], form: str, project: str) -> tuple[str, str]:
    match = pattern.fullmatch(name)
    if match is None:
        invalid(f"Invalid resource name '{name}': must be of the form {form}.")
    location("/".join(name.split("/")[:4]), project)
    return match[1], match[2]


def job(name: str, project: str) -> tuple[str, str]:
    """`…/jobs/J` → (`projects/P/locations/R`, J); J may be `-` in a parent."""
    return _split(name, _JOB, "projects/{project}/locations/{location}/jobs/{job}", project)


def execution(name: str, project: str) -> tuple[str, str]:
    """`…/jobs/J/executions/E` → (job name, E)."""
    return _split(
        name, _EXECUTION, "projects/{project}/locations/{location}/jobs/{job}/executions/{execution}", project
    )


def task(name: str, project: str) -> tuple[str, str]:
    """`…/executions/E/tasks/T` → (execution name, T)."""
    form = "projects/{project}/locations/{location}/jobs/{job}/executions/{execution}/tasks/{task}"
    return _split(name, _TASK, form, project)


def check_job_id(job_id: str) -> str:
    """A job id as the service accepts it; raises ServiceError INVALID_ARGUMENT."""
    if not job_id:
        invalid("Violation in CreateJobRequest.job_id: required field not present.")
    if len(job_id) > 63 or not _JOB_ID.fullmatch(job_id):
        invalid(
            f"Violation in CreateJobRequest.job_id: '{job_id}' must use only lowercase alphanumeric characters "
            "and dashes, "
            "begin with a letter, not end with a dash, and be at most 63 characters long."
        )
    return job_id
