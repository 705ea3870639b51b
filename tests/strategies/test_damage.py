"""Labels damaged on purpose: each kind does what it says, the same for the same seed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from radloop.recipes.errors import BadInput
from radloop.recipes.load import load_recipe
from radloop.recipes.recipe import Recipe
from radloop.recipes.volume import Volume
from radloop.strategies.damage import damaged, damaged_file, damages
from radloop.studies.answers import read_answer, write_answer
from radloop.studies.cases import Case

MASKS = Recipe(name="masks", labels={"lesion": 1, "organ": 2}, evaluate={"lesions": ("lesion",)})
ONE = Recipe(name="one", labels={"organ": 1})


def _mask() -> Volume:
    array = np.zeros((24, 22, 12), np.uint8)
    array[2:12, 2:12, 2:10] = 2
    array[4:8, 4:8, 4:8] = 1
    array[16:18, 16:18, 4:6] = 1
    return Volume(array[None], np.diag([1.0, 1.0, 2.0, 1.0]))


def _rng() -> np.random.Generator:
    return np.random.default_rng(3)


def test_what_can_be_damaged_depends_on_the_labels() -> None:
    assert damages(MASKS) == ("eroded", "shifted", "swapped", "missing")
    assert damages(ONE) == ("eroded", "shifted")
    assert damages(load_recipe("sample_shape")) == ("swapped",)
    with pytest.raises(BadInput, match="kind detection"):
        damages(load_recipe("chest_lungs"))


def test_erosion_takes_the_rim_of_every_label_and_leaves_its_core() -> None:
    before, after = _mask().array[0], damaged(MASKS, _mask(), "eroded", _rng())
    assert ((after == before) | (after == 0)).all()
    for number in (1, 2):
        share = (after == number).sum() / (before == number).sum()
        assert 0 < share < 0.8
    flat = Volume(_mask().array[:, :, :, 4:5], np.eye(4))
    assert 0 < (damaged(MASKS, flat, "eroded", _rng()) == 2).sum() < (flat.array == 2).sum()


def test_a_shift_moves_the_mask_in_the_plane() -> None:
    before, after = _mask().array[0], damaged(MASKS, _mask(), "shifted", _rng())
    assert (before.any(axis=(0, 1)) == after.any(axis=(0, 1))).all()
    overlap = ((before == 2) & (after == 2)).sum() / (before == 2).sum()
    assert 0 <= overlap < 0.5
    assert after.any()


def test_a_swap_renames_one_label() -> None:
    before, after = _mask().array[0], damaged(MASKS, _mask(), "swapped", _rng())
    assert ((before > 0) == (after > 0)).all()
    assert len(np.unique(after[after > 0])) == 1


def test_the_largest_lesion_is_missing_and_nothing_else() -> None:
    before, after = _mask().array[0], damaged(MASKS, _mask(), "missing", _rng())
    assert (before == 1).sum() - (after == 1).sum() == 4**3
    assert ((after == 2) == (before == 2)).all()
    assert (after[16:18, 16:18, 4:6] == 1).all()


def test_an_empty_mask_stays_empty_and_a_seed_repeats_itself() -> None:
    empty = Volume(0 * _mask().array, np.eye(4))
    for how in damages(MASKS):
        assert not damaged(MASKS, empty, how, _rng()).any()
        assert (damaged(MASKS, _mask(), how, _rng()) == damaged(MASKS, _mask(), how, _rng())).all()


@pytest.mark.parametrize("kind", ["classification", "ordinal", "multilabel"])
def test_a_swapped_answer_is_wrong_in_one_label(kind: str, tmp_path: Path) -> None:
    recipe = Recipe(name="words", kind=kind, labels={"a": 1, "b": 2, "c": 3, "d": 4}, network={"name": "cnn"})
    told = {"a": True, "b": False, "c": False, "d": False}
    write_answer(tmp_path / "true.json", kind, told)
    case = Case("s1", "p1", "train", (), tmp_path / "true.json", recipe.label_names, 1, blind=True)
    (tmp_path / "out").mkdir()
    found = read_answer(damaged_file(recipe, case, "swapped", _rng(), tmp_path / "out"), recipe)
    assert found != told
    if kind == "multilabel":
        assert sum(found[name] != told[name] for name in told) == 1
    else:
        assert sum(found.values()) == 1
    if kind == "ordinal":
        assert found["b"], "a grade is taken for its neighbour"
