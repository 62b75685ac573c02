"""The schemas of the resource types that `terraform/` uses, out of the npm packages that are generated from them.

`@cdktf/provider-google` and `@cdktf/provider-azurerm` are made by a generator from the providers' own schemas: their
modules hold every argument's name and type, the blocks' nesting, and what is required or computed. They are 30 MB each;
what is used of them is kept in `schemas/*.json`, so that the check needs no network. To be run when a new resource type
is used, or for a new version of a provider:

    python -m tests.terraform.extract [directory for the packages]

The directory (a temporary one without it) gets the packages from npm. What those modules do not tell: whether an
optional argument is computed when it is left out (taken as: no, but for `id`), and what is write-only (taken as: names
that end in `_wo`).
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

from tests.terraform.schema_types import PROVIDERS, SCHEMAS, TERRAFORM, Provider

_USED = re.compile(r'^\s*(resource|data)\s+"([a-z0-9_]+)"', re.MULTILINE)
_ENTRY = re.compile(
    r"(\w+): \{\s+value: (.+),\s+isBlock: (true|false),\s+type: \"(\w+)\",\s+storageClassType: \"(\w+)\",\s+\}"
)
_FUNCTION = re.compile(r"^function (\w+)ToHclTerraform\(struct\) \{\n(.*?)^\}", re.MULTILINE | re.DOTALL)
_CLASS = re.compile(r"^class (\w+) extends ([\w.]+) \{\n(.*?)^\}", re.MULTILINE | re.DOTALL)
_INTERFACE = re.compile(r"^export interface (\w+)[^{]*\{\n(.*?)^\}", re.MULTILINE | re.DOTALL)
_MEMBER = re.compile(r"^    readonly (\w+)(\??): ", re.MULTILINE)
_COMPUTED = re.compile(
    r"// (\w+) - computed: true, optional: false, required: false\n\s+(?:get \w+\(\) \{\s+return |this\._\w+ = )(.+?);"
)
_SIMPLE = {"string": "string", "number": "number", "boolean": "bool"}
_GETTERS: dict[str, Any] = {
    "getStringAttribute": "string",
    "getNumberAttribute": "number",
    "getBooleanAttribute": "bool",
    "getListAttribute": ["list", "string"],
    "getNumberListAttribute": ["list", "number"],
    "getStringMapAttribute": ["map", "string"],
    "getNumberMapAttribute": ["map", "number"],
    "getBooleanMapAttribute": ["map", "bool"],
    "StringMap": ["map", "string"],
    "NumberMap": ["map", "number"],
    "BooleanMap": ["map", "bool"],
    "StringMapList": ["list", ["map", "string"]],
}


class Module:
    """One resource type's (or data source's, or the provider's) generated module."""

    def __init__(self, folder: Path) -> None:
        self._code = (folder / "index.js").read_text()
        # Large modules keep their blocks in files beside it.
        self._code += "".join(file.read_text() for file in sorted(folder.glob("*structs*.js")))
        declared = (folder / "index.d.ts").read_text()
        declared += "".join(file.read_text() for file in sorted(folder.glob("*structs*.d.ts")))
        self._functions = dict(_FUNCTION.findall(self._code))
        self._classes = {name: (base, text) for name, base, text in _CLASS.findall(self._code)}
        self._interfaces = {name: dict(_MEMBER.findall(text)) for name, text in _INTERFACE.findall(declared)}

    def schema(self) -> dict[str, Any]:
        """The block of the whole."""
        bases = ("cdktf.TerraformResource", "cdktf.TerraformDataSource", "cdktf.TerraformProvider")
        name, text = next((name, text) for name, (base, text) in self._classes.items() if base in bases)
        attributes = text[text.index("synthesizeHclAttributes") :]
        block = self._block(_ENTRY.findall(attributes), self._interfaces[f"{name}Config"])
        block["attributes"].update(self._computed(text))
        if "id" in block["attributes"]:
            block["attributes"]["id"] = ["string", "optional computed"]
        return block

    def _block(self, entries: list[tuple[str, ...]], optional: dict[str, str]) -> dict[str, Any]:
        attributes: dict[str, Any] = {}
        blocks: dict[str, Any] = {}
        for name, value, is_block, kind, storage in entries:
            member = re.search(r"(?:struct\.|this\._)(\w+)", value)
            if member is None:
                raise ValueError(f"{name}: {value}")
            required = optional[member[1]] == ""
            mapped = re.search(r"(\w+)ToHclTerraform", value)
            if is_block == "false" or mapped is None:
                attributes[name] = [_type(kind, storage), _flags(name, required)]
                continue
            struct = mapped[1]
            inner = self._struct(struct)
            if re.search(r"Hcl\(\w+, false\)", value):
                attributes[name] = [[kind, ["object", _object(inner)]], _flags(name, required)]
            elif name == "timeouts" and kind == "struct":
                blocks[name] = ["single", 0, 0, inner]
            else:
                many = "istMapper" in value
                nesting = "set" if kind == "set" else "list"
                blocks[name] = [nesting, int(required), 0 if many else 1, inner]
        return {"attributes": attributes, "blocks": blocks}

    def _struct(self, function: str) -> dict[str, Any]:
        name = function[0].upper() + function[1:]
        block = self._block(_ENTRY.findall(self._functions[function]), self._interfaces[name])
        reference = self._classes.get(f"{name}OutputReference")
        if reference is not None:
            block["attributes"].update(self._computed(reference[1]))
        return block

    def _computed(self, text: str) -> dict[str, Any]:
        return {name: [self._computed_type(value), "computed"] for name, value in _COMPUTED.findall(text)}

    def _computed_type(self, value: str) -> Any:
        found = re.search(r"(?:this\.|new cdktf\.)(\w+)\(", value)
        if found is not None and found[1] in _GETTERS:
            known = _GETTERS[found[1]]
            return ["set", known[1]] if "Fn.tolist" in value else known
        made = re.match(r"new (\w+)(List|Map|OutputReference)\(this, \"\w+\"(?:, (true|false))?\)", value)
        if made is None:
            return "dynamic"
        inner = self._computed(self._classes[f"{made[1]}OutputReference"][1])
        kind: list[Any] = ["object", {name: told[0] for name, told in inner.items()}]
        if made[2] == "OutputReference":
            return kind
        return ["map" if made[2] == "Map" else "set" if made[3] == "true" else "list", kind]


