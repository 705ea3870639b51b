"""`clinical`: the covariates alone, for a risk recipe that asks how far they go without the image."""

from __future__ import annotations

import torch
from torch import nn

from radloop.networks.registry import register
from radloop.recipes.recipe import Recipe


class CovariatesAlone(nn.Module):
    """One linear layer on the covariates; the image is not looked at."""

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        self.linear = nn.Linear(2 * len(recipe.answer.covariates), recipe.outputs)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, image: torch.Tensor, present: None, extra: torch.Tensor) -> torch.Tensor:
        """Logits (N, outputs)."""
        return self.linear(extra[:, : self.linear.in_features])


@register("clinical", ("risk",))
def clinical(recipe: Recipe) -> nn.Module:
    """Covariates to logits.

    Raises:
        ValueError: the recipe names none.
    """
    if not recipe.answer.covariates:
        msg = "it looks at answer.covariates alone, and the recipe names none"
        raise ValueError(msg)
    return CovariatesAlone(recipe)
