"""`make terraform-check`: format, init, validate and test of everything under `terraform/`, without network.

The providers are stubs with the real ones' schemas (see `extract` and `provider`), put into a filesystem mirror; the
tree is copied, so nothing is left in it. What it finds: unknown arguments, blocks and resource types, missing required
ones, wrong types, unknown attributes, broken references between modules, and what the tests assert. What it cannot:
values that a provider or a cloud would refuse.

Exit code 0 as well where there is no Terraform: the reason is printed.
"""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from tests.terraform.schema_types import PROVIDERS, SCHEMAS, TERRAFORM

LEAST = (1, 11)
ROOTS = ("modules/gcp", "modules/azure", "examples/gcp", "examples/azure")
_SECONDS = 120


@dataclass(frozen=True, slots=True)
class Done:
    """How a command went."""

    command: str
    code: int
    output: str


class Workplace:
    """A directory with a mirror of stub providers, in which copies of modules are checked."""

    def __init__(self, directory: Path, terraform: str) -> None:
        self._directory = directory
        self._terraform = terraform
        self._providers: list[subprocess.Popen[str]] = []
        self._attach: dict[str, str] = {}
        mirror = directory / "mirror"
        for provider in PROVIDERS:
            target = mirror / f"registry.terraform.io/hashicorp/{provider.name}/{provider.version}/{_platform()}"
            target.mkdir(parents=True)
            plugin = target / f"terraform-provider-{provider.name}_v{provider.version}_x5"
            stub, schema = Path(__file__).with_name("provider.py"), SCHEMAS / f"{provider.name}.json"
            plugin.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{stub}" "{schema}"\n')
            plugin.chmod(plugin.stat().st_mode | stat.S_IXUSR)
        configuration = directory / "terraform.rc"
        configuration.write_text(
            "disable_checkpoint = true\n"
            f'provider_installation {{\n  filesystem_mirror {{\n    path = "{mirror}"\n  }}\n}}\n'
        )
        kept = {name: value for name, value in os.environ.items() if not name.startswith("TF_")}
        self._environment = {
            **kept,
            "TF_CLI_CONFIG_FILE": str(configuration),
            "TF_IN_AUTOMATION": "1",
            "TF_INPUT": "0",
            "CHECKPOINT_DISABLE": "1",
        }

    def __enter__(self) -> Self:
        """Starts a provider of each kind that stays, for `test`, which would start dozens."""
        stub = str(Path(__file__).with_name("provider.py"))
        attach = {}
        for provider in PROVIDERS:
            command = [sys.executable, stub, "--stay", str(SCHEMAS / f"{provider.name}.json")]
            process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            self._providers.append(process)
            assert process.stdout is not None
            attach[f"registry.terraform.io/hashicorp/{provider.name}"] = {
                "Protocol": "grpc",
                "ProtocolVersion": 5,
                "Pid": process.pid,
                "Test": True,
                "Addr": {"Network": "tcp", "String": f"127.0.0.1:{int(process.stdout.readline())}"},
            }
        self._attach = {"TF_REATTACH_PROVIDERS": json.dumps(attach)}
        return self

    def __exit__(self, *_: object) -> None:
        """Ends them."""
        for process in self._providers:
            process.communicate()

    def run(self, where: Path, *arguments: str, data: str = "data") -> Done:
        """One Terraform command; `data` names the directory it keeps its own files in."""
        environment = {**self._environment, "TF_DATA_DIR": str(self._directory / data)}
        if arguments[0] == "test":
            environment |= self._attach
        command = [self._terraform, *arguments]
        done = subprocess.run(
            command, cwd=where, env=environment, capture_output=True, text=True, timeout=_SECONDS, check=False
        )
        return Done(" ".join(["terraform", *arguments]), done.returncode, done.stdout + done.stderr)

    def check(self, root: Path, *, test: bool = True) -> list[Done]:
        """init, validate and test of one root module, up to the first that fails."""
        name = Path(tempfile.mkdtemp(prefix="data-", dir=self._directory)).name
        steps: list[Sequence[str]] = [
            ("init", "-backend=false", "-input=false", "-no-color"),
            ("validate", "-no-color"),
        ]
        if test and (root / "tests").is_dir():
            steps.append(("test", "-no-color"))
        done: list[Done] = []
        for step in steps:
            done.append(self.run(root, *step, data=name))
            if done[-1].code:
                break
        return done


def why_not(environment: Mapping[str, str] | None = None) -> str:
    """Why Terraform cannot be run here; empty when it can."""
    found = shutil.which("terraform", path=(environment or os.environ).get("PATH"))
    if found is None:
        return "there is no terraform on this machine"
    answer = subprocess.run(
        [found, "version", "-json"], capture_output=True, text=True, check=False, env={**os.environ, **_QUIET}
    )
    try:
        version = str(json.loads(answer.stdout)["terraform_version"])
    except (ValueError, KeyError):
        return "terraform does not tell its version"
    numbers = tuple(int(number) for number in re.findall(r"\d+", version)[:2])
    if numbers < LEAST:
        return f"terraform is {version}; the modules need {LEAST[0]}.{LEAST[1]} (write-only arguments)"
    return ""


_QUIET = {"TF_CLI_CONFIG_FILE": os.devnull, "CHECKPOINT_DISABLE": "1"}


def workplace(directory: Path) -> Workplace:
    """A new one, with the Terraform of this machine."""
    found = shutil.which("terraform")
    if found is None:
        raise FileNotFoundError("terraform")
    return Workplace(directory, found)


def _platform() -> str:
    machine = {"x86_64": "amd64", "aarch64": "arm64", "arm64": "arm64"}.get(platform.machine(), platform.machine())
    return f"{platform.system().lower()}_{machine}"


def main() -> int:
    """Prints what fails. Exit code 1 when something does."""
    reason = why_not()
    if reason:
        print(f"terraform-check is left out: {reason}")
        return 0
    with tempfile.TemporaryDirectory(prefix="sockerless-terraform-") as temporary, ExitStack() as processes:
        place = processes.enter_context(workplace(Path(temporary)))
        copy = Path(temporary) / "terraform"
        shutil.copytree(TERRAFORM, copy, ignore=shutil.ignore_patterns(".terraform*", "*.tfstate*"))
        failed = [done for done in [place.run(copy, "fmt", "-check", "-diff", "-recursive")] if done.code]
        with ThreadPoolExecutor(os.cpu_count() or 1) as at_once:
            checked = list(at_once.map(lambda root: place.check(copy / root), ROOTS))
        for root, results in zip(ROOTS, checked, strict=True):
            print(f"terraform/{root}: {'failed' if results[-1].code else 'ok'}")
            if results[-1].code:
                failed.append(results[-1])
        for done in failed:
            print(f"\n{done.command}:\n{done.output.replace(str(copy), 'terraform')}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
