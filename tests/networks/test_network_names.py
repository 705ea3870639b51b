"""Which network is for which recipe."""

from __future__ import annotations

from pathlib import Path

import pytest

from radloop.networks.registry import build, kinds_of, names
from radloop.recipes.errors import BadRecipe
from radloop.recipes.recipe import CLASS_KINDS, STUDY_KINDS, Kind, Recipe

KINDS: tuple[Kind, ...] = ("segmentation", *CLASS_KINDS)


def recipe(name: str, kind: Kind, dimension: int = 3) -> Recipe:
    patch = (16,) * dimension
    labels = {"a": 1, "b": 2, "c": 3}
    return Recipe(
        name="toy", kind=kind, dimension=dimension, labels=labels, fit={"patch": patch}, network={"name": name}
    )


def test_every_name_is_for_masks_for_boxes_or_for_all_answers_about_a_study() -> None:
    assert names("segmentation") == ("resunet", "unet", "unet_attention")
    for kind in CLASS_KINDS:
        assert names(kind) == ("cnn", "slices_attention", "slices_gru", "slices_lstm", "slices_pool", "vit")
    assert names("detection") == ("retinanet",)
    assert set(names("risk")) == {*names("ordinal"), "clinical"}
    assert set(names()) == {*names("segmentation"), *names("risk"), *names("detection")}
    for name in set(names()) - {"clinical"}:
        alone = next((kind for kind in ("segmentation", "detection") if name in names(kind)), None)
        assert kinds_of(name) == ((alone,) if alone else STUDY_KINDS)


@pytest.mark.parametrize("name", names())
def test_the_wrong_kind_is_refused_with_the_names_that_are_right(name: str) -> None:
    for kind in set(KINDS) - set(kinds_of(name)):
        with pytest.raises(BadRecipe, match=rf"{name!r} is for {kinds_of(name)[0]}.*{names(kind)[0]}, "):
            build(recipe(name, kind))


@pytest.mark.parametrize("name", [name for name in names() if name.startswith("slices_")])
def test_slices_need_a_third_axis(name: str) -> None:
    with pytest.raises(BadRecipe, match="is for dimension = 3; for dimension = 2 there is: cnn, vit"):
        build(recipe(name, "ordinal", dimension=2))


def test_a_mistyped_name_has_no_kinds() -> None:
    with pytest.raises(BadRecipe, match="did you mean 'slices_gru'"):
        kinds_of("slice_gru")


def test_every_name_is_explained_in_the_guide(root: Path) -> None:
    table = (root / "docs" / "recipes.md").read_text(encoding="utf-8").split("## `[network]`")[1].split("\n## ")[0]
    for name in names():
        assert f"\n| `{name}`" in table, f"docs/recipes.md says nothing about network.name = {name!r}"
