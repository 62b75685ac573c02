"""Options of create that no backend serves in this release, each refused by its name. Backends refuse theirs."""

from __future__ import annotations

from typing import Any

from control_plane.errors import InvalidParameter, NotServed
from control_plane.services.log_options import check_log_options

Json = dict[str, Any]

LOG_TYPES = ("", "json-file", "local", "none")
_FOREIGN_LOGS = ("awslogs", "etwlogs", "fluentd", "gcplogs", "gelf", "journald", "splunk", "syslog")
UNSERVED = {
    "Links": "HostConfig.Links: containers do not reach each other by name yet; leave out --link",
    "Cgroup": "HostConfig.Cgroup: there is no host whose cgroups could be joined; leave it out",
    "MaskedPaths": "HostConfig.MaskedPaths: the platform chooses what of /proc and /sys is hidden; leave it out",
    "ReadonlyPaths": "HostConfig.ReadonlyPaths: the platform chooses what of /proc and /sys is writable; leave it out",
    "StorageOpt": "HostConfig.StorageOpt: the platform has no storage driver options; leave out --storage-opt",
}


def refuse_unserved(config: Json, host: Json) -> None:
    """Raises NotServed, or InvalidParameter with moby's text for a logging driver or option there is not."""
    if config["NetworkDisabled"]:
        raise NotServed("Config.NetworkDisabled: the container's agent needs the network; leave it out")
    for option, reason in UNSERVED.items():
        if host[option]:
            raise NotServed(reason)
    if host["VolumeDriver"] not in ("", "local"):
        name = host["VolumeDriver"]
        raise InvalidParameter(f'error looking up volume plugin {name}: plugin "{name}" not found')
    log_type = host["LogConfig"]["Type"]
    if log_type in _FOREIGN_LOGS:
        raise NotServed(
            f"HostConfig.LogConfig: driver {log_type} is not served: output goes to `docker logs` and the cloud's "
            "logging; leave out --log-driver and export it from there"
        )
    if log_type not in LOG_TYPES:
        raise InvalidParameter(f'error looking up logging plugin {log_type}: plugin "{log_type}" not found')
    check_log_options(host["LogConfig"])
