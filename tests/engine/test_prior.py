"""Probabilities after balanced training are those of the studies there are."""

from __future__ import annotations

import numpy as np
import pytest

from radloop.engine.losses import answer_loss
from radloop.engine.prior import as_seen_in_life, overseen
from radloop.evaluation.class_answers import probabilities
from radloop.recipes.recipe import Kind

TRUTH = {
    "classification": np.eye(3)[[0] * 80 + [1] * 15 + [2] * 5],
    "ordinal": np.eye(3)[[0] * 80 + [1] * 15 + [2] * 5],
    "multilabel": np.array([[1, 0, np.nan]] * 10 + [[0, 0, 1]] * 60 + [[0, 1, 0]] * 30, float),
}


def constant(kind: Kind, truth: np.ndarray, chances: np.ndarray, weights: np.ndarray | None) -> np.ndarray:
    """(1, outputs) logits, the same for every study, of least loss in a balanced training."""
    import torch

    width = truth.shape[1] - (kind == "ordinal")
    logits = torch.zeros(1, width, dtype=torch.double, requires_grad=True)
    search = torch.optim.LBFGS([logits], max_iter=300, line_search_fn="strong_wolfe")
    often = np.round(chances / chances.min()).astype(int)
    y = torch.from_numpy(np.repeat(truth, often, axis=0))
    w = None if weights is None else torch.from_numpy(weights)

    def closure() -> torch.Tensor:
        search.zero_grad()
        loss = answer_loss(kind, logits.expand(len(y), -1), y, w)
        loss.backward()
        return loss

    with torch.enable_grad():
        search.step(closure)
    return logits.detach().numpy()


@pytest.mark.parametrize(
    ("kind", "how"),
    [
        ("classification", "loss"),
        ("classification", "sampler"),
        ("multilabel", "loss"),
        ("multilabel", "sampler"),
        ("ordinal", "sampler"),  # grades are not weighed in the loss
    ],
)
def test_what_is_learned_of_nothing_is_how_often_each_answer_was_given(kind: Kind, how: str) -> None:
    truth = TRUTH[kind]
    real = np.nanmean(truth, axis=0)
    weights, chances = None, np.ones(len(truth))
    if how == "loss":
        weights = np.array([0.5, 2.0, 4.0])
    else:
        chances = np.where(np.nan_to_num(truth)[:, 1] == 1, 4.0, 1.0)
    raw = constant(kind, truth, chances, weights)
    assert abs(probabilities(raw, kind)[0] - real).max() > 0.05, "balancing changes it"
    shift = overseen(kind, truth, chances if how == "sampler" else None, weights)
    np.testing.assert_allclose(probabilities(as_seen_in_life(kind, raw, shift), kind)[0], real, atol=1e-4)


def test_a_label_never_seen_is_left_where_it_is() -> None:
    truth = np.eye(3)[[0, 0, 1]]
    assert overseen("classification", truth, np.array([1.0, 1.0, 2.0]), np.array([1.0, 2.0, 0.0]))[2] == 0
