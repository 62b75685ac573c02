"""What importing the application loads: counted in modules, because time on a busy machine says nothing."""

from __future__ import annotations

import subprocess
import sys

FORBIDDEN = ("google", "grpc", "azure", "aiohttp", "requests", "docker", "rich", "typer", "re2", "uvicorn")
MOST_MODULES = 620
"""About 400 ms of CPU with compiled modules on the machine this was set on; the interpreter's own are counted too."""


def _modules(statement: str) -> list[str]:
    # Namespace packages, which an installed SDK adds to every interpreter, have no file and cost nothing.
    program = f"{statement}; import sys; print(*(n for n, m in sys.modules.items() if getattr(m, '__file__', None)))"
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()


def test_importing_the_application_loads_no_cloud_sdk() -> None:
    loaded = {name.partition(".")[0] for name in _modules("import control_plane.app")}
    assert loaded & set(FORBIDDEN) == set()


def test_importing_the_application_with_its_handlers_loads_no_cloud_sdk() -> None:
    statement = (
        "import control_plane.app; from control_plane.route import resolve; from control_plane.routes import ROUTES; "
        "[resolve(route) for route in ROUTES]"
    )
    modules = _modules(statement)
    assert {name.partition(".")[0] for name in modules} & set(FORBIDDEN) == set()
    assert len(modules) < MOST_MODULES
