"""Writes the tables of `docs/backends/cloud_run.md` from the code: `python -m control_plane.backends.cloud_run.docs`.

With `--check` nothing is written; the exit code is 1 when the file is not what the code says.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import get_args

from pydantic_core import PydanticUndefined

from control_plane.backends.cloud_run.backend import environment_names
from control_plane.backends.cloud_run.host_config import HOST_CONFIG
from control_plane.backends.cloud_run.settings import CloudRunSettings
from control_plane.backends.options import How

DOCUMENT = Path("docs/backends/cloud_run.md")


def settings_table() -> str:
    """Variable, default, meaning."""
    rows = []
    for field in CloudRunSettings.model_fields.values():
        default = "" if field.default in (PydanticUndefined, "") else f"`{field.default}`"
        rows.append((f"`{field.validation_alias}`", default, str(field.description)))
    return _table(("variable", "default", "meaning"), rows)


def options_table() -> str:
    """Docker's options by how they are treated."""
    order = {how: number for number, how in enumerate(get_args(How))}
    options = sorted(HOST_CONFIG, key=lambda option: order[option.how])
    rows = []
    for option in options:
        how = f"{option.how}, in part" if option.refuses is not None else option.how
        rows.append((f"`{option.flag or '(API only)'}`", f"`{option.field}`", how, option.note))
    return _table(("`docker run`", "`HostConfig`", "how", "what is done, or why not"), rows)


def environment_table() -> str:
    """What the execution's environment holds."""
    return _table(("name", "what"), ((f"`{name}`", what) for name, what in environment_names().items()))


TABLES = {"settings": settings_table, "options": options_table, "environment": environment_table}


def render(text: str) -> str:
    """The document with its tables made anew, each between `<!-- name -->` and `<!-- /name -->`."""
    for name, table in TABLES.items():
        pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
        body = table()
        text, count = pattern.subn(lambda found, body=body: f"{found[1]}{body}{found[2]}", text)  # type: ignore[misc]
        if count != 1:
            raise ValueError(f"{DOCUMENT}: must have the table {name!r} once")
    return text


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)


def main(arguments: list[str]) -> int:
    """Returns the exit code."""
    current = DOCUMENT.read_text()
    wanted = render(current)
    if "--check" in arguments:
        if wanted != current:
            print(f"{DOCUMENT} is out of date: run python -m control_plane.backends.cloud_run.docs", file=sys.stderr)
            return 1
        return 0
    DOCUMENT.write_text(wanted)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
