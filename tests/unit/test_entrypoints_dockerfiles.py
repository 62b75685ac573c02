"""The Dockerfiles, as far as they can be judged without building them."""

from __future__ import annotations

import json
import re
import shlex
import tomllib
from dataclasses import dataclass, field
from fnmatch import fnmatch
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = [ROOT / "deploy" / f"{role}.Dockerfile" for role in ("control_plane", "gateway", "functions", "connect")]
OFFICIAL = ("python:", "mcr.microsoft.com/azure-functions/python:")


@dataclass
class Stage:
    base: str
    name: str
    steps: list[tuple[str, str]] = field(default_factory=list)

    def all(self, instruction: str) -> list[str]:
        return [rest for word, rest in self.steps if word == instruction]


def parse(file: Path) -> tuple[dict[str, str], list[Stage]]:
    """Arguments before the first stage, and the stages."""
    text = re.sub(r"\\\n\s*", " ", "\n".join(re.sub(r"^#.*$", "", line) for line in file.read_text().splitlines()))
    arguments: dict[str, str] = {}
    stages: list[Stage] = []
    for line in filter(None, (line.strip() for line in text.splitlines())):
        word, _, rest = line.partition(" ")
        assert word.isupper(), f"{file.name}: {line}"
        rest = rest.strip()
        if word == "FROM":
            base, _, name = rest.partition(" AS ")
            stages.append(Stage(base, name))
        elif not stages:
            assert word == "ARG"
            name, _, value = rest.partition("=")
            arguments[name] = value
        else:
            stages[-1].steps.append((word, rest))
    return arguments, stages


def last_of(stages: list[Stage], arguments: dict[str, str], name: str) -> list[Stage]:
    """The stages an image may be made of, for every value of its build arguments."""
    final = stages[-1]
    if final.base == "${CLOUD}":
        return [stage for stage in stages if stage.name in ("gcp", "azure")]
    return [final]


@pytest.fixture(params=FILES, ids=lambda file: file.name)
def file(request: pytest.FixtureRequest) -> Path:
    assert isinstance(request.param, Path)
    return request.param


def test_bases_are_official_and_versioned(file: Path) -> None:
    arguments, stages = parse(file)
    names = {stage.name for stage in stages}
    for stage in stages:
        base = re.sub(r"\$\{(\w+)\}", lambda found: arguments[found[1]], stage.base)
        if base in names:
            continue
        assert base.startswith(OFFICIAL), base
        assert re.search(r"3\.11", base), "the version that the tests run with"


def test_images_run_as_nobody_in_particular(file: Path) -> None:
    arguments, stages = parse(file)
    for stage in last_of(stages, arguments, file.name):
        users = stage.all("USER")
        assert users, stage
        assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", users[-1]), "by number: Kubernetes' runAsNonRoot wants it"
        after = [word for word, _ in stage.steps[stage.steps.index(("USER", users[-1])) :]]
        assert "RUN" not in after


def test_whoever_has_no_name_has_a_home(file: Path) -> None:
    """Without an entry in passwd `HOME` is `/`, where nothing can be written."""
    arguments, stages = parse(file)
    for stage in last_of(stages, arguments, file.name):
        assert any("HOME=/tmp" in env.split() for env in stage.all("ENV"))


def test_nothing_but_the_bases_is_pulled(file: Path) -> None:
    """A `syntax` line makes BuildKit pull a front end from Docker Hub; none of its features is used."""
    assert "syntax=" not in file.read_text()


def test_everything_is_compiled(file: Path) -> None:
    """Without .pyc files a cold start takes four to seven times as long."""
    arguments, stages = parse(file)
    for stage in stages:
        runs = stage.all("RUN")
        for number, run in enumerate(runs):
            if "constraint" in run:
                assert "--no-compile" not in run
                assert any("compileall" in after for after in (run[run.index("install") :], *runs[number + 1 :]))
    assert any("constraint" in run for stage in stages for run in stage.all("RUN"))
    # Python's own images hold the standard library without its compiled modules.
    for stage in last_of(stages, arguments, file.name):
        assert any("compileall" in run and "os.__file__" in run for run in stage.all("RUN")), stage
    # At run time nobody may write beside the sources.
    final = [env for stage in stages for env in stage.all("ENV")]
    assert any("PYTHONDONTWRITEBYTECODE=1" in env for env in final)


def test_what_is_copied_exists_and_is_sent(file: Path) -> None:
    _, stages = parse(file)
    sent = _sent()
    names = {stage.name for stage in stages}
    for stage in stages:
        assert not stage.all("ADD")
        for copy in stage.all("COPY"):
            words = shlex.split(copy)
            origin = next((word.partition("=")[2] for word in words if word.startswith("--from=")), "")
            sources = [word for word in words if not word.startswith("--")][:-1]
            if origin:
                assert origin in names
                for source in sources:
                    assert source != "/source", "a layer of sources stays in the image"
                    if source.startswith("/source/"):
                        assert (ROOT / source.removeprefix("/source/")).exists(), source
                continue
            for source in sources:
                assert any(ROOT.glob(source)), source
                assert source.split("/")[0] in sent, f"{source} is kept out by .dockerignore"


def _sent() -> set[str]:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    assert "*" in lines
    return {line[1:] for line in lines if line.startswith("!")}


def test_nothing_of_this_machine_is_sent() -> None:
    kept_out = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and line[0] not in "#!"]
    for path in (".git", ".venv", "tests", ".env", "terraform"):
        assert any(fnmatch(path, pattern) for pattern in kept_out)
        assert path not in _sent()


def test_extras_exist_and_versions_are_locked(file: Path) -> None:
    _, stages = parse(file)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    extras = set(project["project"]["optional-dependencies"])
    for run in (run for stage in stages for run in stage.all("RUN") if "constraint" in run):
        assert "requirements.lock" in run
        for found in re.findall(r"\.\[([\w,${}-]+)\]", run):
            for cloud in ("gcp", "azure"):
                assert set(found.replace("${CLOUD}", cloud).split(",")) <= extras


def test_the_gateway_has_no_clouds_sdk() -> None:
    _, stages = parse(ROOT / "deploy" / "gateway.Dockerfile")
    installs = [run for stage in stages for run in stage.all("RUN") if "constraint" in run]
    assert [re.findall(r"\.\[(.+?)\]", run) for run in installs] == [["telemetry"]]


def test_commands_are_exec_form_and_there(file: Path) -> None:
    arguments, stages = parse(file)
    for stage in last_of(stages, arguments, file.name):
        for command in (*stage.all("CMD"), *stage.all("ENTRYPOINT")):
            words = json.loads(command)
            if words[:2] == ["python", "-m"]:
                assert find_spec(words[2]) is not None


def test_no_secret_is_an_argument(file: Path) -> None:
    arguments, stages = parse(file)
    named = [*arguments, *(rest for stage in stages for word in ("ARG", "ENV") for rest in stage.all(word))]
    assert not [name for name in named if re.search(r"key|token|password|secret", name, re.IGNORECASE)]
