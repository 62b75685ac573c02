"""Every route of the Docker Engine API v1.50: who serves it, or why it is refused.

`docs/compatibility.md` is made from this table (`python -m control_plane.compatibility`).

Scopes of tokens: `read` sees everything of its tenant, contents of containers and their settings included; `run` makes
and uses containers and pulls images; what concerns the tenant as a whole (networks, volumes, images, prunes) is `full`.
"""

from __future__ import annotations

from control_plane.route import Route

_CLUSTER_VOLUMES = "only Swarm's cluster volumes can be updated, and Sockerless does not serve Swarm"
_NOT_A_MANAGER = (
    "This node is not a swarm manager. Sockerless does not serve Swarm: "
    "use `docker run` or `docker compose` against this endpoint."
)
_PLUGINS = "Sockerless has no plugins: volumes, networks and logging are those of the cloud a container runs on."
_BUILD = (
    "Sockerless does not build images. Build with a builder that pushes to a registry "
    "(`docker buildx build --push` with a remote builder, kaniko, Cloud Build) and pull the result."
)
_CHECKPOINT = "checkpoints need CRIU on the container's machine, which the cloud's container platforms do not offer"
_COMMIT = "Sockerless does not make images of containers. Copy files out with `docker cp` and build an image from them."
_PUSH = "Sockerless pulls from registries and does not push to them. Push from where the image was built."
_SAVE = "Sockerless does not export images: pull the image from its registry instead."
_STATS = "container stats are not served yet; `docker top` shows the processes, the cloud's monitoring their usage"
_CHANGES = "the changes of a container's file system are not served yet; copy files out with `docker cp`"
_EXPORT = "a container's whole file system is not exported yet; copy files out with `docker cp CONTAINER:/path -`"
_HIJACK = (
    "this request takes over its connection, which only the gateway's front door can do: "
    "point DOCKER_HOST at the front door, or use `sockerless connect`"
)
_SEARCH = "Sockerless does not search registries; look the image up on the registry's own site"
_DISTRIBUTION = (
    "Sockerless does not look up manifests for clients; ask the registry (`docker buildx imagetools inspect`)"
)
_SESSION = "build sessions are not served: Sockerless does not build images"
_RECORDS = "networks are records in this release: containers do not reach each other by name yet"


def _refused(method: str, path: str, reason: str, status: int = 501) -> Route:
    return Route(method, path, served_by="nobody", status=status, reason=reason)


_SYSTEM = [
    Route("GET", "/_ping", "system.ping"),
    Route("HEAD", "/_ping", "system.ping"),
    Route("GET", "/version", "system.version"),
    Route("GET", "/info", "system.info"),
    Route("GET", "/events", "events.events"),
    Route(
        "GET",
        "/system/df",
        "system.disk_usage",
        note="containers' writable layers and volumes are not measured (`SizeRw` 0, `UsageData.Size` -1)",
    ),
    Route("POST", "/auth", "auth.check", scope="run", quiet=True),
]

_CONTAINERS = [
    Route("GET", "/containers/json", "containers.list_containers", note="`size`: the writable layer is not measured"),
    Route("POST", "/containers/create", "containers.create", scope="run"),
    Route("GET", "/containers/{id}/json", "containers.inspect", note="`size`: the writable layer is not measured"),
    Route("GET", "/containers/{id}/top", "container_actions.top"),
    Route("GET", "/containers/{id}/logs", "logs.logs"),
    _refused("GET", "/containers/{id}/changes", _CHANGES),
    _refused("GET", "/containers/{id}/export", _EXPORT),
    _refused("GET", "/containers/{id}/stats", _STATS),
    Route("POST", "/containers/{id}/resize", "container_actions.resize", scope="run", quiet=True),
    Route("POST", "/containers/{id}/start", "container_actions.start", scope="run"),
    Route("POST", "/containers/{id}/stop", "container_actions.stop", scope="run"),
    Route("POST", "/containers/{id}/restart", "container_actions.restart", scope="run"),
    Route("POST", "/containers/{id}/kill", "container_actions.kill", scope="run"),
    Route(
        "POST",
        "/containers/{id}/update",
        "containers.update",
        note="resources: while the container is stopped; the restart policy: always",
        scope="run",
    ),
    Route("POST", "/containers/{id}/rename", "containers.rename", scope="run"),
    Route("POST", "/containers/{id}/pause", "container_actions.pause", scope="run"),
    Route("POST", "/containers/{id}/unpause", "container_actions.unpause", scope="run"),
    Route("POST", "/containers/{id}/attach", served_by="front_door", reason=_HIJACK, scope="run"),
    Route("GET", "/containers/{id}/attach/ws", served_by="front_door", reason=_HIJACK, scope="run"),
    Route("POST", "/containers/{id}/wait", "containers.wait", scope="run", quiet=True),
    Route("DELETE", "/containers/{id}", "container_actions.remove", scope="run"),
    Route("HEAD", "/containers/{id}/archive", "archives.head"),
    Route("GET", "/containers/{id}/archive", "archives.get"),
    Route("PUT", "/containers/{id}/archive", "archives.put", scope="run"),
    Route("POST", "/containers/prune", "container_actions.prune"),
    Route("POST", "/containers/{id}/exec", "execs.create", scope="run"),
    _refused("GET", "/containers/{id}/checkpoints", _CHECKPOINT),
    _refused("POST", "/containers/{id}/checkpoints", _CHECKPOINT),
    _refused("DELETE", "/containers/{id}/checkpoints/{checkpoint}", _CHECKPOINT),
]

