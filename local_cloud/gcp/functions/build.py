"""What Cloud Build and the buildpacks would say about a function's source. Nothing is run or kept of it.

Facts: functions/docs/writing (the file and the function that a runtime looks for); the texts are those of public
reports of failed builds and deployments.
"""

from __future__ import annotations

import ast
import uuid
import zipfile
from pathlib import Path

from local_cloud.errors import ServiceError, not_found
from local_cloud.gcp.storage.model import Buckets
from local_cloud.options import PROJECT_NUMBER

_LARGEST_FILE = 10 << 20
_LARGEST_SOURCE = 512 << 20


def new_build(region: str) -> str:
    """The resource name of a new build."""
    return f"projects/{PROJECT_NUMBER}/locations/{region}/builds/{uuid.uuid4()}"


def find(buckets: Buckets, bucket: str, name: str, generation: int) -> tuple[Path, int]:
    """A source's file and generation; raises ServiceError NOT_FOUND."""
    missing = f"Cloud Storage object gs://{bucket}/{name} not found."
    try:
        stored = buckets.get(bucket, name)
    except ServiceError:
        not_found(missing)
    if generation and generation != stored.generation:
        not_found(f"Cloud Storage object gs://{bucket}/{name}#{generation} not found.")
    return buckets.path(bucket, name), stored.generation


def check(source: Path, runtime: str, entry_point: str, build: str) -> None:
    """Reads a source archive as a build would; raises ServiceError with the build's error. Blocks: for a thread."""
    try:
        with zipfile.ZipFile(source) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > _LARGEST_SOURCE:
                raise _failed(build, "fetching the source: the uncompressed source is larger than 512 MB")
            if runtime.startswith("python"):
                _check_python(archive, entry_point, build)
            elif not archive.namelist():
                raise _failed(build, "failed to build: the source archive is empty")
    except (OSError, zipfile.BadZipFile, zipfile.LargeZipFile, RuntimeError, NotImplementedError, EOFError) as error:
        raise _failed(build, f"fetching the source: not a readable zip archive: {error}") from error


def _check_python(archive: zipfile.ZipFile, entry_point: str, build: str) -> None:
    try:
        entry = archive.getinfo("main.py")
    except KeyError:
        raise _failed(
            build,
            "missing main.py and GOOGLE_FUNCTION_SOURCE not specified. Either create the function in main.py or "
            "specify GOOGLE_FUNCTION_SOURCE to point to the file that contains the function",
        ) from None
    if entry.file_size > _LARGEST_FILE:
        raise _failed(build, "failed to compile main.py: the file is larger than 10 MB")
    try:
        tree = ast.parse(archive.read(entry))
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise _failed(build, f"(ID: google.python.runtime) failed to compile main.py: {error}") from None
    if not _defines(tree, entry_point):
        raise _failed(
            build,
            f"(ID: google.python.functions-framework) MissingTargetException: File /workspace/main.py is expected to "
            f"contain a function named '{entry_point}'",
        )


def _defines(tree: ast.Module, name: str) -> bool:
    """Whether a module has a top-level name that may be a function."""
    for statement in tree.body:
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found = [statement.name]
        elif isinstance(statement, ast.Import | ast.ImportFrom):
            found = [alias.asname or alias.name for alias in statement.names]
        elif isinstance(statement, ast.Assign):
            found = [target.id for target in statement.targets if isinstance(target, ast.Name)]
        else:
            found = []
        if name in found or "*" in found:
            return True
    return False


def _failed(build: str, why: str) -> ServiceError:
    _, project, _, region, _, number = build.split("/")
    logs = f"https://console.cloud.google.com/cloud-build/builds;region={region}/{number}?project={project}"
    text = f"Build failed with status: FAILURE and message: {why}. For more details see the logs at {logs}."
    return ServiceError("INVALID_ARGUMENT", text)
