"""A patient's visits in sequence: every one through one shared encoder, then gated recurrent units with time gaps.

The encoder is any network for answers about a whole study without its last layer. One visit alone works too. Padding is
packed away, so that it is never read.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence

from radloop.networks.blocks import LastLayer
from radloop.recipes.recipe import Recipe

_MOST_HIDDEN = 64


class Features(nn.Module):
    """In place of a last layer: the features as they are."""

    def forward(self, features: torch.Tensor, extra: torch.Tensor | None) -> torch.Tensor:
        """(N, width), whatever is known beside."""
        return features


class VisitNetwork(nn.Module):
    """Features of the asked visit, and what a GRU makes of all visits so far, to logits.

    Args:
        encoder: a network with a `last` layer, which is taken off.
        recipe: the question.

    Raises:
        ValueError: the network looks at no image.
    """

    def __init__(self, encoder: nn.Module, recipe: Recipe) -> None:
        super().__init__()
        last = getattr(encoder, "last", None)
        if not isinstance(last, LastLayer):
            msg = "it looks at no image, so there is nothing to follow over visits; leave answer.sequence out"
            raise ValueError(msg)  # noqa: TRY004 (as all sizes that cannot be built)
        width = last.linear.in_features - recipe.extras
        encoder.last = Features()
        self.encoder = encoder
        hidden = min(width, _MOST_HIDDEN)
        self.join = nn.Linear(width, hidden)
        self.cell = nn.GRU(hidden + 2, hidden, batch_first=True)
        self.last = LastLayer(width + hidden, recipe)

    def forward(
        self, image: torch.Tensor, present: torch.Tensor | None, extra: torch.Tensor | None, gaps: torch.Tensor
    ) -> torch.Tensor:
        """Logits (N, outputs).

        Args:
            image: (visits in all, C, *space), those of one patient after each other, the oldest first.
            present: (visits in all, z) of networks that take slices.
            extra: (N, 2 * covariates) of the asked visits.
            gaps: (N, most visits) time from each to the asked one, which is the last with 0; then NaN.
        """
        real = ~gaps.isnan()
        counts = real.sum(1)
        features = self.encoder(image, present, None)
        sequence = features.new_zeros(*gaps.shape, features.shape[1])
        sequence[real] = features
        ago = gaps.nan_to_num().to(features)
        since = torch.cat([torch.zeros_like(ago[:, :1]), (ago[:, :-1] - ago[:, 1:]).clamp(min=0)], 1)
        told = torch.cat([self.join(sequence), ago.log1p()[..., None], since.log1p()[..., None]], 2)
        packed = pack_padded_sequence(told, counts.cpu(), batch_first=True, enforce_sorted=False)
        _, state = self.cell(packed)
        asked = sequence[torch.arange(len(gaps), device=gaps.device), counts - 1]
        return self.last(torch.cat([asked, state[-1]], 1), extra)
