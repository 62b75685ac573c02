"""What Cloud Build leaves: the image of a function's own code.

The local cloud checks a function's source but builds nothing and runs no buildpack image: such an image exists by name
only, and a service that has it answers by itself.
"""

from __future__ import annotations

import re

from starlette.responses import PlainTextResponse, Response

_BUILT = re.compile(r"[a-z0-9-]+-docker\.pkg\.dev/[^/]+/gcf-artifacts/[^/@:]+:version_\d+")
_TEXT = (
    "This function has been deployed. The local cloud does not run a function's own code, and answers in its place.\n"
)


def image(project: str, region: str, function: str, version: int) -> str:
    """The reference of a function's built image, named as the service names it."""
    path = f"{project}__{region}__{function}".replace("-", "--").replace("_", "__")
    return f"{region}-docker.pkg.dev/{project}/gcf-artifacts/{path}:version_{version}"


def is_built(reference: str) -> bool:
    """Whether an image is one that Cloud Functions built."""
    return _BUILT.fullmatch(reference) is not None


def answer() -> Response:
    """The answer of a function whose image is still the built one."""
    return PlainTextResponse(_TEXT)
