"""Every field of `HostConfig` (API 1.50, `api/types/container` of moby 28) and what becomes of it on a platform."""

from __future__ import annotations

from control_plane.backends import options as o
from control_plane.backends.options import Option

_SANDBOX = "each container has a sandbox and a kernel of its own, nothing is shared"
_WEIGHT = "weights share one machine among containers; here each container has its own"


def host_config(title: str, runtime: str, *own: Option) -> tuple[Option, ...]:
    """The table of a platform (`title`, for sentences) whose backend is called `runtime`.

    `own` are the fields that this platform treats otherwise than the common row says.
    """
    differs = {option.field: option for option in own}
    return tuple(differs.get(option.field, option) for option in _common(title, runtime))


def published_ports(agent_port: int = 0) -> Option:
    """The row of `-p`. `agent_port`: where the agent takes the platform's requests; 0: nowhere."""
    return Option(
        "PortBindings",
        "-p, --publish",
        "mapped",
        "TCP; on loopback of the machine where `sockerless connect` or `sockerless up` runs, through the agent",
        refuses=o.port_refusal(agent_port) if agent_port else None,
    )


def _common(title: str, runtime: str) -> tuple[Option, ...]:
    return (
        # --- files ---
        Option(
            "Binds",
            "-v, --volume",
            "mapped",
            "NFS or bucket volumes, by SOCKERLESS_BIND_RULES; the agent binds the path below the mount",
            refuses=o.binds_refusal,
        ),
        Option("Mounts", "--mount", "mapped", "as -v; tmpfs mounts are made by the agent", refuses=o.mounts_refusal),
        Option("VolumesFrom", "--volumes-from", "mapped", "the other container's volumes are mounted here too"),
        Option(
            "VolumeDriver",
            "--volume-driver",
            "mapped",
            "`local` is the endpoint's volume storage",
            refuses=o.only("local", reason="volumes are kept in the endpoint's volume storage; there are no drivers"),
        ),
        Option("Tmpfs", "--tmpfs", "agent", "mounted before the command starts; it counts as memory of the container"),
        Option("ReadonlyRootfs", "--read-only", "agent", "the root is made read-only before the command starts"),
        Option(
            "StorageOpt",
            "--storage-opt",
            "refused",
            "the writable layer is memory of the container; it is sized with --memory",
        ),
        Option("ContainerIDFile", "--cidfile", "harmless", "the client writes the file itself"),
        # --- output, lifetime ---
        Option(
            "LogConfig",
            "--log-driver, --log-opt",
            "agent",
            "the agent keeps the output for docker logs (max-size is honoured) and passes it on to Cloud Logging; "
            "with `none` it does neither",
            refuses=o.log_refusal,
        ),
        Option("RestartPolicy", "--restart", "mapped", "the control plane starts the container again"),
        Option("AutoRemove", "--rm", "mapped", "the control plane removes the container"),
        Option("ConsoleSize", "", "agent", "first size of the terminal"),
        Option("Annotations", "--annotation", "harmless", "kept for inspect; no OCI runtime of ours reads them"),
        Option(
            "Runtime",
            "--runtime",
            "mapped",
            "chooses the backend; `runc` is Docker's name for its default",
            refuses=o.only(
                runtime, "runc", "io.containerd.runc.v2", reason=f"unknown runtime; this backend is `{runtime}`"
            ),
        ),
        # --- network ---
        Option(
            "NetworkMode",
            "--network",
            "mapped",
            "networks are records; containers of one network do not reach each other by name in this release",
            refuses=o.network_refusal,
            warns=o.network_warning,
        ),
        published_ports(),
        Option(
            "PublishAllPorts",
            "-P, --publish-all",
            "mapped",
            "as -p, of every TCP port that the image or the container exposes",
        ),
        Option("Dns", "--dns", "agent", "written to /etc/resolv.conf"),
        Option("DnsOptions", "--dns-option", "agent", "written to /etc/resolv.conf"),
        Option("DnsSearch", "--dns-search", "agent", "written to /etc/resolv.conf"),
        Option("ExtraHosts", "--add-host", "agent", "written to /etc/hosts", refuses=o.extra_hosts_refusal),
        Option("Links", "--link", "refused", "containers do not reach each other by name in this release"),
        # --- privileges and namespaces ---
        Option("CapAdd", "--cap-add", "agent", "added to Docker's default set, within what the sandbox has"),
        Option("CapDrop", "--cap-drop", "agent", "dropped before the command starts"),
        Option("GroupAdd", "--group-add", "agent", "supplementary groups of the command"),
        Option("Sysctls", "--sysctl", "agent", "written before the command starts"),
        Option("Ulimits", "--ulimit", "agent", "set before the command starts"),
        Option("ShmSize", "--shm-size", "agent", "size of /dev/shm; it counts as memory of the container"),
        Option("Init", "--init", "agent", "the agent is the first process and reaps"),
        Option(
            "SecurityOpt",
            "--security-opt",
            "agent",
            "no-new-privileges is set; unconfined and label options are what the sandbox is anyway",
            refuses=o.security_refusal,
            warns=o.security_warning,
        ),
        Option(
            "Privileged",
            "--privileged",
            "refused",
            f"{title} gives no container the machine's devices and kernel; --cap-add gives single capabilities",
        ),
        Option("Devices", "--device", "refused", f"{title} has no host devices to give"),
        Option("DeviceCgroupRules", "--device-cgroup-rule", "refused", f"{title} has no host devices to give"),
        Option("DeviceRequests", "--gpus", "refused", "GPUs are not mapped in this release"),
        Option(
            "PidMode",
            "--pid",
            "refused",
            "containers run on machines of their own: there are no processes of a host or of another container to see",
        ),
        Option(
            "IpcMode",
            "--ipc",
            "harmless",
            f"private and shareable are the same here: {_SANDBOX}",
            refuses=o.only(
                "private",
                "shareable",
                reason="containers run on machines of their own and cannot share IPC; use private",
            ),
        ),
        Option("UTSMode", "--uts", "refused", "the container has a host name of its own; set it with --hostname"),
        Option(
            "UsernsMode",
            "--userns",
            "harmless",
            "`host` means no remapping of users, which is so here",
            refuses=o.only("host", reason="users cannot be remapped; only `host` can be had"),
        ),
        Option(
            "CgroupnsMode",
            "--cgroupns",
            "harmless",
            f"private is what it is: {_SANDBOX}",
            refuses=o.only("private", reason="there is no host whose cgroups could be seen; use private"),
        ),
        Option("Cgroup", "", "refused", "containers run on machines of their own and cannot share cgroups"),
        Option("CgroupParent", "--cgroup-parent", "refused", "there is no host cgroup to put the container under"),
        Option(
            "MaskedPaths",
            "",
            "harmless",
            "the sandbox's kernel is the container's own, masking protects nothing",
        ),
        Option(
            "ReadonlyPaths",
            "",
            "harmless",
            "the sandbox's kernel is the container's own, write protection protects nothing",
        ),
        Option(
            "Isolation",
            "--isolation",
            "mapped",
            "`default`",
            refuses=o.only("default", reason="process and hyperv are Windows isolations; only `default` can be had"),
        ),
        # --- memory ---
        Option(
            "Memory",
            "-m, --memory",
            "mapped",
            f"memory, rounded up to what {title} sells; 32 GiB at most",
        ),
        Option(
            "MemoryReservation",
            "--memory-reservation",
            "harmless",
            "a soft limit only matters where containers compete for one machine",
        ),
        Option(
            "MemorySwap", "--memory-swap", "harmless", "there is no swap: the container never gets more than --memory"
        ),
        Option("MemorySwappiness", "--memory-swappiness", "harmless", "there is no swap"),
        Option(
            "OomKillDisable",
            "--oom-kill-disable",
            "harmless",
            "discarded, as moby does with cgroup v2",
            warns=o.says("Your kernel does not support OomKillDisable. OomKillDisable discarded."),
        ),
        Option("OomScoreAdj", "--oom-score-adj", "agent", "set before the command starts"),
        Option("KernelMemory", "--kernel-memory", "refused", "moby has dropped it too; use --memory"),
        Option("KernelMemoryTCP", "", "refused", f"{title} has no such limit; use --memory"),
        # --- CPU ---
        Option("NanoCpus", "--cpus", "mapped", "CPUs, rounded up to 1, 2, 4, 6 or 8"),
        Option("CpuQuota", "--cpu-quota", "mapped", "as --cpus: quota divided by period"),
        Option("CpuPeriod", "--cpu-period", "mapped", "as --cpus: quota divided by period"),
        Option("CpuShares", "-c, --cpu-shares", "harmless", _WEIGHT),
        Option("CpuRealtimePeriod", "--cpu-rt-period", "refused", f"{title} has no real-time scheduling"),
        Option("CpuRealtimeRuntime", "--cpu-rt-runtime", "refused", f"{title} has no real-time scheduling"),
        Option(
            "CpusetCpus",
            "--cpuset-cpus",
            "refused",
            f"{title} does not let CPUs be chosen; use --cpus for their number",
        ),
        Option("CpusetMems", "--cpuset-mems", "refused", f"{title} does not let memory nodes be chosen"),
        Option("CpuCount", "--cpu-count", "refused", "an option of Windows containers; use --cpus"),
        Option("CpuPercent", "--cpu-percent", "refused", "an option of Windows containers; use --cpus"),
        # --- processes and block I/O ---
        Option(
            "PidsLimit",
            "--pids-limit",
            "harmless",
            "it protects other containers of the machine; here there are none",
            warns=o.positive(
                "--pids-limit has no effect: the platform sets no limit of processes, the sandbox is the bound"
            ),
        ),
        Option("BlkioWeight", "--blkio-weight", "harmless", _WEIGHT),
        Option("BlkioWeightDevice", "--blkio-weight-device", "refused", "there are no host disks to name"),
        Option("BlkioDeviceReadBps", "--device-read-bps", "refused", "there are no host disks to name"),
        Option("BlkioDeviceWriteBps", "--device-write-bps", "refused", "there are no host disks to name"),
        Option("BlkioDeviceReadIOps", "--device-read-iops", "refused", "there are no host disks to name"),
        Option("BlkioDeviceWriteIOps", "--device-write-iops", "refused", "there are no host disks to name"),
        Option("IOMaximumIOps", "--io-maxiops", "refused", "an option of Windows containers"),
        Option("IOMaximumBandwidth", "--io-maxbandwidth", "refused", "an option of Windows containers"),
    )