def _type(kind: str, storage: str) -> Any:
    if kind == "simple":
        return _SIMPLE.get(storage, "dynamic")
    element = next((_SIMPLE[word] for word in _SIMPLE if storage.startswith(word)), "dynamic")
    return [kind, ["list", element] if storage.endswith("ListList") else element]


def _flags(name: str, required: bool) -> str:
    return ("required" if required else "optional") + (" write_only" if name.endswith("_wo") else "")


def _object(block: dict[str, Any]) -> dict[str, Any]:
    found = {name: kind for name, (kind, _) in block["attributes"].items()}
    for name, (nesting, _, _, inner) in block["blocks"].items():
        found[name] = [nesting, ["object", _object(inner)]]
    return found


def used_types(provider: Provider) -> dict[str, list[str]]:
    """Resource types and data sources of the provider that the files of `terraform/` name."""
    found: dict[str, set[str]] = {"resource": set(), "data": set()}
    for file in sorted([*TERRAFORM.rglob("*.tf"), *TERRAFORM.rglob("*.tftest.hcl")]):
        for kind, name in _USED.findall(file.read_text()):
            if name.startswith(f"{provider.name}_"):
                found[kind].add(name)
    return {kind: sorted(names) for kind, names in found.items()}


def extract(provider: Provider, package: Path) -> dict[str, Any]:
    """What `schemas/` keeps of one provider."""
    library = package / "lib"
    used = used_types(provider)

    def folder(name: str, prefix: str) -> Path:
        return library / (prefix + name.removeprefix(f"{provider.name}_").replace("_", "-"))

    data = f"data-{provider.name}-"
    return {
        "source": f"npm {provider.package}@{provider.package_version}",
        "version": provider.version,
        "provider": Module(library / "provider").schema(),
        "resources": {name: Module(folder(name, "")).schema() for name in used["resource"]},
        "data_sources": {name: Module(folder(name, data)).schema() for name in used["data"]},
    }


def _fetch(provider: Provider, directory: Path) -> Path:
    target = directory / f"{provider.name}-{provider.package_version}"
    if not target.exists():
        wanted = f"{provider.package}@{provider.package_version}"
        done = subprocess.run(
            ["npm", "pack", "--silent", wanted], cwd=directory, check=True, capture_output=True, text=True
        )
        with tarfile.open(directory / done.stdout.strip().splitlines()[-1]) as archive:
            archive.extractall(target, filter="data")
    return target / "package"


def main() -> None:
    """Writes `schemas/`."""
    with tempfile.TemporaryDirectory() as temporary:
        directory = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(temporary)
        directory.mkdir(parents=True, exist_ok=True)
        for provider in PROVIDERS:
            found = extract(provider, _fetch(provider, directory))
            SCHEMAS.mkdir(exist_ok=True)
            text = json.dumps(found, separators=(",", ":"), sort_keys=True)
            # A line for each type, so that a difference can be read.
            text = re.sub(r'("(?:google|azurerm)_\w+":\{"attributes")', r"\n\1", text)
            (SCHEMAS / f"{provider.name}.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
