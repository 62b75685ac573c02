"""The Cloud Run backend's settings, from the environment. The table in `docs/backends/cloud_run.md` is made from it."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import field_validator, model_validator

from control_plane.backends.gcp.settings import GoogleSettings, load, variable
from control_plane.backends.location import Location
from control_plane.errors import InvalidParameter
from control_plane.registry.reference import parse_named

LONGEST_RUN = 168 * 3600
"""Seconds: the longest task timeout of Cloud Run jobs."""

InjectionSetting = Literal["auto", "startup_command", "image_layer", "volume", "none"]


class CloudRunSettings(GoogleSettings):
    """Field descriptions are the documentation."""

    project: str = variable(
        "SOCKERLESS_GCR_PROJECT", ..., "Google Cloud project the jobs are made in. Required.", min_length=1
    )
    region: str = variable("SOCKERLESS_GCR_REGION", "us-central1", "Region of the jobs.")
    vpc_connector: str = variable(
        "SOCKERLESS_GCR_VPC_CONNECTOR",
        "",
        "Serverless VPC Access connector of the jobs: its name in the region, or the full resource name. "
        "NFS volumes need one.",
    )
    agent_image: str = variable(
        "SOCKERLESS_GCR_AGENT_IMAGE",
        "",
        "An image whose file `/.sockerless/agent` is put into containers in place of this distribution's agent "
        "(`image_layer`, `volume`), so that a deployment can pin it; best named by digest. It is pulled anonymously, "
        "from the endpoint's own registry with its login. Empty: the built-in agent.",
    )
    agent_token: str = variable(
        "SOCKERLESS_GCR_AGENT_TOKEN",
        "",
        "The key that agent tokens are signed with, in place of the endpoint's own (at least 32 characters; the same "
        "for every control plane and gateway of the endpoint). It is never given to a container.",
        repr=False,
    )
    service_account: str = variable(
        "SOCKERLESS_GCR_SERVICE_ACCOUNT", "", "Service account the containers run as; empty: the project's default."
    )
    injection: InjectionSetting = variable(
        "SOCKERLESS_GCR_INJECTION",
        "auto",
        "How the agent gets into the container: `image_layer`, `volume`, `startup_command`, `none`, or `auto`: the "
        "first of the first three, in this order, that works for the image.",
    )
    agent_location: str = variable(
        "SOCKERLESS_GCR_AGENT_VOLUME",
        "",
        "`gs://bucket/prefix` where the control plane puts the agent for injection `volume`, as "
        "`linux-<arch>/<digest>/agent`; empty with `SOCKERLESS_GCR_INJECTION=volume`: `agent/` in "
        "SOCKERLESS_GCP_BUCKET; empty with `auto`: `volume` is left out.",
    )
    timeout: int = variable(
        "SOCKERLESS_GCR_TIMEOUT",
        LONGEST_RUN,
        "Seconds a container may run; then the platform ends it. It counts from the start of provisioning.",
        ge=1,
        le=LONGEST_RUN,
    )
    cpu: float = variable("SOCKERLESS_GCR_CPU", 1.0, "CPUs of a container without `--cpus`.", gt=0, le=8)
    memory: str = variable("SOCKERLESS_GCR_MEMORY", "512Mi", "Memory of a container without `-m`.")
    writes_per_minute: int = variable(
        "SOCKERLESS_GCR_WRITES_PER_MINUTE",
        180,
        "Cloud Run Admin writes a minute that this process keeps to; 0: no bound.",
        ge=0,
    )

    @field_validator("agent_image")
    @classmethod
    def _agent_image_is_a_reference(cls, value: str) -> str:
        try:
            return str(parse_named(value).tagged()) if value else ""
        except InvalidParameter as error:
            raise ValueError(f"{value!r} is not an image reference: {error.message}") from None

    @field_validator("agent_token")
    @classmethod
    def _key_is_long_enough(cls, value: str) -> str:
        if value and len(value) < 32:
            raise ValueError("must have at least 32 characters")
        return value

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        if self.injection == "startup_command" and self.agent_image:
            raise ValueError(
                "SOCKERLESS_GCR_AGENT_IMAGE has no effect with SOCKERLESS_GCR_INJECTION=startup_command: "
                "the gateway hands out its own agent"
            )
        if self.injection == "image_layer" and not self.registry_writable:
            raise ValueError("SOCKERLESS_GCR_INJECTION=image_layer needs SOCKERLESS_GCR_REGISTRY_WRITABLE")
        if self.agent_location and Location.parse(self.agent_location).scheme != "gs":
            raise ValueError("SOCKERLESS_GCR_AGENT_VOLUME must be gs://bucket/prefix")
        return self

    @property
    def agent_place(self) -> Location | None:
        """Where the agent is put for injection `volume`; None where that is left out."""
        if self.agent_location:
            return Location.parse(self.agent_location)
        return Location("gs", self.bucket_name, "agent") if self.injection == "volume" else None


def load_settings(**overrides: Any) -> CloudRunSettings:
    """From the environment, with `overrides` by field name on top. Raises SettingsError with one line."""
    return load(CloudRunSettings, "the containers run in", **overrides)
