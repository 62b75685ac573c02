"""The local cloud: stand-ins for Google's APIs that answer the official SDKs and run the images for real.

`python -m local_cloud.server --data DIR` runs it alone. Importing this module loads no SDK; `LocalCloud.start` does.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import fcntl
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from local_cloud import ports
from local_cloud.calls import Calls
from local_cloud.options import Options

if TYPE_CHECKING:
    import grpc.aio
    import uvicorn

    from local_cloud.gcp.cloud import GoogleCloud
    from local_cloud.gcp.run.attempts import ContainerRuntime
    from local_cloud.images import Unpacker

_STOP_GRACE = 0.5
_MAX_MESSAGE = 64 << 20


class DataDirectoryBusyError(RuntimeError):
    """Another local cloud runs in this data directory."""


class LocalCloud:
    """One local cloud. Listens on loopback only; its ports are remembered in the data directory."""

    def __init__(
        self,
        data_dir: Path,
        *,
        project: str = "local",
        region: str = "us-central1",
        grpc_port: int = 0,
        http_port: int = 0,
        options: Options | None = None,
        runtime: ContainerRuntime | None = None,
        layers: Unpacker | None = None,
    ) -> None:
        self._data_dir = data_dir.absolute()
        self.project = project
        self.region = region
        self.options = options or Options()
        self.calls = Calls()
        self._wanted = {"grpc": grpc_port, "http": http_port}
        self._ports: dict[str, int] = {}
        self._given = (runtime, layers)
        self._runtime: Any = runtime
        self._lock: IO[str] | None = None
        self._cloud: GoogleCloud | None = None
        self._grpc: grpc.aio.Server | None = None
        self._http: Any = None
        self._serving: asyncio.Task[None] | None = None

    @property
    def grpc_target(self) -> str:
        """Where the gRPC APIs are: `127.0.0.1:P`, for `grpc.aio.insecure_channel`."""
        return f"127.0.0.1:{self._ports['grpc']}"

    @property
    def http_url(self) -> str:
        """Where the registry (`/v2/`), the storage API and `/_local/` are: `http://127.0.0.1:P`."""
        return f"http://127.0.0.1:{self._ports['http']}"

    @property
    def runtime(self) -> Any:
        """The runtime that executions run in (`local_cloud.runtime.api.Runtime`)."""
        return self._runtime

    async def start(self) -> None:
        """Starts serving and takes up what ran before.
        Raises DataDirectoryBusyError, ports.PortTakenError, or RuntimeRefused."""
        self._data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._take_lock()
        try:
            # In a thread: the imports take about a second of CPU; the caller's own listeners answer meanwhile.
            await asyncio.to_thread(_import_faces)
            await self._serve()
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Stops serving. Executions go on; the next start finds them."""
        if self._http is not None:
            self._http.should_exit = True
        if self._grpc is not None:
            await self._grpc.stop(_STOP_GRACE)
            self._grpc = None
        if self._serving is not None:
            await asyncio.gather(self._serving, return_exceptions=True)
            self._serving = None
        if self._cloud is not None:
            await self._cloud.detach()
        if self._given[0] is None and self._runtime is not None:
            await self._runtime.close()
        if self._cloud is not None:
            self._cloud.close()
            self._cloud = None
        self._release_lock()

    async def _serve(self) -> None:
        import grpc.aio
        import uvicorn

        from local_cloud.gcp.cloud import GoogleCloud

        remembered = self._data_dir / "ports.json"
        known = ports.load(remembered)
        wanted = {name: port or known.get(name, 0) for name, port in self._wanted.items()}
        listener = ports.listen("registry and storage", wanted["http"], remembered)
        self._ports = {"http": listener.getsockname()[1]}
        layers = await self._start_runtime()
        self._cloud = GoogleCloud(
            self._data_dir, self.project, self.options, self._runtime, layers, self._ports["http"], self.calls
        )
        self._grpc = grpc.aio.server(
            options=[("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", _MAX_MESSAGE)]
        )
        self._grpc.add_generic_rpc_handlers(self._cloud.grpc_services())
        try:
            self._ports["grpc"] = self._grpc.add_insecure_port(f"127.0.0.1:{wanted['grpc']}")
        except RuntimeError:
            listener.close()
            raise ports.PortTakenError(ports.taken("gRPC API", wanted["grpc"], remembered)) from None
        ports.save(remembered, self._ports)
        await self._cloud.resume()
        await self._grpc.start()
        config = uvicorn.Config(
            self._cloud.http_app(),
            log_config=None,
            access_log=False,
            lifespan="off",
            timeout_graceful_shutdown=1,
            ws="none",
        )
        self._http = _http_server(config)
        self._serving = asyncio.get_running_loop().create_task(self._http.serve(sockets=[listener]))
        await self._http.listening.wait()

    async def _start_runtime(self) -> Unpacker:
        runtime, layers = self._given
        from local_cloud.runtime.api import Runtime
        from local_cloud.runtime.layers import LayerStore

        if runtime is None:
            own = Runtime(self._data_dir / "runtime")
            await own.start()
            self._runtime = own
        return layers or LayerStore(self._data_dir / "runtime")

    def _take_lock(self) -> None:
        lock = (self._data_dir / "lock").open("w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            raise DataDirectoryBusyError(f"another local cloud runs in {self._data_dir}") from None
        self._lock = lock

    def _release_lock(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None


def _import_faces() -> None:
    import local_cloud.gcp.cloud  # noqa: F401


def _http_server(config: uvicorn.Config) -> Any:
    """A uvicorn server that leaves signals to its host process and tells when it listens."""
    import uvicorn

    class Embedded(uvicorn.Server):
        def __init__(self, config: uvicorn.Config) -> None:
            super().__init__(config)
            self.listening = asyncio.Event()

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            self.listening.set()

        @contextlib.contextmanager
        def capture_signals(self) -> Iterator[None]:
            yield

    return Embedded(config)


async def _run(arguments: argparse.Namespace) -> None:
    cloud = LocalCloud(
        arguments.data, project=arguments.project, grpc_port=arguments.grpc_port, http_port=arguments.http_port
    )
    await cloud.start()
    print(f"grpc={cloud.grpc_target} http={cloud.http_url}", flush=True)
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, ended.set)
    await ended.wait()
    await cloud.stop()


def main() -> int:
    """Runs a local cloud until SIGINT or SIGTERM."""
    parser = argparse.ArgumentParser(prog="python -m local_cloud.server", description="Stand-ins for Google's APIs.")
    parser.add_argument("--data", type=Path, required=True, help="the state directory")
    parser.add_argument("--project", default="local")
    parser.add_argument("--grpc-port", type=int, default=0)
    parser.add_argument("--http-port", type=int, default=0)
    try:
        asyncio.run(_run(parser.parse_args()))
    except (DataDirectoryBusyError, ports.PortTakenError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
