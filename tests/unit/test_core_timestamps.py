from __future__ import annotations

import pytest

from control_plane.errors import InvalidParameter
from control_plane.timestamps import human_duration, nanoseconds, rfc3339, unix_timestamp

MINUTE, HOUR, DAY = 60, 3600, 86400


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.9, "Less than a second"),
        (-5, "Less than a second"),
        (1.9, "1 second"),
        (59, "59 seconds"),
        (MINUTE, "About a minute"),
        (2 * MINUTE, "2 minutes"),
        (HOUR, "About an hour"),
        (1.4 * HOUR, "About an hour"),
        (1.5 * HOUR, "2 hours"),
        (47 * HOUR, "47 hours"),
        (48 * HOUR, "2 days"),
        (13 * DAY, "13 days"),
        (14 * DAY, "2 weeks"),
        (60 * DAY, "2 months"),
        (729 * DAY, "24 months"),
        (731 * DAY, "2 years"),
    ],
)
def test_durations_in_dockers_words(seconds: float, words: str) -> None:
    assert human_duration(seconds) == words


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1970-01-01T00:00:01Z", 1_000_000_000),
        ("1970-01-01T00:00:01.5Z", 1_500_000_000),
        ("1970-01-01T00:00:00.000000001Z", 1),
        ("1970-01-01T01:00:00+01:00", 0),
        ("1969-12-31T23:00:01-01:00", 1_000_000_000),
        ("0001-01-01T00:00:00Z", 0),
        ("", 0),
    ],
)
def test_times_are_read(text: str, expected: int) -> None:
    assert nanoseconds(text) == expected


@pytest.mark.parametrize("value", [1, 999_999_999, 1_700_000_000_123_456_000, 1_700_000_000_000_000_000])
def test_times_are_written_as_go_does_and_read_back(value: int) -> None:
    text = rfc3339(value)
    assert nanoseconds(text) == value
    assert not text.removesuffix("Z").endswith("0") or "." not in text


def test_unix_timestamps() -> None:
    assert unix_timestamp(None) is None
    assert unix_timestamp("") is None
    assert unix_timestamp("12") == 12_000_000_000
    assert unix_timestamp("12.5") == 12_500_000_000
    for wrong in ("x", "1.x", "1e5", "9" * 30):
        with pytest.raises(InvalidParameter):
            unix_timestamp(wrong)
