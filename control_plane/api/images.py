"""`/images`: pull, load, list, inspect, history, tag, remove, prune."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing

import orjson
from starlette.responses import Response

from control_plane.api.chunked import ChunkedResponse
from control_plane.api.http import DockerRequest, json_response
from control_plane.api.schemas.images import PlatformSpec
from control_plane.errors import DockerError, InvalidParameter, NotServed
from control_plane.registry import credentials
from control_plane.registry.platform import Platform, normalize, parse
from control_plane.registry.reference import Reference, is_digest, parse_named
from control_plane.services.progress import Line, encode, encoded, error_line
from control_plane.store.base import StoreFull


async def create(request: DockerRequest) -> Response:
    """`docker pull`. Refusals known before the first line are HTTP errors, later ones the last line."""
    name = request.query.get("fromImage", "")
    if not name:
        raise NotServed(
            "Sockerless does not import file systems as images (docker import); "
            "load an image with `docker load`, or push it to a registry and pull it"
        )
    reference = _named(name, request.query.get("tag", ""))
    platform = None
    if request.api_version >= (1, 32) and request.query.get("platform"):
        platform = parse(request.query["platform"])
    login = credentials.from_header(request.headers.get("x-registry-auth"))
    lines = request.services.images.pull(request.tenant, reference, platform, login)
    first = await anext(lines, None)
    return ChunkedResponse(_chunks(first, lines))


async def load(request: DockerRequest) -> Response:
    """`docker load`. As with moby every fault is told in the stream: the body has been read by then."""
    platform = _json_platform(request, (1, 48))
    quiet = request.flag("quiet", default=True)
    lines = request.services.images.load(request.tenant, request.body(), platform, quiet=quiet)
    first: Line | None
    try:
        # Reads the body whole: the response must not wait for a disconnect on it meanwhile.
        first = await anext(lines, None)
    except (DockerError, StoreFull) as error:
        first = error_line(str(error))
    return ChunkedResponse(_chunks(first, lines))


async def _chunks(first: Line | None, lines: AsyncIterator[Line]) -> AsyncIterator[bytes]:
    async with aclosing(encoded(lines)) as rest:  # type: ignore[type-var]
        if first is not None:
            yield encode(first)
        async for chunk in rest:
            yield chunk


def _named(name: str, tag: str) -> Reference:
    """The reference of a pull: a digest may come in `tag`."""
    reference = parse_named(name.removesuffix(":"))
    if not tag:
        return reference
    return reference.trimmed().with_digest(tag) if is_digest(tag) else reference.with_tag(tag)


def _json_platform(request: DockerRequest, since: tuple[int, int]) -> Platform | None:
    """The `platform` parameter as JSON, from the API version that has it on."""
    text = request.query.get("platform", "")
    if request.api_version < since or not text:
        return None
    if len(request.query.getlist("platform")) > 1:
        raise InvalidParameter("multiple platform parameters not supported")
    try:
        spec = PlatformSpec.model_validate(orjson.loads(text))
    except ValueError as error:
        raise InvalidParameter(f"failed to parse platform: {error}") from None
    if not spec.os or not spec.architecture:
        if spec.variant and not spec.os and not spec.architecture:
            raise InvalidParameter("optional platform fields provided, but OS and Architecture are missing")
        raise InvalidParameter("both OS and Architecture must be provided")
    return normalize(spec.os, spec.architecture, spec.variant)


async def list_images(request: DockerRequest) -> Response:
    """`docker images`."""
    filters = request.filters()
    if request.api_version < (1, 41) and request.query.get("filter"):
        filters.setdefault("reference", []).append(request.query["filter"])
    shared = request.api_version >= (1, 42) and request.flag("shared-size")
    rows = await request.services.images.list(request.tenant, filters, request.api_version, shared_size=shared)
    return json_response(rows)


async def inspect(request: DockerRequest) -> Response:
    """`docker image inspect`."""
    platform = _json_platform(request, (1, 49))
    if platform is not None and request.flag("manifests"):
        raise InvalidParameter("conflicting options: manifests and platform options cannot both be set")
    name = request.path["name"]
    return json_response(await request.services.images.inspect(request.tenant, name, request.api_version, platform))


async def history(request: DockerRequest) -> Response:
    """`docker history`."""
    platform = _json_platform(request, (1, 48))
    return json_response(await request.services.images.history(request.tenant, request.path["name"], platform))


async def tag(request: DockerRequest) -> Response:
    """`docker tag`."""
    reference = parse_named(request.query.get("repo", ""))
    if reference.digest is not None:
        raise InvalidParameter("cannot import digest reference")
    if request.query.get("tag"):
        reference = reference.with_tag(request.query["tag"])
    await request.services.images.tag(request.tenant, request.path["name"], reference.tagged())
    return Response(status_code=201)


async def remove(request: DockerRequest) -> Response:
    """`docker rmi`."""
    name = request.path["name"]
    if not name.strip():
        raise InvalidParameter("image name cannot be blank")
    if request.api_version >= (1, 50) and request.query.get("platforms"):
        raise NotServed("an image here is of one platform: remove it without --platform")
    rows = await request.services.images.remove(request.tenant, name, force=request.flag("force"))
    return json_response(rows)


async def prune(request: DockerRequest) -> Response:
    """`docker image prune`."""
    return json_response(await request.services.images.prune(request.tenant, request.filters()))