_EXECS = [
    Route(
        "POST",
        "/exec/{id}/start",
        "execs.start",
        served_by="front_door",
        note="attached by the front door; with `Detach` by the control plane",
        scope="run",
    ),
    Route("POST", "/exec/{id}/resize", "execs.resize", scope="run", quiet=True),
    Route("GET", "/exec/{id}/json", "execs.inspect"),
]

_IMAGES = [
    Route("GET", "/images/json", "images.list_images"),
    Route("POST", "/images/create", "images.create", scope="run"),
    Route("POST", "/images/load", "images.load"),
    Route("POST", "/images/prune", "images.prune"),
    Route("GET", "/images/{name}/json", "images.inspect"),
    Route("GET", "/images/{name}/history", "images.history"),
    Route("POST", "/images/{name}/tag", "images.tag"),
    Route("DELETE", "/images/{name}", "images.remove"),
    _refused("GET", "/images/search", _SEARCH),
    _refused("GET", "/images/get", _SAVE),
    _refused("GET", "/images/{name}/get", _SAVE),
    _refused("POST", "/images/{name}/push", _PUSH),
    _refused("GET", "/distribution/{name}/json", _DISTRIBUTION),
    _refused("POST", "/commit", _COMMIT),
    _refused("POST", "/build", _BUILD),
    Route("POST", "/build/prune", "builds.prune", note="there is no build cache: nothing is reclaimed"),
    _refused("POST", "/build/cancel", _BUILD),
    # Builders try these two and fall back on any error; moby without BuildKit answers 404.
    _refused("POST", "/session", _SESSION, 404),
    _refused("POST", "/grpc", _SESSION, 404),
]

_VOLUMES = [
    Route("GET", "/volumes", "volumes.list_volumes"),
    Route("POST", "/volumes/create", "volumes.create"),
    Route("POST", "/volumes/prune", "volumes.prune"),
    Route("GET", "/volumes/{name}", "volumes.inspect"),
    Route("DELETE", "/volumes/{name}", "volumes.remove"),
    _refused("PUT", "/volumes/{name}", _CLUSTER_VOLUMES),
]

_NETWORKS = [
    Route("GET", "/networks", "networks.list_networks", note=_RECORDS),
    Route("GET", "/networks/", "networks.list_networks", note=_RECORDS),
    Route("POST", "/networks/create", "networks.create", note=_RECORDS),
    Route("POST", "/networks/prune", "networks.prune"),
    Route("GET", "/networks/{id}", "networks.inspect"),
    Route("POST", "/networks/{id}/connect", "networks.connect", note=_RECORDS),
    Route("POST", "/networks/{id}/disconnect", "networks.disconnect", note=_RECORDS),
    Route("DELETE", "/networks/{id}", "networks.remove"),
]


def _swarm_routes() -> list[Route]:
    # moby answers 503 to Swarm's routes when it is no manager; clients know how to read that.
    refused = [
        ("GET", "/swarm"),
        ("POST", "/swarm/init"),
        ("POST", "/swarm/join"),
        ("POST", "/swarm/leave"),
        ("POST", "/swarm/update"),
        ("GET", "/swarm/unlockkey"),
        ("POST", "/swarm/unlock"),
        ("GET", "/nodes"),
        ("GET", "/nodes/{id}"),
        ("DELETE", "/nodes/{id}"),
        ("POST", "/nodes/{id}/update"),
        ("GET", "/tasks"),
        ("GET", "/tasks/{id}"),
        ("GET", "/tasks/{id}/logs"),
        ("GET", "/services/{id}/logs"),
    ]
    for kind in ("services", "secrets", "configs"):
        refused += [
            ("GET", f"/{kind}"),
            ("POST", f"/{kind}/create"),
            ("GET", f"/{kind}/{{id}}"),
            ("DELETE", f"/{kind}/{{id}}"),
            ("POST", f"/{kind}/{{id}}/update"),
        ]
    return [_refused(method, path, _NOT_A_MANAGER, 503) for method, path in refused]


_PLUGIN_ROUTES = [
    Route("GET", "/plugins", "plugins.list_plugins", note="there are none"),
    Route("GET", "/plugins/{name}/json", "plugins.inspect", note="there are none"),
    *(
        _refused(method, path, _PLUGINS)
        for method, path in (
            ("GET", "/plugins/privileges"),
            ("POST", "/plugins/pull"),
            ("POST", "/plugins/create"),
            ("DELETE", "/plugins/{name}"),
            ("POST", "/plugins/{name}/enable"),
            ("POST", "/plugins/{name}/disable"),
            ("POST", "/plugins/{name}/upgrade"),
            ("POST", "/plugins/{name}/push"),
            ("POST", "/plugins/{name}/set"),
        )
    ),
]

ROUTES: tuple[Route, ...] = (
    *_SYSTEM,
    *_CONTAINERS,
    *_EXECS,
    *_IMAGES,
    *_VOLUMES,
    *_NETWORKS,
    *_swarm_routes(),
    *_PLUGIN_ROUTES,
)
