"""The architectures by name: a family is one file that registers its builders here."""

from __future__ import annotations

import importlib
from collections.abc import Callable

from torch import nn

from radloop.recipes.errors import BadRecipe, closest
from radloop.recipes.recipe import Recipe

Builder = Callable[[Recipe], nn.Module]

_FAMILIES = ("radloop.networks.cnn",)
_builders: dict[str, Builder] = {}


def register(name: str) -> Callable[[Builder], Builder]:
    """A decorator that makes a builder known as `name`, the value of `network.name` in a recipe."""

    def keep(builder: Builder) -> Builder:
        _builders[name] = builder
        return builder

    return keep


def names() -> tuple[str, ...]:
    """Every registered name, sorted."""
    for family in _FAMILIES:
        importlib.import_module(family)
    return tuple(sorted(_builders))


def build(recipe: Recipe) -> nn.Module:
    """A freshly initialised network for `recipe`: (N, channels, *patch) -> logits (N, 1 + labels, *patch).

    The weights follow torch's global seed. Any input whose axes are multiples of `min_multiple(recipe)` will do.

    Raises:
        BadRecipe: `network.name` is not registered, or its sizes cannot be built.
    """
    known = names()
    if recipe.network.name not in known:
        hint = closest(recipe.network.name, known)
        msg = f"network.name = {recipe.network.name!r} is not known{hint}; known: {', '.join(known)}"
        raise BadRecipe(msg)
    try:
        return _builders[recipe.network.name](recipe)
    except (AssertionError, ValueError) as error:  # how MONAI refuses sizes
        msg = f"network {recipe.network.name!r} cannot be built with these sizes: {error}"
        raise BadRecipe(msg) from error
