"""The bench of the hosted parts on a machine that lacks a server."""

from __future__ import annotations

import shutil

import pytest

from tests.bench import hosted


def test_without_nginx_a_figure_is_left_out_and_the_others_are_taken(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name, **_: None if name == "nginx" else f"/bin/{name}")
    name = "100 runs at once, hosted"
    monkeypatch.setattr(hosted, "FIGURES", {name: hosted.FIGURES[name], "another": lambda: "1 s"})
    seen = hosted.take([name, "another"])
    assert seen == {name: "left out: nginx is not installed", "another": "1 s"}
    assert "left out: nginx" in capsys.readouterr().out
