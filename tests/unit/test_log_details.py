"""`docker logs --details`: attributes by --log-opt, as dockerd 28 writes them."""

from __future__ import annotations

import pytest

from control_plane.backends.base import LogLine
from control_plane.errors import NotServed
from control_plane.model import Container
from control_plane.services.log_details import details
from control_plane.services.logs import formatted


def container(**options: str) -> Container:
    return Container(
        id="c" * 64,
        tenant="t",
        name="box",
        created_at="2026-01-01T00:00:00Z",
        image="x",
        image_id="x",
        config={"Env": ["B=2 &", "C"]},
        host_config={"LogConfig": {"Type": "json-file", "Config": options}},
        labels={"a": "1", "z": "9"},
        backend="fake",
        gateway="",
    )


def test_attributes_are_sorted_and_escaped() -> None:
    assert details(container(labels="z,a,none", env="B,C,D")) == "B=2+%26,C=,a=1,z=9 "
    assert details(container(tag="web")) == "tag=web "


def test_without_attributes_a_space_is_left() -> None:
    assert details(container()) == " "


@pytest.mark.parametrize("option", [{"env-regex": ".*"}, {"labels-regex": ".*"}, {"tag": "{{.Name}}"}])
def test_what_would_need_evaluation_is_refused(option: dict[str, str]) -> None:
    with pytest.raises(NotServed):
        details(container(**option))


def test_an_archived_line_has_them_behind_its_time() -> None:
    line = LogLine(1767225600_000000000, "stdout", b"hi\n", "id")
    shown = formatted(line, tty=True, timestamps=True, prefix="a=1 ")
    assert shown == b"2026-01-01T00:00:00.000000000Z a=1 hi\n"
