from __future__ import annotations

import pytest
import torch

from radloop.engine.losses import IGNORE, deep_dice_ce, dice_ce

EVERY = torch.ones(1, 4, dtype=torch.bool)


def logits_of(label: torch.Tensor, sure: float = 12.0) -> torch.Tensor:
    return sure * torch.nn.functional.one_hot(label.long(), 4).movedim(-1, 1).float()


def test_right_answer_costs_nothing_and_wrong_one_much() -> None:
    label = torch.tensor([[[0, 1], [2, 3]]], dtype=torch.uint8)
    assert dice_ce(logits_of(label), label, EVERY) < 1e-3
    assert dice_ce(logits_of(label.flip(1)), label, EVERY) > 3


def test_ignored_voxels_do_not_count() -> None:
    label = torch.tensor([[[0, 1], [2, IGNORE]]], dtype=torch.uint8)
    one, other = (logits_of(torch.tensor([[[0, 1], [2, last]]])) for last in (0, 3))
    assert torch.equal(dice_ce(one, label, EVERY), dice_ce(other, label, EVERY))


def test_names_nobody_looked_at_are_neither_punished_nor_trained() -> None:
    known = torch.tensor([[True, True, True, False]])
    label = torch.tensor([[[0, 1], [2, 0]]], dtype=torch.uint8)
    background, unseen = (logits_of(torch.tensor([[[0, 1], [2, last]]])).requires_grad_() for last in (0, 3))
    assert torch.allclose(dice_ce(background, label, known), dice_ce(unseen, label, known), atol=1e-6)

    even = torch.zeros(1, 4, 2, 2, requires_grad=True)
    dice_ce(even, label, known).backward()
    assert even.grad is not None
    # where the label says background, background and the unseen class share one gradient
    assert torch.allclose(even.grad[0, 0, 0, 0], even.grad[0, 3, 0, 0])
    assert even.grad[0, 3, 0, 0] < 0 < even.grad[0, 1, 0, 0]


def test_a_partial_label_beside_a_full_one_trains_what_the_full_one_says() -> None:
    label = torch.tensor([[[0, 1], [2, 0]], [[3, 3], [0, 0]]], dtype=torch.uint8)
    known = torch.tensor([[True, True, True, False], [True, True, True, True]])
    even = torch.zeros(2, 4, 2, 2, requires_grad=True)
    dice_ce(even, label, known).backward()
    assert even.grad is not None
    assert even.grad[1, 3, 0].max() < 0


def test_a_label_that_speaks_for_nothing_is_no_nan() -> None:
    known = torch.tensor([[True, False, False, False]])
    loss = dice_ce(torch.zeros(1, 4, 2, 2, requires_grad=True), torch.zeros(1, 2, 2, dtype=torch.uint8), known)
    assert loss.item() == pytest.approx(0.0, abs=1e-6)


def test_each_coarser_level_counts_half_as_much() -> None:
    label = torch.tensor([[[0, 1], [2, 3]]], dtype=torch.uint8)
    right, wrong = logits_of(label), logits_of(label.flip(1))
    cost = dice_ce(wrong, label, EVERY)
    for level, share in enumerate((4 / 7, 2 / 7, 1 / 7)):
        levels = [wrong if number == level else right for number in range(3)]
        found = deep_dice_ce(torch.stack(levels, 1), label, EVERY)
        assert found.item() == pytest.approx(share * cost.item(), abs=1e-3)


def test_by_patch_a_small_lesion_counts_as_much_as_a_large_one() -> None:
    label = torch.zeros(3, 8, 8, dtype=torch.uint8)
    label[0, 2, 2], label[1, :4] = 1, 1  # one voxel, half a patch, none
    known = torch.tensor([[True, True, False, False]]).repeat(3, 1)
    shrunk = label.clone()
    shrunk[0] = 0
    missed = {by: dice_ce(logits_of(shrunk), label, known, by_patch=by).item() for by in (False, True)}
    assert missed[True] > missed[False] + 0.1
    assert dice_ce(logits_of(label), label, known, by_patch=True) < 1e-2
    # where no patch has the label only cross-entropy is left, and nothing is NaN
    none = torch.zeros_like(label)
    logits = torch.zeros(3, 4, 8, 8, requires_grad=True)
    dice_ce(logits, none, known, by_patch=True).backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
    assert logits.grad[:, 0].max() < 0


def test_by_patch_what_nobody_looked_at_is_not_trained() -> None:
    label = torch.tensor([[[0, 1], [2, 0]]], dtype=torch.uint8)
    known = torch.tensor([[True, True, True, False]])
    background, unseen = (logits_of(torch.tensor([[[0, 1], [2, last]]])) for last in (0, 3))
    one, other = (dice_ce(logits, label, known, by_patch=True) for logits in (background, unseen))
    assert torch.allclose(one, other, atol=1e-6)
