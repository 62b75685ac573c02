"""Writes the tables of `docs/backends/*.md` from the code: `python -m control_plane.backends.docs`.

With `--check` nothing is written; the exit code is 1 when a file is not what the code says.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from pydantic_core import PydanticUndefined
from pydantic_settings import BaseSettings

from control_plane.backends.base import Capabilities
from control_plane.backends.options import How, Option

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "backends"


@dataclass(frozen=True, slots=True)
class Document:
    """One page and where its tables come from."""

    file: str
    settings: type[BaseSettings]
    options: Sequence[Option]
    environment: Mapping[str, str]
    capabilities: Capabilities

    def tables(self) -> dict[str, str]:
        """Table name → its text, as it stands between `<!-- name -->` and `<!-- /name -->`."""
        tables = {
            "settings": settings_table(self.settings),
            "options": options_table(self.options),
            "environment": environment_table(self.environment),
        }
        if self.capabilities.differences:
            tables["differences"] = differences_table(self.capabilities)
        return tables

    def render(self, text: str) -> str:
        """The page with its tables made anew. Raises ValueError for a table that is not there once."""
        for name, body in self.tables().items():
            pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
            text, count = pattern.subn(lambda found, body=body: f"{found[1]}{body}{found[2]}", text)  # type: ignore[misc]
            if count != 1:
                raise ValueError(f"{self.file}: must have the table {name!r} once")
        return text


def documents() -> list[Document]:
    """One a backend. What is imported for it loads no cloud's SDK."""
    return [_cloud_run(), _cloud_functions(), _azure_functions()]


def _cloud_run() -> Document:
    from control_plane.backends.cloud_run.backend import environment_names
    from control_plane.backends.cloud_run.capabilities import capabilities
    from control_plane.backends.cloud_run.host_config import HOST_CONFIG
    from control_plane.backends.cloud_run.settings import CloudRunSettings

    return Document("cloud_run.md", CloudRunSettings, HOST_CONFIG, environment_names(), capabilities())


def _cloud_functions() -> Document:
    from control_plane.backends.cloud_functions.capabilities import capabilities
    from control_plane.backends.cloud_functions.host_config import HOST_CONFIG
    from control_plane.backends.cloud_functions.plan import environment_names
    from control_plane.backends.cloud_functions.settings import CloudFunctionsSettings

    return Document("cloud_functions.md", CloudFunctionsSettings, HOST_CONFIG, environment_names(), capabilities())


def _azure_functions() -> Document:
    from control_plane.backends.azure_functions.capabilities import capabilities
    from control_plane.backends.azure_functions.host_config import HOST_CONFIG
    from control_plane.backends.azure_functions.settings import AzureFunctionsSettings
    from control_plane.backends.azure_functions.site import environment_names

    return Document("azure_functions.md", AzureFunctionsSettings, HOST_CONFIG, environment_names(), capabilities())


def settings_table(settings: type[BaseSettings]) -> str:
    """Variable, default, meaning."""
    rows = []
    for field in settings.model_fields.values():
        default = "" if field.default in (PydanticUndefined, "") else f"`{field.default}`"
        rows.append((f"`{field.validation_alias}`", default, str(field.description)))
    return _table(("variable", "default", "meaning"), rows)


def options_table(table: Sequence[Option]) -> str:
    """Docker's options by how they are treated."""
    order = {how: number for number, how in enumerate(get_args(How))}
    rows = []
    for option in sorted(table, key=lambda option: order[option.how]):
        how = f"{option.how}, in part" if option.refuses is not None else option.how
        rows.append((f"`{option.flag or '(API only)'}`", f"`{option.field}`", how, option.note))
    return _table(("`docker run`", "`HostConfig`", "how", "what is done, or why not"), rows)


def environment_table(names: Mapping[str, str]) -> str:
    """What the container's environment in the cloud holds."""
    return _table(("name", "what"), ((f"`{name}`", what) for name, what in names.items()))


def differences_table(capabilities: Capabilities) -> str:
    """Where the backend differs from the others, and why."""
    return _table(("what", "how it differs, and why"), capabilities.differences.items())


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)


def main(arguments: Sequence[str]) -> int:
    """Returns the exit code."""
    stale = 0
    for document in documents():
        path = FOLDER / document.file
        current = path.read_text()
        wanted = document.render(current)
        if wanted == current:
            continue
        if "--check" in arguments:
            print(f"{path.name} is out of date: run python -m control_plane.backends.docs", file=sys.stderr)
            stale = 1
        else:
            path.write_text(wanted)
    return stale


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
