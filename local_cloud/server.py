"""The local cloud: stand-ins for Google's and Azure's APIs that answer the official SDKs and run images for real.

`python -m local_cloud.server --data DIR` runs it alone. Importing this module loads no SDK; `LocalCloud.start` does.
"""

from __future__ import annotations

import argparse
import asyncio
import fcntl
import resource
import signal
import sys
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from local_cloud import ports
from local_cloud.calls import Calls
from local_cloud.options import Options

if TYPE_CHECKING:
    import grpc.aio

    from local_cloud.azure.cloud import AzureCloud
    from local_cloud.gcp.cloud import GoogleCloud
    from local_cloud.gcp.run.attempts import ContainerRuntime
    from local_cloud.http_server import HttpServer
    from local_cloud.images import Unpacker
    from local_cloud.instances import Instances
    from local_cloud.state import State

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
        self._google: GoogleCloud | None = None
        self._azure: AzureCloud | None = None
        self._azure_state: State | None = None
        self._instances: Instances | None = None
        self._grpc: grpc.aio.Server | None = None
        self._http: HttpServer | None = None
        self._serving: asyncio.Task[None] | None = None

    @property
    def grpc_target(self) -> str:
        """Where the gRPC APIs are: `127.0.0.1:P`, for `grpc.aio.insecure_channel`."""
        return f"127.0.0.1:{self._ports['grpc']}"

    @property
    def http_url(self) -> str:
        """Where the registry (`/v2/`), the storage API, Azure's APIs and `/_local/` are: `http://127.0.0.1:P`."""
        return f"http://127.0.0.1:{self._ports['http']}"

    @property
    def azure_identity(self) -> tuple[str, str]:
        """What programs with the managed identity have in `IDENTITY_ENDPOINT` and `IDENTITY_HEADER`."""
        from local_cloud.azure.cloud import IDENTITY_PATH

        assert self._azure is not None, "not started"
        return f"{self.http_url}{IDENTITY_PATH}", self._azure.identity_header

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
        """Stops serving, cutting the requests that are held. Containers go on; the next start finds them."""
        if self._http is not None:
            self._http.should_exit = True
        if self._grpc is not None:
            await self._grpc.stop(_STOP_GRACE)
            self._grpc = None
        if self._serving is not None:
            await asyncio.gather(self._serving, return_exceptions=True)
            self._serving = self._http = None
        for part in (self._azure, self._google, self._instances):
            if part is not None:
                await part.detach()
        if self._given[0] is None and self._runtime is not None:
            await self._runtime.close()
        for state in (self._azure_state, self._google):
            if state is not None:
                state.close()
        self._azure = self._google = self._instances = self._azure_state = None
        self._release_lock()

    async def _serve(self) -> None:
        remembered = self._data_dir / "ports.json"
        known = ports.load(remembered)
        wanted = {name: port or known.get(name, 0) for name, port in self._wanted.items()}
        listener = ports.listen("registry and storage", wanted["http"], remembered)
        self._ports = {"http": listener.getsockname()[1]}
        try:
            google, azure = await self._compose()
            self._grpc = self._listen_for_grpc(google, wanted["grpc"], remembered)
            ports.save(remembered, self._ports)
            await google.resume()
            await azure.resume()
            await self._grpc.start()
        except BaseException:
            listener.close()
            raise
        self._http = self._http_server(google, azure)
        self._serving = asyncio.get_running_loop().create_task(self._http.serve(sockets=[listener]))
        await self._http.listening.wait()

    async def _compose(self) -> tuple[GoogleCloud, AzureCloud]:
        """Both clouds over one runtime."""
        from local_cloud.azure.cloud import AzureCloud
        from local_cloud.gcp.cloud import GoogleCloud
        from local_cloud.instances import Instances
        from local_cloud.state import State

        layers = await self._start_runtime()
        self._instances = Instances(self._runtime, self.options.network)
        self._google = GoogleCloud(
            self._data_dir,
            self.project,
            self.options,
            self._runtime,
            layers,
            self._ports["http"],
            self.calls,
            self._instances,
            self.region,
        )
        self._azure_state = State(self._data_dir / "azure.sqlite")
        self._azure = AzureCloud(
            self._data_dir, self._azure_state, self.calls, self._google.images, self._instances, self.options
        )
        return self._google, self._azure

    def _listen_for_grpc(self, google: GoogleCloud, port: int, remembered: Path) -> grpc.aio.Server:
        import grpc.aio

        server = grpc.aio.server(options=[("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", _MAX_MESSAGE)])
        server.add_generic_rpc_handlers(google.grpc_services())
        try:
            self._ports["grpc"] = server.add_insecure_port(f"127.0.0.1:{port}")
        except RuntimeError:
            raise ports.PortTakenError(ports.taken("gRPC API", port, remembered)) from None
        return server

    def _http_server(self, google: GoogleCloud, azure: AzureCloud) -> HttpServer:
        from starlette.applications import Starlette

        from local_cloud import admin
        from local_cloud.front_end import FrontEnd
        from local_cloud.http_server import HttpServer
        from local_cloud.own_clients import OwnClients

        routes = [*google.http_routes(), *azure.http_routes(), *admin.routes(self.calls, self.resources)]
        hosts = {**google.hosts(), **azure.hosts()}
        front_end = FrontEnd(Starlette(routes=routes), hosts)
        return HttpServer(OwnClients(front_end, self.options.registry_hosts, hosts), front_end.holds)

    def resources(self) -> dict[str, int]:
        """How many resources of each kind there are in both clouds."""
        found: dict[str, int] = {}
        for cloud in (self._google, self._azure):
            if cloud is not None:
                found.update(cloud.resources())
        return {**found, "instances": self._instances.running if self._instances is not None else 0}

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
    import local_cloud.azure.cloud
    import local_cloud.gcp.cloud
    import local_cloud.http_server  # noqa: F401


async def _run(arguments: argparse.Namespace) -> None:
    cloud = LocalCloud(
        arguments.data, project=arguments.project, grpc_port=arguments.grpc_port, http_port=arguments.http_port
    )
    await cloud.start()
    # `host` is where containers reach this machine: gateways they dial listen there.
    print(f"grpc={cloud.grpc_target} http={cloud.http_url} host={cloud.runtime.host_address}", flush=True)
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, ended.set)
    await ended.wait()
    await cloud.stop()


def main() -> int:
    """Runs a local cloud until SIGINT or SIGTERM."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # a held request has two connections
    parser = argparse.ArgumentParser(
        prog="python -m local_cloud.server", description="Stand-ins for Google's and Azure's APIs."
    )
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
