"""The architectures by name: a family is one file that registers its builders here."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import NamedTuple

from torch import nn

from radloop.networks.visits import VisitNetwork
from radloop.recipes.errors import BadRecipe, closest
from radloop.recipes.recipe import Kind, Recipe

Builder = Callable[[Recipe], nn.Module]

_FAMILIES = ("clinical", "cnn", "detector", "rnn", "slices", "transformer")


class _Entry(NamedTuple):
    builder: Builder
    kinds: tuple[Kind, ...]
    dimensions: tuple[int, ...]


_entries: dict[str, _Entry] = {}


def register(name: str, kinds: tuple[Kind, ...], dimensions: tuple[int, ...] = (2, 3)) -> Callable[[Builder], Builder]:
    """A decorator that makes a builder known as `name`, the value of `network.name` in a recipe.

    Args:
        name: how recipes call it.
        kinds: the kinds of recipe it answers.
        dimensions: the dimensions of recipe it takes.
    """

    def keep(builder: Builder) -> Builder:
        _entries[name] = _Entry(builder, kinds, dimensions)
        return builder

    return keep


def names(kind: Kind | None = None) -> tuple[str, ...]:
    """Every registered name, sorted; with a kind, those that are for it."""
    return tuple(sorted(name for name, entry in _known().items() if kind is None or kind in entry.kinds))


def kinds_of(name: str) -> tuple[Kind, ...]:
    """The kinds of recipe that a registered name is for.

    Raises:
        BadRecipe: the name is not registered.
    """
    if name not in _known():
        msg = f"network.name = {name!r} is not known{closest(name, names())}; known: {', '.join(names())}"
        raise BadRecipe(msg)
    return _entries[name].kinds


def check_name(recipe: Recipe) -> None:
    """Refuse a `network.name` that is not known, or not for the recipe's kind or dimension.

    Raises:
        BadRecipe: the message has the names that are.
    """
    name, kind, dimension = recipe.network.name, recipe.kind, recipe.dimension
    kinds, dimensions = kinds_of(name), _known()[name].dimensions
    right = ", ".join(each for each in names(kind) if dimension in _entries[each].dimensions) or "none"
    if kind not in kinds:
        msg = f"network.name = {name!r} is for {', '.join(kinds)}; for kind = {kind!r} there is: {right}"
        raise BadRecipe(msg)
    if dimension not in dimensions:
        allowed = " and ".join(map(str, dimensions))
        msg = f"network.name = {name!r} is for dimension = {allowed}; for dimension = {dimension} there is: {right}"
        raise BadRecipe(msg)


def build(recipe: Recipe) -> nn.Module:
    """A freshly initialised network for `recipe`; its weights follow torch's global seed.

    Masks: `network(image)`, (N, channels, *patch) -> logits (N, 1 + labels, *patch), for any axes that are multiples
    of `min_multiple(recipe)`; in training with `network.deep_supervision` (N, levels, 1 + labels, *patch), the finest
    first. Boxes: such an image -> what MONAI's detectors take of it, see
    `radloop.engine.box_detector`.
    Answers about a whole study: `network(image, present, extra)` -> logits (N, outputs).
    There `extra` is (N, `recipe.extras`), or None where that is 0. `image` is (N, inputs, *patch) and `present`
    None; names that begin with `slices_` take (N, inputs, x, y, z) and say in `present` (N, z) which slices are no
    padding, and have `slices(image, present, extra)` -> logits and what each slice weighed, (N, z), in all 1.

    With `answer.sequence` it is a `VisitNetwork` around that, which is given the visits' gaps too.

    Raises:
        BadRecipe: `network.name` is not registered or not for this recipe, or its sizes cannot be built.
    """
    check_name(recipe)
    try:
        network = _entries[recipe.network.name].builder(recipe)
        return VisitNetwork(network, recipe) if recipe.answer.sequence else network
    except (AssertionError, ValueError) as error:  # how MONAI refuses sizes
        msg = f"network {recipe.network.name!r} cannot be built with these sizes: {error}"
        raise BadRecipe(msg) from error


def _known() -> dict[str, _Entry]:
    for family in _FAMILIES:
        importlib.import_module(f"radloop.networks.{family}")
    return _entries
