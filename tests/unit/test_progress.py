"""How a command says how far it is; the bar of a terminal is tested with the command ``get``."""

from __future__ import annotations

import re

import pytest

from cutout_api import progress


def lines_of(steps: int, *, sum_up: bool = False) -> list[str]:
    said: list[str] = []
    with progress.show_progress(steps, "files", said.append, sum_up=sum_up) as advance:
        for step in range(steps):
            advance(f"{step} alerts")
    return said


def test_nothing_is_said_of_what_ends_soon() -> None:
    assert lines_of(20) == []


def test_it_is_summed_up_where_that_is_wanted() -> None:
    (line,) = lines_of(20, sum_up=True)
    assert line.startswith("20 of 20 files, 19 alerts, ")


def test_a_line_says_what_is_done_and_what_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "SAY_SECONDS", 0)
    said = lines_of(3)
    assert len(said) == 3
    assert re.fullmatch(r"1 of 3 files, 0 alerts, \d+\.\d files/s, \d+ s left", said[0])
    assert re.fullmatch(r"3 of 3 files, 2 alerts, \d+\.\d files/s, 0 s left", said[2])
