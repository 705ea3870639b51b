"""Learning how a risk goes over time: what `fit` needs of the kind risk.

The network tells how far a patient is from what covariates alone say, so that it has only to learn what the image adds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from radloop.engine.answer_batch import AnswerBatch
from radloop.engine.answer_data import AnswerSource, PreparedAnswer
from radloop.engine.answer_task import AnswerTask
from radloop.engine.augment import Augment
from radloop.engine.clinical import Clinical, fit_clinical
from radloop.engine.risk_loss import hazard_loss


class RiskTask(AnswerTask):
    """One training's data and loss.

    Args:
        recipe: a recipe of this kind.
    """

    _clinical: Clinical  # from `source`, which comes first

    def source(self, cases: Sequence[PreparedAnswer], seed: int) -> AnswerSource:
        """Batches of these cases, from which bounds and the clinical model are taken.

        Raises:
            BadInput: there is no event, or one patient alone, or a covariate cannot be used.
        """
        cells = [case.case.answers for case in cases]
        truth = np.stack([case.truth for case in cases])
        self._clinical = fit_clinical(self._recipe, truth, cells, [case.case.patient for case in cases])
        return AnswerSource(self._recipe, cases, seed, self._told(cells))

    def loss(self, network: nn.Module, batch: AnswerBatch, augment: Augment, device: torch.device) -> torch.Tensor:
        """Of one batch; a scalar."""
        logits = self._logits(network, batch, augment, device).float()  # or covariates would count in 16 bits
        rows = np.empty((len(batch.truth), 0)) if batch.extra is None else batch.extra.numpy()
        alone = torch.from_numpy(self._clinical.of_rows(rows)).to(logits)
        return hazard_loss(alone + logits, batch.truth, self._clinical.bounds).mean()

    def kept(self) -> dict[str, Any]:
        """What is saved beside the weights."""
        return {**super().kept(), "clinical": self._clinical.as_dict()}
