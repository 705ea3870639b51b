"""Judged labels on disk: by version, of the newest few, and a damaged file costs no answer."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from radloop.evaluation.drift import Judged
from radloop.strategies.cache_file import KEPT
from radloop.strategies.judged import JudgedLabels
from radloop.studies.home import Home


def judged(row: int, value: float | None = 0.5) -> Judged:
    return Judged(f"s{row}", f"p{row}", row, bool(row % 2), value)


def test_what_is_kept_is_told_by_version_and_the_oldest_versions_go(tmp_path: Path) -> None:
    labels = JudgedLabels(Home(tmp_path / "a home, with #"))
    assert labels.of("r", 1) == []
    for version in range(1, KEPT + 3):
        labels.keep("r", version, judged(7))
        labels.keep("r", version, judged(3, None))
    assert labels.of("r", KEPT + 2) == [judged(3, None), judged(7)]
    assert labels.of("r", 2) == labels.of("other", KEPT + 2) == []


def test_reading_makes_no_file(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    assert JudgedLabels(home).of("r", 1) == []
    assert not (home.cache / "scores").exists()


@pytest.mark.parametrize("cut", [0, 30, 2000])
def test_a_damaged_file_is_said_and_stays(cut: int, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    home = Home(tmp_path / "home")
    labels = JudgedLabels(home)
    labels.keep("r", 1, judged(1))
    file = home.cache / "scores" / "judged.db"
    damaged = file.read_bytes()[:cut] + b"x" * 5000
    file.write_bytes(damaged)
    with caplog.at_level(logging.WARNING):
        assert labels.of("r", 1) == []
    assert "judged.db cannot be read" in caplog.text
    assert file.read_bytes() == damaged
