"""The loss of discrete hazards with censoring (Gensheimer and Narasimhan, PeerJ 2019); see `evaluation.hazards`."""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional

from radloop.evaluation.hazards import exposure


def hazard_loss(logits: torch.Tensor, truth: torch.Tensor, bounds: np.ndarray) -> torch.Tensor:
    """(N,) minus the logarithm of how likely each outcome was, one by one; 0 where nothing is known.

    Args:
        logits: (N, K) of the hazards.
        truth: (N, 2) event, 1 or 0, and time; NaN where nobody looked.
        bounds: (K + 1,) of the intervals.
    """
    logits = logits.float() if logits.dtype in (torch.half, torch.bfloat16) else logits
    told = truth.detach().cpu().double().numpy()
    known = ~np.isnan(told).any(axis=1)
    inside, lived = exposure(told[:, 0] == 1, np.where(known, told[:, 1], 1.0), bounds)
    came, without = (torch.from_numpy(of * known[:, None]).to(logits) for of in (inside, lived))
    return (came * functional.softplus(-logits) + without * functional.softplus(logits)).sum(1)
