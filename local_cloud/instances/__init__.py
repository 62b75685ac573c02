"""Containers that answer HTTP: what Cloud Run services and App Service sites are made of."""

from local_cloud.instances.containers import Instance, InstanceFailed, Instances, InstanceSpec
from local_cloud.instances.forwarding import ClientGone, UpstreamBroken, UpstreamTimeout, forward

__all__ = [
    "ClientGone",
    "Instance",
    "InstanceFailed",
    "InstanceSpec",
    "Instances",
    "UpstreamBroken",
    "UpstreamTimeout",
    "forward",
]
