"""Recurrent networks over a study's slices, read in both directions: `slices_gru` and `slices_lstm`."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from radloop.networks.registry import register
from radloop.networks.slices import Readout, SliceEncoder, SliceNetwork
from radloop.recipes.recipe import STUDY_KINDS, Recipe


class Recurrent(nn.Module):
    """What the slices before and after say is added to each slice; packed, so that padding is never read."""

    def __init__(self, width: int, cell: type[nn.GRU] | type[nn.LSTM]) -> None:
        super().__init__()
        self.cell = cell(width, max(1, width // 2), batch_first=True, bidirectional=True)
        self.join = nn.Linear(2 * self.cell.hidden_size, width)

    def forward(self, sequence: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
        """(N, n, width) to the same, padding last."""
        packed = pack_padded_sequence(sequence, real.sum(1).cpu(), batch_first=True, enforce_sorted=False)
        read, _ = pad_packed_sequence(self.cell(packed)[0], batch_first=True, total_length=real.shape[1])
        return sequence + self.join(read)


@register("slices_gru", STUDY_KINDS, dimensions=(3,))
def slices_gru(recipe: Recipe) -> nn.Module:
    """Gated recurrent units over slices (Cho et al., EMNLP 2014)."""
    return _recurrent(recipe, nn.GRU)


@register("slices_lstm", STUDY_KINDS, dimensions=(3,))
def slices_lstm(recipe: Recipe) -> nn.Module:
    """Long short-term memory over slices (Hochreiter and Schmidhuber, Neural Computation 1997)."""
    return _recurrent(recipe, nn.LSTM)


def _recurrent(recipe: Recipe, cell: type[nn.GRU] | type[nn.LSTM]) -> nn.Module:
    encoder = SliceEncoder(recipe)
    return SliceNetwork(recipe, encoder, Recurrent(encoder.width, cell), Readout(encoder.width, asks=True))
