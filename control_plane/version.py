"""The versions we tell Docker clients."""

from __future__ import annotations

VERSION = "0.1.0"
"""Of this distribution; a test holds it equal to pyproject.toml (reading package metadata would slow the start)."""

API_VERSION = "1.50"
"""The newest Docker Engine API we speak."""

MIN_API_VERSION = "1.24"
"""The oldest, moby 28's own lower bound."""
