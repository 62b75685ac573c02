"""The GitLab template, the GitHub action and the command lines in documents, against the connector's own options."""

from __future__ import annotations

import ast
import json
import re
import shlex
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from agent_gateway.connector.cli import _parser

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
GITLAB = DOCS / "ci" / "gitlab.yml"
ACTION = DOCS / "ci" / "action" / "action.yml"
JOB_KEYS = {"image", "id_tokens", "variables", "before_script", "services", "script", "extends"}
"""Of GitLab's keywords for a job, those that a template here may use."""
SHELL_ENDS = {">", "2>&1", "&", "|", "<"}


def load(text: str) -> Any:
    return yaml.safe_load(text)


def fenced(path: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", path.read_text(), re.MULTILINE | re.DOTALL)


def connects(text: str) -> Iterator[list[str]]:
    """The arguments of each `sockerless connect` in a shell script or a console session."""
    for line in text.replace("\\\n", " ").splitlines():
        found = re.search(r"(?:^|[\s/\"])sockerless\"? connect(\s.*)$", line)
        if found is not None:
            words = shlex.split(found[1])
            yield words[: next((n for n, word in enumerate(words) if word in SHELL_ENDS), len(words))]


def templates() -> dict[str, Any]:
    found = load(GITLAB.read_text())
    assert isinstance(found, dict)
    return found


def dockerfile(instruction: str) -> str:
    text = (ROOT / "deploy" / "connect.Dockerfile").read_text()
    found: str = re.findall(rf"^{instruction} (.*)$", text, re.MULTILINE)[-1]
    return found


def imported(path: Path) -> Iterator[Path]:
    """The files of the gateway that a file imports, inside functions too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "agent_gateway":
            named = ROOT.joinpath(*str(node.module).split("."))
            yield from (
                f for f in (named.with_suffix(".py"), *(named / f"{n.name}.py" for n in node.names)) if f.exists()
            )


def project() -> dict[str, Any]:
    found: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return found


def check_shell(script: str, shell: str) -> None:
    done = subprocess.run([shell, "-n"], input=script, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_gitlab_templates_are_jobs_that_gitlab_knows() -> None:
    assert set(templates()) == {".sockerless", ".sockerless-service"}
    for name, job in templates().items():
        assert set(job) <= JOB_KEYS, name
        assert isinstance(job["image"], str)
        assert job["id_tokens"] == {"SOCKERLESS_ID_TOKEN": {"aud": "$SOCKERLESS_URL"}}
        assert all(isinstance(value, str) for value in job["variables"].values())
        lines = job.get("before_script", [])
        # `a: b` in a plain line would be a mapping, which GitLab refuses.
        assert all(isinstance(line, str) for line in lines)
        check_shell("\n".join(lines), "sh")


def test_gitlab_job_starts_a_connector_that_its_variables_point_at() -> None:
    job = templates()[".sockerless"]
    (arguments,) = connects("\n".join(job["before_script"]))
    given = _parser().parse_args(arguments)
    assert (given.url, given.listen) == ("$SOCKERLESS_URL", ["$DOCKER_HOST"])
    path = job["variables"]["DOCKER_HOST"].removeprefix("unix://")
    waits = [line for line in job["before_script"] if "test -S" in line]
    assert waits
    assert all(path in line for line in waits)
    assert f"pip install --quiet {project()['name']}" in job["before_script"]
    assert project()["name"] in project()["scripts"]


def test_gitlab_service_is_the_image_of_the_connector() -> None:
    job = templates()[".sockerless-service"]
    (service,) = job["services"]
    assert set(service) == {"name", "alias", "command"}
    assert service["command"] == json.loads(dockerfile("CMD"))
    given = _parser().parse_args(service["command"])
    assert given.allow_network_clients
    assert given.url == ""
    assert "deploy/connect.Dockerfile" in GITLAB.read_text()
    assert job["variables"]["DOCKER_HOST"] == f"tcp://{service['alias']}:{dockerfile('EXPOSE')}"
    assert given.listen == [f"tcp://0.0.0.0:{dockerfile('EXPOSE')}"]


def test_the_image_of_the_connector_has_what_it_imports() -> None:
    text = (ROOT / "deploy" / "connect.Dockerfile").read_text()
    copied = [ROOT / directory for directory in re.findall(r"^COPY (agent_gateway\S*)/", text, re.MULTILINE)]
    wanted = [ROOT.joinpath(*json.loads(dockerfile("ENTRYPOINT"))[-1].split(".")).with_suffix(".py")]
    for path in wanted:
        assert path.parent in copied, path
        wanted += [further for further in imported(path) if further not in wanted]
    assert len(wanted) > 20


def test_gitlab_document_extends_what_is_there() -> None:
    for block in fenced(DOCS / "ci" / "gitlab.md", "yaml"):
        parsed = load(block)
        assert parsed.pop("include")[0]["file"] == GITLAB.name
        for job in parsed.values():
            assert set(job) <= JOB_KEYS
            assert job["extends"] in templates()


def test_action_is_composite_and_uses_the_inputs_it_has() -> None:
    action = load(ACTION.read_text())
    assert set(action) == {"name", "description", "inputs", "runs"}
    assert action["runs"]["using"] == "composite"
    assert all(set(about) <= {"description", "required", "default"} for about in action["inputs"].values())
    used = set(re.findall(r"\$\{\{ inputs\.(\w+) \}\}", ACTION.read_text()))
    assert used == set(action["inputs"])
    for step in action["runs"]["steps"]:
        assert step["shell"] == "bash"
        assert "${{" not in step["run"], "an input in the script itself would be code"
        check_shell(step["run"], "bash")
        for variable in step["env"]:
            assert f"${variable}" in step["run"]
    assert action["inputs"]["version"]["default"] == project()["name"]


def test_action_starts_a_connector_and_names_its_socket() -> None:
    (step,) = load(ACTION.read_text())["runs"]["steps"]
    (arguments,) = connects(step["run"])
    given = _parser().parse_args(arguments)
    assert (given.url, given.listen) == ("$SOCKERLESS_URL", ["unix://$socket"])
    assert 'echo "DOCKER_HOST=unix://$socket" >> "$GITHUB_ENV"' in step["run"]


def test_workflow_in_the_document_gives_the_action_what_it_wants() -> None:
    inputs = load(ACTION.read_text())["inputs"]
    (block,) = fenced(DOCS / "ci" / "github_actions.md", "yaml")
    (job,) = load(block)["jobs"].values()
    assert job["permissions"]["id-token"] == "write"
    (step,) = [step for step in job["steps"] if "sockerless" in step.get("uses", "")]
    assert set(step["with"]) <= set(inputs)
    assert {name for name, about in inputs.items() if about.get("required")} <= set(step["with"])


def test_document_of_the_connector_names_its_options_and_no_others() -> None:
    known = {option for action in _parser()._actions for option in action.option_strings} - {"-h", "--help"}
    text = (DOCS / "connect.md").read_text()
    table = "\n".join(line for line in text.splitlines() if line.startswith("| `"))
    assert set(re.findall(r"`(--[a-z-]+)", table)) == known
    assert set(re.findall(r"(?<![\w-])(--[a-z][a-z-]+)", text)) - known <= {"--rm"}


@pytest.mark.parametrize("path", sorted([*DOCS.rglob("*.md"), ROOT / "README.md"]), ids=lambda path: path.name)
def test_command_lines_in_documents_are_taken(path: Path) -> None:
    for block in fenced(path, r"(?:console|sh|shell|bash|yaml)"):
        for arguments in connects(block):
            assert _parser().parse_args(arguments).url


def test_a_line_with_an_unknown_option_is_found(capsys: pytest.CaptureFixture[str]) -> None:
    """That the tests above can fail."""
    (arguments,) = connects("$ sockerless connect https://docker.example.com --no-such-option > log 2>&1 &")
    with pytest.raises(SystemExit):
        _parser().parse_args(arguments)
    assert "--no-such-option" in capsys.readouterr().err
