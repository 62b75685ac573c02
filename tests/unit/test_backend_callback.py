"""Where an agent is told to dial."""

from __future__ import annotations

import pytest

from control_plane.backends.callback import callback_urls
from control_plane.model import Container


def container(gateway: str) -> Container:
    return Container(
        id="c",
        tenant="t",
        name="n",
        created_at="",
        image="i",
        image_id="sha256:1",
        config={},
        host_config={},
        backend="fake",
        gateway=gateway,
    )


@pytest.mark.parametrize(
    ("setting", "own", "others", "wanted"),
    [
        ("", "https://a", [], "https://a"),
        ("", "https://a", ["https://b", "https://a", "https://c"], "https://a https://b https://c"),
        ("", "https://a", ["http://b", "https://c"], "https://a https://c"),
        ("", "http://a", ["http://b", "https://c"], "http://a http://b https://c"),
        ("https://x", "https://a", ["https://b"], "https://x"),
        ("https://x https://y", "https://a", ["https://b"], "https://x https://y"),
        ("", "https://a", ["https://b c", "https://b,c", "https://b\n", "ftp://b", ""], "https://a"),
        ("", "", [], ""),
    ],
)
def test_its_own_gateway_comes_first_and_none_is_less_protected(
    setting: str, own: str, others: list[str], wanted: str
) -> None:
    assert callback_urls(setting, container(own), others) == wanted
