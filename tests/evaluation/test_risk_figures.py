"""Figures of risks over time, held against torchsurv and against plain loops."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from radloop.evaluation.risk_scores import Risks, auc, brier, c_index, integrated_brier, kaplan_meier, not_lost, uno_c

TIMES = np.array([200.0, 500.0])


def drawn(n: int = 80, *, ties: bool = False, seed: int = 0) -> Risks:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=n)
    came, lost = rng.exponential(400 * np.exp(-x)), rng.exponential(700, size=n)
    event, time = came <= lost, np.minimum(came, lost)
    if ties:
        time, x = np.ceil(time / 60) * 60, x.round(1)
    grid = np.linspace(500 / 32, 500, 32)
    at = [1 - np.exp(-times / (400 * np.exp(-x[:, None]))) for times in (TIMES, grid)]
    return Risks(event, time, x, *at, TIMES, grid)


def one(risks: Risks) -> np.ndarray:
    return np.ones((1, len(risks.time)))


def plain_c(risks: Risks, weight: np.ndarray, until: float = np.inf) -> float:
    right = every = 0.0
    for i in range(len(risks.time)):
        for j in range(len(risks.time)):
            later = risks.time[j] > risks.time[i] or (risks.time[j] == risks.time[i] and not risks.event[j])
            if risks.event[i] and later and i != j and risks.time[i] <= until:
                every += weight[i]
                right += weight[i] * (0.5 if risks.rank[i] == risks.rank[j] else float(risks.rank[i] > risks.rank[j]))
    return right / every


def plain_not_lost(risks: Risks, until: float) -> float:
    """The chance not to be lost before a time."""
    chance = 1.0
    for moment in sorted({t for t, e in zip(risks.time, risks.event, strict=True) if not e and t < until}):
        lost = sum(t == moment and not e for t, e in zip(risks.time, risks.event, strict=True))
        there = lost + sum(t > moment for t in risks.time)
        chance *= 1 - lost / there
    return chance


@pytest.mark.parametrize("ties", [False, True])
def test_concordance_is_what_a_plain_loop_counts(ties):
    risks = drawn(ties=ties)
    assert c_index(risks, one(risks))[0] == pytest.approx(plain_c(risks, np.ones(80)))
    weight = np.array([1 / plain_not_lost(risks, t) ** 2 for t in risks.time])
    assert uno_c(risks, one(risks))[0] == pytest.approx(plain_c(risks, weight, until=500))
    np.testing.assert_allclose(risks.kept, [plain_not_lost(risks, t) for t in risks.time])


def test_figures_agree_with_torchsurv():
    from torchsurv.metrics.auc import Auc
    from torchsurv.metrics.brier_score import BrierScore
    from torchsurv.metrics.cindex import ConcordanceIndex
    from torchsurv.stats.ipcw import get_ipcw
    from torchsurv.stats.kaplan_meier import KaplanMeierEstimator

    risks = drawn()
    rank, event, time, named = (torch.tensor(of) for of in (risks.rank, risks.event, risks.time, TIMES))
    rank, time, named = rank.float(), time.float(), named.float()
    weight, then = get_ipcw(event, time), get_ipcw(event, time, named)
    given = {"weight": weight, "weight_new_time": then, "new_time": named}
    assert c_index(risks, one(risks))[0] == pytest.approx(float(ConcordanceIndex()(rank, event, time)), abs=1e-5)
    theirs = ConcordanceIndex()(rank, event, time, weight=weight, tmax=torch.tensor(500.0))
    assert uno_c(risks, one(risks))[0] == pytest.approx(float(theirs), abs=1e-5)
    np.testing.assert_allclose(auc(risks, one(risks))[0], Auc()(rank, event, time, **given), atol=1e-5)
    survival = torch.tensor(1 - risks.risks).float()
    np.testing.assert_allclose(
        brier(risks, one(risks), risks.risks, TIMES)[0], BrierScore()(survival, event, time, **given), atol=1e-5
    )
    grid = torch.tensor(risks.grid).float()
    score = BrierScore()
    more = {"weight": weight, "weight_new_time": get_ipcw(event, time, grid), "new_time": grid}
    score(torch.tensor(1 - risks.curve).float(), event, time, **more)
    assert integrated_brier(risks, one(risks))[0] == pytest.approx(float(score.integral()), rel=0.05)
    curve = KaplanMeierEstimator()
    curve(event, time)
    np.testing.assert_allclose(kaplan_meier(risks.event, risks.time, TIMES)[0], curve.predict(named), atol=1e-5)


def test_a_study_that_counts_twice_is_there_twice():
    risks = drawn(30, ties=True)
    often = np.random.default_rng(1).integers(0, 3, (1, 30)).astype(float)
    places = np.repeat(np.arange(30), often[0].astype(int))
    twice = Risks(
        risks.event[places], risks.time[places], risks.rank[places], risks.risks[places], risks.curve[places],
        TIMES, risks.grid,
    )  # fmt: skip
    assert c_index(risks, often)[0] == pytest.approx(c_index(twice, one(twice))[0])
    np.testing.assert_allclose(
        kaplan_meier(risks.event, risks.time, TIMES, often), kaplan_meier(twice.event, twice.time, TIMES)
    )


def test_what_nobody_was_followed_for_has_no_value():
    short = Risks(
        np.array([True, False]), np.array([10.0, 50.0]), np.array([1.0, 0.0]), np.full((2, 2), 0.5),
        np.full((2, 32), 0.5), TIMES, np.linspace(500 / 32, 500, 32),
    )  # fmt: skip
    assert np.isnan(brier(short, one(short), short.risks, TIMES)).all()
    assert np.isnan(auc(short, one(short))).all()
    assert c_index(short, one(short))[0] == 1
    assert np.isnan(c_index(short, np.array([[2.0, 0.0]]))[0])
    assert not_lost(np.array([True]), np.array([3.0]), np.array([5.0]))[0] == 1
