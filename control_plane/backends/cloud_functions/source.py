"""The stub that functions are made from: Cloud Functions builds source code only, and knows no images.

It is put into the endpoint's own bucket, once, under the digest of its content. The other way, GenerateUploadUrl, would
cost a call and an upload for every deployment (what is uploaded there does not stay), and the control plane may
write into that bucket anyway; the service agent of Cloud Functions may read every bucket of its project.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import zipfile
from typing import Any

from control_plane.backends.cloud_functions.plan import ENTRY_POINT
from control_plane.backends.gcp.storage import ONCE, ObjectStorage

_FILES = {
    "main.py": f"""import functions_framework


@functions_framework.http
def {ENTRY_POINT}(request):
    return "This function is being prepared for a container.\\n", 503
""",
    "requirements.txt": "functions-framework==3.*\n",
}
_LONG_AGO = (1980, 1, 1, 0, 0, 0)


def archive() -> bytes:
    """The zip file: the same bytes every time."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archived:
        for name, text in _FILES.items():
            archived.writestr(zipfile.ZipInfo(name, _LONG_AGO), text)
    return buffer.getvalue()


class StubSource:
    """The stub in one bucket."""

    def __init__(self, storage: ObjectStorage) -> None:
        self._storage = storage
        self._ready: dict[str, Any] | None = None
        self._lock = asyncio.Lock()

    async def source(self) -> dict[str, Any]:
        """`functions_v2.Source` as a mapping; the first call of a process looks, and uploads what is missing.

        Raises CloudError.
        """
        async with self._lock:
            if self._ready is None:
                content = archive()
                name = f"functions/{hashlib.sha256(content).hexdigest()[:16]}.zip"
                await self._storage.do(
                    "putting the functions' source into its bucket", lambda b: _put(b, name, content)
                )
                self._ready = {"storage_source": {"bucket": self._storage.bucket_name, "object_": name}}
            return self._ready

    def missing(self) -> None:
        """The service did not find it: the next call looks again."""
        self._ready = None


def _put(bucket: Any, name: str, content: bytes) -> None:
    """Uploads unless it is there; whoever else does so at the same time puts the same bytes."""
    blob = bucket.get_blob(name, **ONCE)
    if blob is None or blob.size != len(content):
        bucket.blob(name).upload_from_string(content, content_type="application/zip", **ONCE)
