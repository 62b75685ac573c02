"""What settings that do not allow a start are told by."""

from __future__ import annotations


class SettingsError(Exception):
    """The settings do not allow a start; the message is one line and names the variable."""
