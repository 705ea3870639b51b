"""Intervals of probabilities: as wide as validation patients are few, and where the truth was."""

from __future__ import annotations

import json

import numpy as np
import pytest

from radloop.evaluation.probability_interval import Band, fit_band


def studies(n: int, seed: int = 0, twist: float = 1.0) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Probabilities of two classes, and truth drawn from them; with `twist` below 1 they are too sure."""
    rng = np.random.default_rng(seed)
    logit = rng.normal(0, 2, n)
    y = rng.random(n) < 1 / (1 + np.exp(-logit * twist))
    p = 1 / (1 + np.exp(-logit))
    return np.stack([1 - p, p], 1), np.stack([~y, y], 1).astype(float), [f"p{i}" for i in range(n)]


def test_it_holds_the_true_share_about_as_often_as_it_says() -> None:
    inside = []
    for seed in range(60):
        band = fit_band(*studies(80, seed, twist=0.6), ["a", "b"])
        truth = 1 / (1 + np.exp(-0.6 * np.log(0.9 / 0.1)))
        low, high = band.of("b", 0.9) or (0, 0)
        inside.append(low <= truth <= high)
    assert np.mean(inside) > 0.85


def test_more_patients_make_it_narrower_and_it_holds_the_probability() -> None:
    widths = []
    for n in (20, 80, 640):
        band = fit_band(*studies(n), ["a", "b"])
        assert band.patients == n
        for p in (0.01, 0.5, 0.97):
            low, high = band.of("b", p) or (1, 0)
            assert 0 <= low <= p <= high <= 1
        low, high = band.of("b", 0.8) or (1, 0)
        widths.append(high - low)
    assert widths[0] > widths[1] > widths[2] > 0


def test_studies_told_apart_without_a_mistake_have_one_too() -> None:
    p = np.repeat([[0.9, 0.1], [0.1, 0.9]], 10, axis=0)
    band = fit_band(p, p.round(), [f"p{i}" for i in range(20)], ["a", "b"])
    low, high = band.of("b", 0.9) or (0, 0)
    assert 0.5 < low <= 0.9 <= high <= 1


def test_what_is_not_known_has_none() -> None:
    p, y, patients = studies(30)
    assert "fewer than 10" in fit_band(p[:9], y[:9], patients[:9], ["a", "b"]).reason
    assert fit_band(p, y, ["one"] * 30, ["a", "b"]).of("a", 0.5) is None
    y[:, 1] = 0
    y[:3] = np.nan
    band = fit_band(p, y, patients, ["a", "b"])
    assert band.of("b", 0.5) is None, "no validation study has it"
    assert band.patients == 27
    assert fit_band(p, y * np.nan, patients, ["a", "b"]).patients == 0


def test_it_comes_back_from_beside_the_weights() -> None:
    band = fit_band(*studies(40), ["a", "b"])
    again = Band.from_dict(json.loads(json.dumps(band.as_dict())))
    assert again.of("b", 0.7) == pytest.approx(band.of("b", 0.7))
