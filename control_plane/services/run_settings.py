"""What the services that run containers can be set to."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RunSettings:
    """Times in seconds, sizes in bytes."""

    instance: str = "control-plane"
    """Names this process in leases."""
    sole_instance: bool = False
    """No other control plane uses the store (embedded): leases of earlier processes are void at once."""
    start_timeout: float = 240.0
    """How long `start` waits for the process before it gives up with 504."""
    lease: float = 30.0
    """How long an operation may be silent before the reconciler takes it over."""
    agent_connect_timeout: float = 120.0
    """From the execution's creation to the agent's hello; then the command is run without an agent."""
    linger: int = 3600
    """How long an agent stays after its process ended, keeping the file system; -1 until `rm`."""
    log_max_bytes: int = 64 * 1024 * 1024
    """Of the log spool inside the container."""
    kill_wait: float = 10.0
    """From KILL to the agent's report, before the cloud is asked to cancel."""
    remove_wait: float = 3.0
    """The same in `rm -f`, which goes on without the report."""
    shutdown_wait: float = 2.0
    """For the agent's answer to `shutdown`."""
    refusal_seen: float = 5.0
    """So long at most the record of a failed start with `--rm` is kept for the process that waits for the start."""
    release_delay: float = 5.0
    """From the end of a container that removes itself to the removal of its cloud resources."""
    cancel_wait: float = 30.0
    """From a cancel to the cloud's record of the end."""
    outcome_poll: float = 1.0
    """Between two looks at an execution that was cancelled."""
    reconcile_interval: float = 5.0
    redial_grace: float = 15.0
    """After the start of the only instance: how long agents have to say hello again."""
    audit_interval: float = 600.0
    """Between two looks at the executions of containers whose agents seem connected."""
    sweep_interval: float = 900.0
    exec_keep: float = 300.0
    """How long an ended exec stays inspectable at least."""
    staged_limit: int = 4 * 1024 * 1024 * 1024
    """Of one archive put into a container that has not started yet."""
