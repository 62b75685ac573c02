"""The rules of names, locations and tags."""

from __future__ import annotations

import re
from typing import Any

from local_cloud.azure import errors
from local_cloud.azure.errors import ArmError

_SITE = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,58}[A-Za-z0-9])")
_PLAN = re.compile(r"[A-Za-z0-9_-]{1,60}")
_LOCATION = re.compile(r"[a-z][a-z0-9]{2,40}")
_SETTING = re.compile(r"[A-Za-z0-9_.]{1,256}")
_TAG_FORBIDDEN = re.compile(r"[<>%&\\?/]")
_MAX_TAGS, _MAX_TAG_NAME, _MAX_TAG_VALUE = 50, 512, 256


def check_site(name: str) -> None:
    """2 to 60 letters, digits and inner hyphens. Raises ArmError."""
    if not _SITE.fullmatch(name):
        raise errors.invalid_parameter("name")


def check_plan(name: str) -> None:
    """1 to 60 letters, digits, hyphens and underscores. Raises ArmError."""
    if not _PLAN.fullmatch(name):
        raise errors.invalid_parameter("name")


def check_location(body: dict[str, Any], kind: str, present: str, name: str, group: str) -> str:
    """A new resource's region, or an old one's, which cannot change. Raises ArmError."""
    wanted = str(body.get("location") or "").lower().replace(" ", "")
    if not wanted:
        raise ArmError(400, "LocationRequired", "The location property is required for this definition.")
    if not _LOCATION.fullmatch(wanted):
        text = f"The provided location '{wanted}' is not available for resource type 'Microsoft.Web/{kind}'."
        raise ArmError(400, "LocationNotAvailableForResourceType", text)
    if present and present != wanted:
        text = (
            f"The resource '{name}' already exists in location '{present}' in resource group '{group}'. A resource "
            f"with the same name cannot be created in location '{wanted}'. Please select a new resource name."
        )
        raise ArmError(409, "InvalidResourceLocation", text)
    return wanted


def check_tags(tags: Any) -> dict[str, str]:
    """Resource Manager's rules for tags. Raises ArmError."""
    if tags is None:
        return {}
    if not isinstance(tags, dict) or not all(isinstance(value, str) for value in tags.values()):
        raise ArmError(400, "InvalidRequestContent", "The tags must be an object of strings.")
    if len(tags) > _MAX_TAGS:
        raise ArmError(400, "InvalidTags", f"The number of tags {len(tags)} exceeds the maximum of {_MAX_TAGS}.")
    for name, value in tags.items():
        if not name or len(name) > _MAX_TAG_NAME or _TAG_FORBIDDEN.search(name):
            text = f"The tag names '{name}' have reserved characters '<,>,%,&,\\,?,/' or control characters."
            raise ArmError(400, "InvalidTagNameCharacters", text)
        if len(value) > _MAX_TAG_VALUE:
            text = f"Tag value too large. Following tag value '{value[:32]}…' exceeded the maximum length of 256."
            raise ArmError(400, "InvalidTagValueLength", text)
    return dict(tags)


def check_settings(wanted: Any) -> dict[str, str]:
    """App settings as an object, or as the list of a siteConfig. Raises ArmError."""
    if isinstance(wanted, list):
        pairs = [(each.get("name"), each.get("value")) for each in wanted if isinstance(each, dict)]
        if len(pairs) != len(wanted):
            raise errors.invalid_parameter("siteConfig.appSettings")
    elif isinstance(wanted, dict):
        pairs = list(wanted.items())
    else:
        raise errors.invalid_parameter("appSettings")
    found: dict[str, str] = {}
    for name, value in pairs:
        if not isinstance(name, str) or not _SETTING.fullmatch(name):
            raise errors.bad_request(f"AppSetting with name(s) '{name}' is not allowed.")
        if name in found or not (value is None or isinstance(value, str)) or "\0" in (value or ""):
            raise errors.invalid_parameter(f"appSettings.{name}")
        found[name] = value or ""
    return found
