"""What a hosted store's opaque `Document.revision` holds, and how a write whose answer was lost is recognised.

Every write puts a random token at the head of the document's last few tokens. When the answer to a write is lost and
its repetition finds the document changed, the token tells whether it was this very write that changed it, even when
others have written since.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass

from control_plane.store.base import Document

_TOKENS = 8
"""Tokens kept per document: so many writes of others may follow a lost answer."""


@dataclass(frozen=True, slots=True)
class Revision:
    """One state of a document: `order` grows with every write of it, `version` is what the cloud compares."""

    order: int
    version: str
    tokens: str
    """Newest first, with spaces between."""

    def __str__(self) -> str:
        return f"{self.order:x}|{self.version}|{self.tokens}"

    def written_by(self, token: str) -> bool:
        """Whether the write with this token is among the last ones."""
        return token in self.tokens.split()

    def tokens_after(self, token: str) -> str:
        """The tokens of the state that the next write makes."""
        return " ".join([token, *self.tokens.split()[: _TOKENS - 1]])


def revision_of(document: Document) -> Revision:
    """The parts of a document's revision. Raises ValueError for a revision of another kind of store."""
    order, version, tokens = document.revision.split("|")
    return Revision(int(order, 16), version, tokens)


def new_token() -> str:
    """Says which write it was: 48 random bits, compared with eight others."""
    return secrets.token_hex(6)
