"""The tables of `docs/terraform.md`, made from the modules and from the classes that read the variables.

python -m tests.terraform.document [--check]
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable

from tests.terraform.schema_types import REPOSITORY, TERRAFORM
from tests.terraform.variables import given, known, of_gateway

DOCUMENT = REPOSITORY / "docs" / "terraform.md"
_BLOCK = r'^{kind} "(\w+)" \{{\n(.*?)^\}}'
_PLACE = re.compile(r"(<!-- (\w+) (\w+) -->\n).*?(<!-- /\2 -->)", re.DOTALL)


def _first_sentence(text: str) -> str:
    sentence = re.split(r"(?<=[.])\s", text.replace("|", "\\|"), maxsplit=1)[0]
    return sentence.rstrip(";.") + "."


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _environment(cloud: str) -> str:
    control, gateway = given(cloud)
    rows = []
    for role, found, told in (("control plane", control, known(cloud)), ("gateway", gateway, of_gateway())):
        rows += [[f"`{name}`", role, found[name], _first_sentence(told.get(name, ""))] for name in sorted(found)]
    return _table(["variable", "of", "from", "what"], rows)


def _inputs(cloud: str) -> str:
    rows = []
    for name, block in _blocks(cloud, "variables.tf", "variable"):
        default = re.search(r"^  default\s+= (.+)$", block, re.MULTILINE)
        rows.append([f"`{name}`", f"`{default[1]}`" if default else "required", _described(block)])
    return _table(["input", "default", "what"], rows)


def _outputs(cloud: str) -> str:
    rows = [[f"`{name}`", _described(block)] for name, block in _blocks(cloud, "outputs.tf", "output")]
    return _table(["output", "what"], rows)


def _blocks(cloud: str, file: str, kind: str) -> list[tuple[str, str]]:
    text = (TERRAFORM / "modules" / cloud / file).read_text()
    found: list[tuple[str, str]] = re.findall(_BLOCK.format(kind=kind), text, re.MULTILINE | re.DOTALL)
    return found


def _described(block: str) -> str:
    found = re.search(r'^  description\s+= "(.*)"$', block, re.MULTILINE)
    return found[1].replace('\\"', '"').replace("|", "\\|") if found else ""


_TABLES: dict[str, Callable[[str], str]] = {"environment": _environment, "inputs": _inputs, "outputs": _outputs}


def rendered(text: str) -> str:
    """The document with its tables made anew."""
    return _PLACE.sub(lambda found: found[1] + _TABLES[found[2]](found[3]) + found[4], text)


def main() -> int:
    """Writes the document, or tells with exit code 1 that it is not as it should be."""
    text = DOCUMENT.read_text()
    made = rendered(text)
    if "--check" in sys.argv[1:]:
        if made != text:
            print("docs/terraform.md is out of date: make docs")
            return 1
        return 0
    DOCUMENT.write_text(made)
    return 0


if __name__ == "__main__":
    sys.exit(main())
