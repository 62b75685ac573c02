"""The stub providers refuse what the real ones would."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.terraform.check import Workplace, why_not, workplace
from tests.terraform.extract import used_types
from tests.terraform.provider import schema_response
from tests.terraform.schema_types import PROVIDERS, SCHEMAS, Provider

_BUCKET = """
terraform {
  required_providers {
    google = { source = "hashicorp/google" }
  }
}
resource "google_storage_bucket" "bucket" {
  name     = "bucket"
  location = "EU"
}
resource "google_secret_manager_secret_version" "version" {
  secret         = "secret"
  secret_data_wo = "write-only"
}
"""

pytestmark = pytest.mark.timeout(60)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workplace]:
    reason = why_not()
    if reason:
        pytest.skip(reason)
    with workplace(tmp_path_factory.mktemp("workplace")) as found:
        yield found


def _validated(place: Workplace, directory: Path, text: str) -> str:
    (directory / "main.tf").write_text(text)
    done = place.check(directory, test=False)
    assert done[0].code == 0, done[0].output
    return "" if done[-1].code == 0 else done[-1].output


def test_what_is_right_is_accepted(place: Workplace, tmp_path: Path) -> None:
    assert _validated(place, tmp_path, _BUCKET) == ""


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ('location = "EU"', 'location = "EU"\n  place = "EU"', "Unsupported argument"),
        ('location = "EU"', "", "Missing required argument"),
        ('location = "EU"', 'location = "EU"\n  versions {}', "Unsupported block type"),
        ('location = "EU"', 'location = "EU"\n  force_destroy = "perhaps"', "Incorrect attribute value type"),
        ('location = "EU"', 'location = "EU"\n  retention_policy {}', "Missing required argument"),
        ('location = "EU"', 'location = "EU"\n  versioning {}\n  versioning {}', "Too many versioning blocks"),
        ('"google_storage_bucket"', '"google_storage_bucker"', "Invalid resource type"),
        (
            '"write-only"',
            '"write-only"\n}\noutput "o" {\n  value = google_storage_bucket.bucket.nothing',
            "Unsupported",
        ),
    ],
)
def test_what_is_wrong_is_refused(place: Workplace, tmp_path: Path, before: str, after: str, said: str) -> None:
    assert said in _validated(place, tmp_path, _BUCKET.replace(before, after))


def test_a_failed_assertion_fails_the_check(place: Workplace, tmp_path: Path) -> None:
    (tmp_path / "main.tf").write_text(_BUCKET)
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "one.tftest.hcl").write_text(
        'mock_provider "google" {}\n'
        'run "one" {\n  assert {\n    condition     = google_storage_bucket.bucket.name == "another"\n'
        '    error_message = "It is another."\n  }\n}\n'
    )
    done = place.check(tmp_path)
    assert done[-1].code == 1
    assert "It is another." in done[-1].output


@pytest.mark.parametrize("provider", PROVIDERS, ids=lambda provider: provider.name)
def test_every_type_in_use_has_a_schema(provider: Provider) -> None:
    import json

    schemas = json.loads((SCHEMAS / f"{provider.name}.json").read_text())
    used = used_types(provider)
    assert used["resource"] == sorted(schemas["resources"])
    assert used["data"] == sorted(schemas["data_sources"])
    assert schemas["version"] == provider.version
    assert len(schema_response(schemas)) > 10_000
