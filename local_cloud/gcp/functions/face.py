"""The gRPC face of Cloud Functions v2."""

from __future__ import annotations

from typing import Any

from google.cloud import functions_v2
from google.cloud.functions_v2.types import functions as types

from local_cloud.calls import Calls
from local_cloud.errors import unserved
from local_cloud.gcp.functions.model import Functions
from local_cloud.gcp.functions.runtimes import RUNTIMES
from local_cloud.gcp.grpc_face import Message, Unary, unary

_GEN_2 = int(functions_v2.Environment.GEN_2)
_AVAILABLE = 1


class FunctionsFace:
    """Requests in, model calls, answers out."""

    def __init__(self, functions: Functions, calls: Calls) -> None:
        self._functions = functions
        self._calls = calls

    def methods(self) -> dict[str, Any]:
        """gRPC method → handler."""
        requests: dict[str, tuple[Any, Unary]] = {
            "CreateFunction": (types.CreateFunctionRequest, self.create),
            "GetFunction": (types.GetFunctionRequest, self.get),
            "ListFunctions": (types.ListFunctionsRequest, self.list_functions),
            "UpdateFunction": (types.UpdateFunctionRequest, self.update),
            "DeleteFunction": (types.DeleteFunctionRequest, self.delete),
            "GenerateUploadUrl": (types.GenerateUploadUrlRequest, self.upload_url),
            "ListRuntimes": (types.ListRuntimesRequest, self.list_runtimes),
        }
        return {
            name: unary(self._calls, f"Functions.{name}", kind.pb(), work) for name, (kind, work) in requests.items()
        }

    async def create(self, request: Message) -> Message:
        """FunctionService.CreateFunction."""
        return await self._functions.create(request.parent, request.function_id, request.function)

    async def get(self, request: Message) -> Message:
        """FunctionService.GetFunction."""
        if request.revision:
            unserved("GetFunctionRequest.revision.")
        return self._functions.get(request.name)[1]

    async def list_functions(self, request: Message) -> Message:
        """FunctionService.ListFunctions; the location may be `-`."""
        if request.filter or request.order_by:
            unserved("ListFunctionsRequest.filter and order_by.")
        found, token = self._functions.page(request.parent, request.page_size, request.page_token)
        return types.ListFunctionsResponse.pb()(functions=found, next_page_token=token)

    async def update(self, request: Message) -> Message:
        """FunctionService.UpdateFunction."""
        return await self._functions.update(request.function, request.update_mask)

    async def delete(self, request: Message) -> Message:
        """FunctionService.DeleteFunction."""
        return await self._functions.delete(request.name)

    async def upload_url(self, request: Message) -> Message:
        """FunctionService.GenerateUploadUrl."""
        if request.kms_key_name:
            unserved("GenerateUploadUrlRequest.kms_key_name.")
        url, bucket, name = self._functions.upload_url(request.parent)
        answer = types.GenerateUploadUrlResponse.pb()(upload_url=url)
        answer.storage_source.bucket, answer.storage_source.object_ = bucket, name
        return answer

    async def list_runtimes(self, request: Message) -> Message:
        """FunctionService.ListRuntimes."""
        if request.filter:
            unserved("ListRuntimesRequest.filter.")
        answer = types.ListRuntimesResponse.pb()()
        for name, display in RUNTIMES.items():
            answer.runtimes.add(name=name, display_name=display, environment=_GEN_2, stage=_AVAILABLE)
        return answer
