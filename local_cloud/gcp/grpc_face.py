"""What every gRPC face shares: counting, faults, and refusals as gRPC statuses."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio

from local_cloud.calls import Calls
from local_cloud.errors import ServiceError

_log = logging.getLogger(__name__)

Message = Any
"""A protobuf message; the SDK's packages carry no types for the raw classes under proto-plus."""
Unary = Callable[[Message], Awaitable[Message]]
Bidi = Callable[[AsyncIterator[Message]], AsyncIterator[Message]]


def _serialize(message: Message) -> bytes:
    data: bytes = message.SerializeToString()
    return data


async def _refuse(context: grpc.aio.ServicerContext[Any, Any], method: str, error: Exception) -> None:
    if isinstance(error, ServiceError):
        await context.abort(grpc.StatusCode[error.code], error.message)
    _log.error("%s failed", method, exc_info=error)
    await context.abort(grpc.StatusCode.INTERNAL, "Internal error encountered.")


def unary(calls: Calls, method: str, request_class: Any, work: Unary) -> grpc.RpcMethodHandler[Any, Any]:
    """A handler of a unary method; `method` is the short name, `Jobs.CreateJob`."""

    async def handle(request: Message, context: grpc.aio.ServicerContext[Any, Any]) -> Message:
        try:
            fault = await calls.before(method)
            answer = await work(request)
            await calls.after(method, fault)
            return answer
        except Exception as error:
            await _refuse(context, method, error)

    return grpc.unary_unary_rpc_method_handler(
        handle, request_deserializer=request_class.FromString, response_serializer=_serialize
    )


def bidi(calls: Calls, method: str, request_class: Any, work: Bidi) -> grpc.RpcMethodHandler[Any, Any]:
    """A handler of a method that streams both ways."""

    async def handle(
        requests: AsyncIterator[Message], context: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[Message]:
        try:
            await calls.before(method)
            async for answer in work(requests):
                yield answer
        except Exception as error:
            await _refuse(context, method, error)

    return grpc.stream_stream_rpc_method_handler(
        handle, request_deserializer=request_class.FromString, response_serializer=_serialize
    )


if TYPE_CHECKING:
    _GenericHandler = grpc.GenericRpcHandler[Any, Any]
else:
    _GenericHandler = grpc.GenericRpcHandler


class LazyService(_GenericHandler):
    """A gRPC service whose face (and the SDK under it) is imported at its first call."""

    def __init__(self, service: str, load: Callable[[], dict[str, grpc.RpcMethodHandler[Any, Any]]]) -> None:
        self._prefix = f"/{service}/"
        self._load = load
        self._methods: dict[str, grpc.RpcMethodHandler[Any, Any]] | None = None

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any] | None:
        """The handler of a call, or None when the call is for another service."""
        path = str(handler_call_details.method)
        if not path.startswith(self._prefix):
            return None
        if self._methods is None:
            self._methods = self._load()
        return self._methods.get(path[len(self._prefix) :])
