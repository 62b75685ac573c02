"""Docker's image references: the grammar, the familiar forms and moby's error texts.

Fact source: the grammar documented by the `distribution/reference` project and its normalisation rules
(`busybox` is `docker.io/library/busybox`, `index.docker.io` is `docker.io`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from control_plane.errors import InvalidParameter

DEFAULT_DOMAIN = "docker.io"
DEFAULT_TAG = "latest"
_LEGACY_DOMAIN = "index.docker.io"
_OFFICIAL = "library/"
_NAME_LIMIT = 255
_TEXT_LIMIT = 2048
"""Longer than any valid reference: keeps hostile input away from the expressions."""

_ALPHANUMERIC = r"[a-z0-9]+"
_PATH_COMPONENT = rf"{_ALPHANUMERIC}(?:(?:[._]|__|-+){_ALPHANUMERIC})*"
_DOMAIN_COMPONENT = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_HOST = rf"(?:{_DOMAIN_COMPONENT}(?:\.{_DOMAIN_COMPONENT})*|\[[a-fA-F0-9:]+\])"
DOMAIN = rf"{_HOST}(?::[0-9]+)?"
_PATH = rf"{_PATH_COMPONENT}(?:/{_PATH_COMPONENT})*"
_TAG = r"\w[\w.-]{0,127}"
_DIGEST = r"[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,}"

_reference = re.compile(rf"(?:({DOMAIN})/)?({_PATH})(?::({_TAG}))?(?:@({_DIGEST}))?", re.ASCII)
_tag = re.compile(_TAG, re.ASCII)
_digest = re.compile(_DIGEST, re.ASCII)
_identifier = re.compile(r"[a-f0-9]{64}")
_HEX_LENGTHS = {"sha256": 64, "sha384": 96, "sha512": 128}
_lower_hex = re.compile(r"[a-f0-9]+")


@dataclass(frozen=True, slots=True)
class Reference:
    """A normalised reference: `domain/path[:tag][@digest]`."""

    domain: str
    path: str
    tag: str | None = None
    digest: str | None = None

    @property
    def name(self) -> str:
        """`docker.io/library/busybox`."""
        return f"{self.domain}/{self.path}"

    @property
    def familiar_name(self) -> str:
        """The name as users see it: `busybox`, `ghcr.io/a/b`."""
        if self.domain != DEFAULT_DOMAIN:
            return self.name
        rest = self.path.removeprefix(_OFFICIAL)
        return rest if "/" not in rest else self.path

    @property
    def familiar(self) -> str:
        """The familiar name with tag and digest as given."""
        return self._suffixed(self.familiar_name)

    @property
    def name_only(self) -> bool:
        """Whether there is neither tag nor digest."""
        return self.tag is None and self.digest is None

    def __str__(self) -> str:
        return self._suffixed(self.name)

    def _suffixed(self, name: str) -> str:
        tag = "" if self.tag is None else f":{self.tag}"
        digest = "" if self.digest is None else f"@{self.digest}"
        return f"{name}{tag}{digest}"

    def with_tag(self, tag: str) -> Reference:
        """Raises InvalidParameter `invalid tag format`."""
        if not _tag.fullmatch(tag):
            raise InvalidParameter("invalid tag format")
        return replace(self, tag=tag)

    def with_digest(self, digest: str) -> Reference:
        """Raises InvalidParameter `invalid digest format`."""
        if not _digest.fullmatch(digest):
            raise InvalidParameter("invalid digest format")
        return replace(self, digest=digest)

    def trimmed(self) -> Reference:
        """The name alone."""
        return Reference(self.domain, self.path)

    def tagged(self) -> Reference:
        """With the tag `latest` when there is neither tag nor digest."""
        return replace(self, tag=DEFAULT_TAG) if self.name_only else self


def check_digest(text: str) -> str:
    """The digest when it is one of a known algorithm; raises InvalidParameter with go-digest's texts."""
    algorithm, separator, encoded = text.partition(":")
    if not separator or not algorithm or not encoded:
        raise InvalidParameter("invalid checksum digest format")
    length = _HEX_LENGTHS.get(algorithm)
    if length is None:
        known = _digest.fullmatch(text) is not None
        raise InvalidParameter("unsupported digest algorithm" if known else "invalid checksum digest format")
    if len(encoded) != length:
        raise InvalidParameter("invalid checksum digest length")
    if not _lower_hex.fullmatch(encoded):
        raise InvalidParameter("invalid checksum digest format")
    return text


def is_digest(text: str) -> bool:
    """Whether the text is a whole digest of a known algorithm."""
    try:
        check_digest(text)
    except InvalidParameter:
        return False
    return True


def parse_named(text: str) -> Reference:
    """A user's image name (`busybox`, `ghcr.io/a/b:1@sha256:…`), normalised.

    Raises InvalidParameter with Docker's texts, `invalid reference format` above all.
    """
    if len(text) > _TEXT_LIMIT:
        raise InvalidParameter("invalid reference format")
    if _identifier.fullmatch(text):
        raise InvalidParameter(f"invalid repository name ({text}), cannot specify 64-byte hexadecimal strings")
    domain, remainder = _split_domain(text)
    remote = remainder.partition(":")[0]
    if remote.lower() != remote:
        raise InvalidParameter(f"invalid reference format: repository name ({remote}) must be lowercase")
    full = f"{domain}/{remainder}"
    match = _reference.fullmatch(full)
    if match is None:
        if full.lower() != full and _reference.fullmatch(full.lower()):
            raise InvalidParameter("repository name must be lowercase")
        raise InvalidParameter("invalid reference format")
    found, path, tag, digest = match.groups()
    if found is None:
        # What stood for the domain is none (`a_b.c/d`): there is no registry to ask.
        raise InvalidParameter("invalid reference format")
    if len(path) > _NAME_LIMIT:
        raise InvalidParameter(f"repository name must not be more than {_NAME_LIMIT} characters")
    if digest is not None:
        check_digest(digest)
    return Reference(found, path, tag, digest)


def parse_any(text: str) -> Reference | str:
    """A reference, or a whole image id as `sha256:…` when the text is one (bare hex or with its algorithm)."""
    if _identifier.fullmatch(text):
        return f"sha256:{text}"
    if is_digest(text):
        return text
    return parse_named(text)


def _split_domain(text: str) -> tuple[str, str]:
    first, separator, rest = text.partition("/")
    if not separator:
        return DEFAULT_DOMAIN, _OFFICIAL + text
    if first == _LEGACY_DOMAIN:
        domain, remainder = DEFAULT_DOMAIN, rest
    elif first == "localhost" or "." in first or ":" in first or first.lower() != first:
        domain, remainder = first, rest
    else:
        domain, remainder = DEFAULT_DOMAIN, text
    if domain == DEFAULT_DOMAIN and "/" not in remainder:
        remainder = _OFFICIAL + remainder
    return domain, remainder
