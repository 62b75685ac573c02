"""Docker's reference grammar, by example."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.errors import InvalidParameter
from control_plane.registry.reference import Reference, check_digest, parse_any, parse_named

_HEX = "7cc4b5aefd1d0cadf8d97d4350462ba51c694ebca145b08d7d41b41acc8db5aa"
_DIGEST = f"sha256:{_HEX}"


@pytest.mark.parametrize(
    ("text", "full", "familiar"),
    [
        ("busybox", "docker.io/library/busybox", "busybox"),
        ("busybox:1.36", "docker.io/library/busybox:1.36", "busybox:1.36"),
        ("docker.io/busybox", "docker.io/library/busybox", "busybox"),
        ("index.docker.io/library/busybox", "docker.io/library/busybox", "busybox"),
        ("library/busybox", "docker.io/library/busybox", "busybox"),
        ("library/a/b", "docker.io/library/a/b", "library/a/b"),
        ("a/b", "docker.io/a/b", "a/b"),
        ("ghcr.io/a/b:1", "ghcr.io/a/b:1", "ghcr.io/a/b:1"),
        ("localhost/a", "localhost/a", "localhost/a"),
        ("localhost:5000/a:b", "localhost:5000/a:b", "localhost:5000/a:b"),
        ("[::1]:5000/a", "[::1]:5000/a", "[::1]:5000/a"),
        ("Upper/a", "Upper/a", "Upper/a"),
        (f"a@{_DIGEST}", f"docker.io/library/a@{_DIGEST}", f"a@{_DIGEST}"),
        (f"a:1@{_DIGEST}", f"docker.io/library/a:1@{_DIGEST}", f"a:1@{_DIGEST}"),
        ("a__b/c---d.e", "docker.io/a__b/c---d.e", "a__b/c---d.e"),
    ],
)
def test_a_name_is_normalised_and_shown_in_its_familiar_form(text: str, full: str, familiar: str) -> None:
    reference = parse_named(text)
    assert str(reference) == full
    assert reference.familiar == familiar


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "invalid reference format"),
        (":1", "invalid reference format"),
        ("a b", "invalid reference format"),
        ("a:", "invalid reference format"),
        ("a:" + "t" * 129, "invalid reference format"),
        ("a___b", "invalid reference format"),
        ("-a", "invalid reference format"),
        ("a\n", "invalid reference format"),
        ("x" * 5000, "invalid reference format"),
        ("https://x/y", "invalid reference format"),
        ("Foo", "invalid reference format: repository name (library/Foo) must be lowercase"),
        ("a/Foo", "invalid reference format: repository name (a/Foo) must be lowercase"),
        (_HEX, f"invalid repository name ({_HEX}), cannot specify 64-byte hexadecimal strings"),
        ("a" * 256, "repository name must not be more than 255 characters"),
        ("a@sha256:" + "a" * 63, "invalid checksum digest length"),
        ("a@md5:" + "a" * 32, "unsupported digest algorithm"),
    ],
)
def test_what_is_no_reference_is_refused_in_dockers_words(text: str, message: str) -> None:
    with pytest.raises(InvalidParameter) as caught:
        parse_named(text)
    assert caught.value.message == message


def test_a_whole_id_is_no_name() -> None:
    assert parse_any(_HEX) == _DIGEST
    assert parse_any(_DIGEST) == _DIGEST
    assert parse_any("busybox") == Reference("docker.io", "library/busybox")


def test_the_default_tag_is_given_only_to_a_bare_name() -> None:
    assert parse_named("a").tagged().tag == "latest"
    assert parse_named(f"a@{_DIGEST}").tagged().tag is None


@pytest.mark.parametrize("tag", ["", "a b", ".a", "a/b", "t" * 129])
def test_a_malformed_tag_is_refused(tag: str) -> None:
    with pytest.raises(InvalidParameter, match="invalid tag format"):
        parse_named("a").with_tag(tag)


def test_a_digest_in_capitals_is_refused() -> None:
    with pytest.raises(InvalidParameter, match="invalid checksum digest format"):
        check_digest("sha256:" + "A" * 64)


@given(st.text(max_size=80))
def test_any_text_is_parsed_or_refused(text: str) -> None:
    try:
        reference = parse_named(text)
    except InvalidParameter:
        return
    assert parse_named(reference.familiar) == reference
    assert parse_named(str(reference)) == reference
