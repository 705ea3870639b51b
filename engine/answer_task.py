"""Learning to answer about a whole study: what `fit` needs of the kinds classification, multilabel and ordinal."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from radloop.engine.answer_batch import AnswerBatch, network_inputs
from radloop.engine.answer_data import AnswerSource, PreparedAnswer, PreparedAnswers, prepare_answers
from radloop.engine.augment import Augment
from radloop.engine.covariates import Covariates
from radloop.engine.losses import IGNORE, answer_loss
from radloop.engine.precision import training_precision
from radloop.engine.prior import overseen
from radloop.recipes.errors import BadInput
from radloop.recipes.recipe import Recipe


class AnswerTask:
    """One training's data and loss.

    Args:
        recipe: a recipe of one of these kinds.
    """

    def __init__(self, recipe: Recipe) -> None:
        self._recipe = recipe
        self._covariates = Covariates()
        self._weights: torch.Tensor | None = None
        self._overseen = np.zeros(len(recipe.labels))

    def prepare(self, cases: Sequence[Any], cache: Path, step: Callable[[int], None] | None) -> PreparedAnswers:
        """See `prepare_answers`."""
        return prepare_answers(self._recipe, cases, cache, step)

    def source(self, cases: Sequence[PreparedAnswer], seed: int) -> AnswerSource:
        """Batches of these cases, whose covariates and class frequencies are taken in.

        Raises:
            BadInput: there is nothing to tell apart, or a covariate cannot be used.
        """
        _something_to_learn(self._recipe, cases)
        extra = self._told([case.case.answers for case in cases])
        self._weights = class_weights(self._recipe, cases)
        source, truth = AnswerSource(self._recipe, cases, seed, extra), np.stack([case.truth for case in cases])
        weights = None if self._weights is None else self._weights.numpy()
        self._overseen = overseen(self._recipe.kind, truth, source.chances, weights)
        return source

    def _told(self, cells: Sequence[Mapping[str, str]]) -> np.ndarray | None:
        """(n, 2 * covariates), standardised by these studies; None without covariates."""
        self._covariates = Covariates.fitted(self._recipe.answer.covariates, cells)
        return np.stack([self._covariates.row(of) for of in cells]) if self._covariates.names else None

    def loss(self, network: nn.Module, batch: AnswerBatch, augment: Augment, device: torch.device) -> torch.Tensor:
        """Of one batch; a scalar."""
        logits = self._logits(network, batch, augment, device)
        weights = None if self._weights is None else self._weights.to(device)
        return answer_loss(self._recipe.kind, logits, batch.truth.to(device), weights)

    def _logits(self, network: nn.Module, batch: AnswerBatch, augment: Augment, device: torch.device) -> torch.Tensor:
        image, region = _augmented(batch, augment, device)
        region = torch.where(region == IGNORE, torch.zeros_like(region), region)
        inputs = network_inputs(self._recipe, replace(batch, image=image, region=region), device)
        with training_precision(device):
            logits: torch.Tensor = network(*inputs)
        return logits

    def kept(self) -> dict[str, Any]:
        """What is saved beside the weights."""
        return {"covariates": self._covariates.as_dict(), "overseen": self._overseen.tolist()}


def _augmented(batch: AnswerBatch, augment: Augment, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Images and regions, changed at random; of studies in slices the real ones alone, or padding would move in."""
    image, region = batch.image.to(device), batch.region.to(device)
    if batch.present is None:
        return augment(image, region)
    changed, marked = torch.zeros_like(image), torch.zeros_like(region)
    for number, count in enumerate(batch.present.sum(1).tolist()):
        one = slice(number, number + 1)
        changed[one, ..., :count], marked[one, ..., :count] = augment(image[one, ..., :count], region[one, ..., :count])
    return changed, marked


def class_weights(recipe: Recipe, cases: Sequence[PreparedAnswer]) -> torch.Tensor | None:
    """(K,) float32 for `fit.balance = "loss"`: the rarer, the heavier, 1 on average; at most 10."""
    if recipe.fit.balance != "loss":
        return None
    truth = np.stack([case.truth for case in cases])
    often, asked = np.nansum(truth, axis=0), (~np.isnan(truth)).sum(axis=0)
    if recipe.kind == "multilabel":
        # of a finding that all have there is nothing to weigh, and with a weight of 0 nobody would learn that they do
        found = np.divide(asked - often, often, out=np.ones_like(often), where=(often > 0) & (often < asked))
    else:
        found = np.divide(often.sum() / len(often), often, out=np.zeros_like(often), where=often > 0)
    return torch.from_numpy(np.minimum(found, 10.0).astype(np.float32))


def _something_to_learn(recipe: Recipe, cases: Sequence[PreparedAnswer]) -> None:
    truth = np.stack([case.truth for case in cases])
    given = [name for name, of in zip(recipe.label_names, truth.T, strict=True) if (of == 1).any()]
    spread = (truth == 1).any(axis=0) & (truth == 0).any(axis=0)
    if not spread.any():
        says = f"all say {given[0]!r}" if given else "nothing was found in any"
        msg = (
            f"recipe {recipe.name!r} has {len(cases)} studies to learn from, and {says}; label some that say otherwise"
        )
        raise BadInput(msg)
    unseen = [name for name in recipe.label_names if name not in given]
    if unseen and recipe.kind != "multilabel":  # of findings each stands by itself
        msg = (
            f"recipe {recipe.name!r} has {len(cases)} studies to learn from, and none says {unseen[0]!r}; label some "
            "of training-side patients, or take it out of labels"
        )
        raise BadInput(msg)
