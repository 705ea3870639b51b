"""Dice plus cross-entropy for masks, cross-entropies for answers about a study; a label may speak for some names only.

A mask says nothing of names nobody looked at: their probability is added to background's before the loss, so they are
neither punished nor trained (marginal loss: Fang and Yan, IEEE TMI 2020; Shi et al., Medical Image Analysis 2021).
"""

from __future__ import annotations

import torch
from torch.nn import functional

IGNORE = 255
_SMOOTH = 1e-5
_ONE_VOXEL = 1.0  # where one patch has hardly a voxel of a label, Dice would be all or nothing


def dice_ce(logits: torch.Tensor, target: torch.Tensor, known: torch.Tensor, *, by_patch: bool = False) -> torch.Tensor:
    """The mean of soft Dice loss and cross-entropy, each 0 at best; a scalar.

    Dice is taken over the whole batch (as nnU-Net's batch Dice), so that a patch without a label is not all or nothing,
    or of each patch that has the label.

    Args:
        logits: (N, K, *space), class 0 is background.
        target: (N, *space) class ids; `IGNORE` where nothing is known, such as padding.
        known: (N, K) whether each label speaks for each class; background always.
        by_patch: Dice of each patch, else of the batch.
    """
    log_p = functional.log_softmax(logits.float(), dim=1)
    target = target.long()
    if not bool(known.all()):
        log_p, target = _merge_unknown(log_p, target, known)
    seen = target != IGNORE
    entropy = functional.nll_loss(log_p, target, ignore_index=IGNORE, reduction="sum") / seen.sum().clamp(min=1)
    return 0.5 * (entropy + (_dice_by_patch if by_patch else _dice_loss)(log_p, target, seen, known))


def deep_dice_ce(
    logits: torch.Tensor, target: torch.Tensor, known: torch.Tensor, *, by_patch: bool = False
) -> torch.Tensor:
    """`dice_ce` of each level of (N, levels, K, *space) logits, the coarser half as much (Isensee et al., 2021)."""
    weights = [0.5**level for level in range(logits.shape[1])]
    losses = [
        weight * dice_ce(logits[:, level], target, known, by_patch=by_patch) for level, weight in enumerate(weights)
    ]
    return torch.stack(losses).sum() / sum(weights)


def _merge_unknown(log_p: torch.Tensor, target: torch.Tensor, known: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    space = (1,) * (log_p.dim() - 2)
    background = ~known
    background[:, 0] = True
    lowest = torch.finfo(log_p.dtype).min
    merged = log_p.masked_fill(~background.view(*background.shape, *space), lowest).logsumexp(1, keepdim=True)
    log_p = torch.cat([merged, log_p[:, 1:].masked_fill(~known[:, 1:].view(len(known), -1, *space), lowest)], dim=1)
    table = torch.arange(256, device=target.device).repeat(len(known), 1)
    table[:, : known.shape[1]] *= known  # an id the label does not speak for counts as background
    return log_p, table.gather(1, target.flatten(1)).view_as(target)


def _dice_loss(log_p: torch.Tensor, target: torch.Tensor, seen: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
    """1 - soft Dice, the mean over the foreground classes that at least one label of the batch speaks for."""
    p = log_p[:, 1:].exp() * seen.unsqueeze(1)
    truth = torch.stack([target == k for k in range(1, log_p.shape[1])], dim=1)
    axes = [0, *range(2, p.dim())]
    overlap, sizes = (p * truth).sum(axes), p.sum(axes) + truth.sum(axes)
    dice = (2 * overlap + _SMOOTH) / (sizes + _SMOOTH)
    spoken = known[:, 1:].any(0)
    return 1 - dice[spoken].mean() if bool(spoken.any()) else dice.sum() * 0


def _dice_by_patch(log_p: torch.Tensor, target: torch.Tensor, seen: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
    """1 - soft Dice, the mean over patches and the foreground classes that each has; where none has any, 0."""
    p = log_p[:, 1:].exp() * seen.unsqueeze(1)
    truth = torch.stack([target == k for k in range(1, log_p.shape[1])], dim=1)
    axes = list(range(2, p.dim()))
    sizes = truth.sum(axes)
    dice = (2 * (p * truth).sum(axes) + _ONE_VOXEL) / (p.sum(axes) + sizes + _ONE_VOXEL)
    there = (sizes > 0) & known[:, 1:]
    return 1 - dice[there].mean() if bool(there.any()) else dice.sum() * 0


def answer_loss(kind: str, logits: torch.Tensor, truth: torch.Tensor, weights: torch.Tensor | None) -> torch.Tensor:
    """The mean loss over what was looked at; a scalar, 0 at best, and 0 where nothing was.

    Classes that exclude each other: cross-entropy. Findings: one binary cross-entropy each. Grades: one for each
    "above grade k" (Li and Lin, NeurIPS 2006).

    Args:
        kind: of the recipe.
        logits: (N, outputs).
        truth: (N, K) 1, 0, or NaN where nobody looked.
        weights: (K,) of classes and grades; of findings where they are present; None weighs all alike.
    """
    logits = logits.float() if logits.dtype in (torch.half, torch.bfloat16) else logits
    truth = truth.to(logits)
    if kind == "multilabel":
        known = ~truth.isnan()
        each = functional.binary_cross_entropy_with_logits(
            logits, truth.nan_to_num(), pos_weight=weights, reduction="none"
        )
        return (each * known).sum() / known.sum().clamp(min=1)
    asked = ~truth.isnan().any(1)
    if not bool(asked.any()):
        return logits.sum() * 0
    chosen = truth[asked].argmax(1)
    if kind == "classification":
        each = functional.cross_entropy(logits[asked], chosen, reduction="none")
    else:
        above = (chosen[:, None] > torch.arange(logits.shape[1], device=logits.device)).to(logits)
        each = functional.binary_cross_entropy_with_logits(logits[asked], above, reduction="none").mean(1)
    # the mean over studies, not over weights: in a batch of one these would cancel out
    return (each if weights is None else each * weights.to(each)[chosen]).mean()
