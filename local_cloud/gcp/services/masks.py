"""Update masks: which fields of a resource a call replaces."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from google.protobuf import field_mask_pb2

from local_cloud.errors import invalid

Mask: Any = getattr(field_mask_pb2, "FieldMask")  # noqa: B009 - the class is made at run time


def merged(present: Any, wanted: Any, mask: Any, writable: Iterable[str]) -> Any:
    """A copy of a resource with the masked fields of another; raises ServiceError INVALID_ARGUMENT.

    Fields of the mask that cannot be written are ignored, as the services do with output fields.
    """
    result = type(present)()
    result.CopyFrom(present)
    allowed = set(writable)
    paths: list[str] = []
    for path in mask.paths:
        if path == "*":
            paths.extend(allowed)
            continue
        if not _known(present.DESCRIPTOR, path):
            invalid(f"update_mask: '{path}' is not a field of the resource.")
        if path.partition(".")[0] in allowed:
            paths.append(path)
    for path in paths:
        _replace(wanted, result, path.split("."))
    return result


def _known(descriptor: Any, path: str) -> bool:
    for part in path.split("."):
        if descriptor is None or part not in descriptor.fields_by_name:
            return False
        field = descriptor.fields_by_name[part]
        descriptor = None if field.is_repeated else field.message_type
    return True


def _replace(source: Any, target: Any, parts: list[str]) -> None:
    name, field = parts[0], target.DESCRIPTOR.fields_by_name[parts[0]]
    if len(parts) > 1:
        _replace(getattr(source, name), getattr(target, name), parts[1:])
        return
    target.ClearField(name)
    if field.is_repeated:
        getattr(target, name).MergeFrom(getattr(source, name))
    elif field.message_type is not None:
        if source.HasField(name):
            getattr(target, name).CopyFrom(getattr(source, name))
    else:
        setattr(target, name, getattr(source, name))
