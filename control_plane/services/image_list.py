"""`docker images`: which images are shown, and with which of their references."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from control_plane.model import Image
from control_plane.services.filters import Filters, path_match
from control_plane.services.image_pulls import labels_of
from control_plane.services.image_records import ImageRecords
from control_plane.services.image_views import shared_sizes, summary
from control_plane.services.prune_filters import point_in_time
from control_plane.timestamps import nanoseconds

_ACCEPTED = {"dangling", "label", "before", "since", "reference", "until"}


async def list_images(
    records: ImageRecords,
    tenant: str,
    filters: Mapping[str, Sequence[str]],
    version: tuple[int, int],
    *,
    shared_size: bool,
) -> list[dict[str, Any]]:
    """Rows of `GET /images/json`, the newest first. Raises InvalidParameter, and NotFound for `before` and `since`."""
    judged = Filters(filters, _ACCEPTED)
    before, since = await _bounds(records, tenant, judged)
    images = await records.all(tenant)
    shown: list[tuple[Image, dict[str, Any]]] = []
    for image in images:
        created = nanoseconds(image.created_at)
        if (before is not None and not 0 < created < before) or (since is not None and created <= since):
            continue
        if not judged.labels(labels_of(image)):
            continue
        references = _shown(image, judged)
        if references is not None:
            shown.append((image, summary(image, *references, version)))
    if shared_size:
        sizes = shared_sizes(images)
        for image, row in shown:
            row["SharedSize"] = sizes[image.id]
    shown.sort(key=lambda pair: pair[1]["Created"], reverse=True)
    return [row for _, row in shown]


async def _bounds(records: ImageRecords, tenant: str, filters: Filters) -> tuple[int | None, int | None]:
    before = [nanoseconds((await records.resolve(tenant, text)).created_at) for text in filters.values("before")]
    before += [point_in_time(text) for text in filters.values("until")]
    since = [nanoseconds((await records.resolve(tenant, text)).created_at) for text in filters.values("since")]
    return min(before, default=None), max(since, default=None)


def _shown(image: Image, filters: Filters) -> tuple[list[str], list[str]] | None:
    """The tags and digests to show; None when the image is not shown."""
    tags, digests = list(image.tags), list(image.repo_digests)
    patterns = filters.values("reference")
    if "reference" in filters:
        tags = [one for one in tags if _matches(patterns, one)]
        digests = [one for one in digests if _matches(patterns, one)]
    dangling = filters.flag("dangling", default=False)
    if not tags and not digests:
        hidden = ("dangling" in filters and not dangling) or "reference" in filters
        return None if hidden else (tags, digests)
    return None if dangling and tags else (tags, digests)


def _matches(patterns: list[str], reference: str) -> bool:
    bare = reference.partition("@")[0]
    last = bare.rpartition("/")[2]
    name = bare[: len(bare) - len(last)] + last.partition(":")[0]
    return any(path_match(pattern, reference) or path_match(pattern, name) for pattern in patterns)
