"""Which manifest of a list is taken for a platform."""

from __future__ import annotations

from typing import Any

import pytest

from control_plane.errors import InvalidParameter
from control_plane.registry.platform import Platform, choose, normalize, parse, runs_on


def _entries(*platforms: str) -> list[dict[str, Any]]:
    found = []
    for text in platforms:
        os, architecture, variant = (*text.split("/"), "", "")[:3]
        found.append({"digest": text, "platform": {"os": os, "architecture": architecture, "variant": variant}})
    return found


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("linux/amd64", "linux/amd64"),
        ("linux/x86_64", "linux/amd64"),
        ("amd64", "linux/amd64"),
        ("linux", "linux/amd64"),
        ("linux/arm64/v8", "linux/arm64"),
        ("linux/aarch64", "linux/arm64"),
        ("linux/arm", "linux/arm/v7"),
        ("linux/armel", "linux/arm/v6"),
        ("windows/amd64", "windows/amd64"),
    ],
)
def test_platforms_have_one_spelling(text: str, expected: str) -> None:
    assert str(parse(text)) == expected


@pytest.mark.parametrize("text", ["", "a/b/c/d", "nosuch", "linux/am d64", "linux//v7"])
def test_a_malformed_platform_is_refused(text: str) -> None:
    with pytest.raises(InvalidParameter):
        parse(text)


def test_the_exact_platform_is_taken() -> None:
    entries = _entries("linux/arm64/v8", "linux/amd64", "windows/amd64")
    assert [entry["digest"] for entry in choose(entries, Platform())] == ["linux/amd64"]


def test_an_older_variant_serves_and_the_newest_that_fits_comes_first() -> None:
    entries = _entries("linux/arm/v5", "linux/arm/v6", "linux/arm/v8", "linux/amd64")
    assert [entry["digest"] for entry in choose(entries, parse("linux/arm/v7"))] == ["linux/arm/v6", "linux/arm/v5"]


def test_thirty_two_bits_run_on_sixty_four() -> None:
    assert [entry["digest"] for entry in choose(_entries("linux/386"), Platform())] == ["linux/386"]


def test_attestations_are_never_taken() -> None:
    assert choose(_entries("unknown/unknown"), Platform()) == []


def test_an_image_without_variant_fits_any_variant() -> None:
    assert runs_on(normalize("linux", "arm64"), parse("linux/arm64/v8"))
    assert not runs_on(normalize("linux", "arm64"), Platform())
