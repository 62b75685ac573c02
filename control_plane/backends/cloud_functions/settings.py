"""The Cloud Functions backend's settings, from the environment. The documentation's table is made from it."""

from __future__ import annotations

from typing import Any

from control_plane.backends.gcp.settings import GoogleSettings, load, variable

LONGEST_RUN = 3600
"""Seconds: the longest request that a function may answer."""


class CloudFunctionsSettings(GoogleSettings):
    """Field descriptions are the documentation."""

    project: str = variable(
        "SOCKERLESS_GCF_PROJECT", ..., "Google Cloud project the functions are made in. Required.", min_length=1
    )
    region: str = variable("SOCKERLESS_GCF_REGION", "us-central1", "Region of the functions.")
    service_account: str = variable(
        "SOCKERLESS_GCF_SERVICE_ACCOUNT", "", "Service account the containers run as; empty: the project's default."
    )
    vpc_connector: str = variable(
        "SOCKERLESS_GCF_VPC_CONNECTOR",
        "",
        "Serverless VPC Access connector of the functions: its name in the region, or the full resource name. "
        "NFS volumes need one.",
    )
    timeout: int = variable(
        "SOCKERLESS_GCF_TIMEOUT",
        LONGEST_RUN,
        "Seconds a request to a function may last. A container may run for 15 seconds less (for half of it at least); "
        "then the agent ends it.",
        ge=1,
        le=LONGEST_RUN,
    )
    cpu: float = variable("SOCKERLESS_GCF_CPU", 1.0, "CPUs of a container without `--cpus`.", gt=0, le=8)
    memory: str = variable("SOCKERLESS_GCF_MEMORY", "1Gi", "Memory of a container without `-m`.")
    start_timeout: float = variable(
        "SOCKERLESS_GCF_START_TIMEOUT",
        110.0,
        "Seconds `docker start` waits for the function to be deployed, and after that for its instance to take the "
        "request. The deployment goes on beyond it.",
        gt=0,
    )
    pool: int = variable(
        "SOCKERLESS_GCF_POOL",
        1,
        "Functions kept ready per tenant, image and shape, so that the next container need not wait for a deployment; "
        "0: none. One that is idle for an hour is removed.",
        ge=0,
    )
    writes_per_minute: int = variable(
        "SOCKERLESS_GCF_WRITES_PER_MINUTE",
        60,
        "Cloud Functions writes a minute that this process keeps to; 0: no bound. Changes of the services below count "
        "with SOCKERLESS_GCR_WRITES_PER_MINUTE.",
        ge=0,
    )

    @property
    def limit_seconds(self) -> float:
        """How long a run may take: what is left of the request is for reporting its end."""
        return max(self.timeout - 15.0, self.timeout / 2)


def load_settings(**overrides: Any) -> CloudFunctionsSettings:
    """From the environment, with `overrides` by field name on top. Raises SettingsError with one line."""
    return load(CloudFunctionsSettings, "the functions are made in", **overrides)
