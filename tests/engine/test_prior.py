"""Probabilities after balanced training are those of the studies there are."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from radloop.engine.answer_task import class_weights
from radloop.engine.losses import answer_loss
from radloop.engine.prior import as_seen_in_life, overseen
from radloop.evaluation.class_answers import probabilities
from radloop.recipes.recipe import Fit, Kind, Recipe

TRUTH = {
    "classification": np.eye(3)[[0] * 80 + [1] * 15 + [2] * 5],
    "ordinal": np.eye(3)[[0] * 80 + [1] * 15 + [2] * 5],
    "multilabel": np.array([[1, 0, np.nan]] * 10 + [[0, 0, 1]] * 60 + [[0, 1, 0]] * 30, float),
}


def constant(kind: Kind, truth: np.ndarray, chances: np.ndarray, weights: np.ndarray | None) -> np.ndarray:
    """(1, outputs) logits, the same for every study, of least loss in a balanced training."""
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
        ("ordinal", "loss"),
        ("ordinal", "sampler"),
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


@pytest.mark.parametrize("kind", ["classification", "ordinal"])
def test_a_rare_answer_weighs_the_same_in_a_batch_of_one(kind: Kind) -> None:
    torch.manual_seed(0)
    truth, weights = torch.from_numpy(np.eye(3)[[0, 0, 1, 2]]), torch.tensor([0.5, 2.0, 4.0])
    logits = torch.randn(4, 3 - (kind == "ordinal"), dtype=torch.double)
    alone = [answer_loss(kind, logits[n : n + 1], truth[n : n + 1], weights) for n in range(4)]
    torch.testing.assert_close(answer_loss(kind, logits, truth, weights), torch.stack(alone).mean())
    plain = answer_loss(kind, logits[3:], truth[3:], None)
    torch.testing.assert_close(alone[3], 4 * plain)


def test_a_finding_that_all_have_is_learned_all_the_same() -> None:
    recipe = Recipe(name="q", kind="multilabel", labels={"always": 1, "rare": 2}, fit=Fit(balance="loss"))
    cases = [SimpleNamespace(truth=np.array([1.0, number == 0], np.float32)) for number in range(4)]
    assert class_weights(recipe, cases).tolist() == [1.0, 3.0]


def test_a_label_never_seen_is_left_where_it_is() -> None:
    truth = np.eye(3)[[0, 0, 1]]
    assert overseen("classification", truth, np.array([1.0, 1.0, 2.0]), np.array([1.0, 2.0, 0.0]))[2] == 0
