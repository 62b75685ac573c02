"""The pages of the backends say what the code does."""

from __future__ import annotations

import pytest

from control_plane.backends import docs


@pytest.mark.parametrize("document", docs.documents(), ids=lambda document: document.file)
def test_the_tables_are_fresh(document: docs.Document) -> None:
    text = (docs.FOLDER / document.file).read_text()
    assert document.render(text) == text


@pytest.mark.parametrize("document", docs.documents(), ids=lambda document: document.file)
def test_every_setting_is_described(document: docs.Document) -> None:
    for name, field in document.settings.model_fields.items():
        assert field.description, name
        assert str(field.validation_alias).startswith("SOCKERLESS_"), name


def test_a_table_that_is_missing_is_told() -> None:
    with pytest.raises(ValueError, match="must have the table"):
        docs.documents()[0].render("no tables")
