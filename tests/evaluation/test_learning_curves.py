"""Learning curves whose area, crossing and lead are known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from radloop.evaluation.class_answers import check_answers
from radloop.evaluation.learning_curves import Bootstrap, Measured, Point, summarise
from radloop.evaluation.learning_plots import learning_curves

PATIENTS = tuple(f"p{n}" for n in range(30))


def _measured(mean: float, seed: int, spread: float = 0.05, path: float | None = None) -> Measured:
    # patients differ, the same way in every model
    values = mean + spread * np.random.default_rng(99).normal(size=30) + 0.002 * seed
    return Measured(PATIENTS, values - values.mean() + mean, None, None if path is None else np.full(30, path))


def _curve(figures: list[float], seed: int) -> list[Point]:
    return [Point(5 * n, 0.1 * n, _measured(f, seed, path=100 / n)) for n, f in enumerate(figures, start=1)]


def _told(**figures: list[float]) -> dict:
    curves = {name: {seed: _curve(of, seed) for seed in range(3)} for name, of in figures.items()}
    return summarise(curves, {seed: _measured(0.8, seed) for seed in range(3)}, ("random",), resamples=200)


def test_area_is_the_mean_height_and_the_lead_is_paired() -> None:
    told = _told(random=[0.5, 0.6, 0.7], entropy=[0.5, 0.7, 0.8])["strategies"]
    assert told["random"]["area"]["value"] == pytest.approx(0.6)
    assert told["entropy"]["area"]["value"] == pytest.approx(0.675)
    lead = told["entropy"]["against"]["random"]["area"]
    assert lead["value"] == pytest.approx(0.075)
    # patients differ by far more than this lead, but the same ones measure both
    assert lead["high"] - lead["low"] < 1e-6
    assert told["random"]["area"]["high"] - told["random"]["area"]["low"] > 0.01
    assert told["random"]["against"] == {}


def test_labels_are_those_of_the_first_round_that_reaches_the_share() -> None:
    told = _told(random=[0.5, 0.77, 0.791], slow=[0.1, 0.2, 0.3])["strategies"]
    assert told["random"]["labels_to_95"]["value"] == 10  # .76
    assert told["random"]["labels_to_98"]["value"] == 15  # .784
    assert told["random"]["labels_within_a_point"]["value"] == 15
    # what never comes there counts as coming there one round later
    assert told["slow"]["against"]["random"]["labels_within_a_point"]["value"] == 5
    assert told["slow"]["labels_to_95"] == {"value": None, "low": None, "high": None}


def test_a_share_of_nothing_is_not_reached() -> None:
    flat = {seed: [Point(n, 0.1 * n, _measured(0.0, 0, spread=0.0)) for n in (1, 2)] for seed in range(3)}
    nothing = {seed: _measured(0.0, 0, spread=0.0) for seed in range(3)}
    told = summarise({"random": flat}, nothing, ("random",), resamples=50)["strategies"]["random"]
    assert told["labels_to_95"]["value"] is None
    assert told["labels_to_98"]["value"] is None


def test_foreground_efficiency_finds_the_rate_that_made_the_curve() -> None:
    rate = 5.0
    figures = [0.8 - 0.4 * math.exp(-rate * 0.1 * n) for n in range(4)]
    found = _told(random=figures)["strategies"]["random"]["foreground_efficiency"]
    assert found["value"] == pytest.approx(rate, rel=0.06)
    assert _told(random=[0.9, 0.9])["strategies"]["random"]["foreground_efficiency"]["value"] is None


def test_an_outline_is_told_a_round() -> None:
    rounds = _told(random=[0.5, 0.6])["strategies"]["random"]["rounds"]
    assert [entry["path_mm"]["value"] for entry in rounds] == [100, 50]
    assert [entry["labels"] for entry in rounds] == [5, 10]


def test_an_interval_grows_where_seeds_disagree() -> None:
    agree, apart = Bootstrap(PATIENTS, range(4)), Bootstrap(PATIENTS, range(4))
    same = agree.over_seeds({seed: agree.figure(_measured(0.5, 0)) for seed in range(4)})
    wide = apart.over_seeds({seed: apart.figure(_measured(0.5 + 0.1 * (seed % 2), 0)) for seed in range(4)})
    width = [boot.interval(of)["high"] - boot.interval(of)["low"] for boot, of in ((agree, same), (apart, wide))]
    assert width[1] > 2 * width[0]


def test_the_doubt_between_few_seeds_is_not_too_small() -> None:
    # of three numbers the bootstrap's deviation is the standard error, s / sqrt(3)
    values = np.array([0.0, 1.0, 2.0])
    boot = Bootstrap(["a"], range(3), resamples=20_000)
    draws = boot.over_seeds({seed: np.full(20_001, values[seed]) for seed in range(3)})
    assert draws[0] == 1
    assert draws[1:].std() == pytest.approx(values.std(ddof=1) / math.sqrt(3), rel=0.02)


def test_a_patient_counts_once_whatever_the_number_of_studies() -> None:
    measured = Measured(("a", "a", "a", "b", "c"), np.array([1.0, 1.0, 1.0, 0.0, math.nan]))
    assert Bootstrap(measured.patients, [0]).figure(measured)[0] == pytest.approx(0.5)


def test_classes_are_judged_by_the_area_under_the_roc_curve() -> None:
    p = np.array([0.9, 0.8, 0.4, 0.3, 0.6, 0.1])
    y = np.array([1, 1, 1, 0, 0, 0])
    answers = check_answers(
        np.stack([p, 1 - p], axis=1), np.stack([y, 1 - y], axis=1), list("abcdef"), kind="classification"
    )
    boot = Bootstrap("abcdef", [0, 1])
    draws = boot.figure(Measured(tuple("abcdef"), np.full(6, math.nan), answers))
    assert draws[0] == pytest.approx(8 / 9)
    assert boot.interval(draws)["low"] < 8 / 9


def test_one_patient_and_one_seed_have_no_interval() -> None:
    boot = Bootstrap(["a"], [0])
    assert boot.interval(boot.figure(Measured(("a",), np.array([0.5])))) == {"value": 0.5, "low": None, "high": None}


def test_the_picture_is_drawn_with_and_without_outlines() -> None:
    told = _told(random=[0.5, 0.6], _entropy=[0.5, 0.7])
    wide = learning_curves(told, figure="Dice")
    for of in told["strategies"].values():
        for entry in of["rounds"]:
            del entry["path_mm"]
    narrow = learning_curves({**told, "full": None}, figure="ROC AUC $")
    assert wide.startswith(b"\x89PNG")
    assert narrow.startswith(b"\x89PNG")
    width = [int.from_bytes(png[16:20], "big") for png in (wide, narrow)]
    assert width[0] > width[1]
