"""Weights: where they run, how they are kept on disk, and their running average."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from radloop.recipes.errors import BadInput, NotFound
from radloop.studies.files import write_whole


def default_device() -> str:
    """`cuda` where there is one, else `cpu`."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def load_weights(network: nn.Module, path: Path) -> None:
    """Put the weights of a `model.pt` into `network`; only tensors are read from the file, never code.

    Raises:
        NotFound: no such file.
        BadInput: the file is no checkpoint of weights alone, or its weights have other names or shapes.
    """
    state = _read(path)["state_dict"]
    wrong = _differences(network.state_dict(), state)
    if wrong:
        msg = f"weights {path} do not fit the recipe's network: {wrong}; train from scratch or restore the recipe"
        raise BadInput(msg)
    network.load_state_dict(state)


def read_kept(path: Path) -> dict[str, Any]:
    """What was saved beside the weights; empty where nothing was.

    Raises:
        NotFound: no such file.
        BadInput: the file is no checkpoint.
    """
    return {key: value for key, value in _read(path).items() if key != "state_dict"}


def add_kept(path: Path, more: Mapping[str, Any]) -> None:
    """Save further plain values beside the weights of a file, whole or not at all.

    Raises:
        NotFound, BadInput: there is no checkpoint.
        NoSpace: the disk is full or read-only.
    """
    save_tensors({**_read(path), **more}, path)


def save_weights(network: nn.Module, path: Path, kept: Mapping[str, Any] | None = None) -> None:
    """Write `{"state_dict": ...}` to `path`, whole or not at all.

    Args:
        kept: plain numbers, texts, lists and tables to be saved beside the weights.

    Raises:
        NoSpace: the disk is full or read-only.
    """
    state = {name: value.detach().cpu() for name, value in network.state_dict().items()}
    save_tensors({"state_dict": state, **(kept or {})}, path)


def save_tensors(content: dict[str, Any], path: Path) -> None:
    """Write what `torch.load` reads with `weights_only`, whole or not at all.

    Raises:
        NoSpace: the disk is full or read-only.
    """
    write_whole(path, lambda temporary: _save(content, temporary), ending=".pt")


def _save(content: dict[str, Any], path: Path) -> None:
    """torch.save, where a full disk is an OSError as elsewhere; torch hides that behind a RuntimeError."""
    try:
        with path.open("wb") as handle:
            torch.save(content, handle)
    except RuntimeError as error:
        if isinstance(error.__context__, OSError):
            raise error.__context__ from error
        raise


class Average:
    """An exponential moving average of a network's weights, which warms up so that short trainings work.

    The decay at step t is min(decay, (1 + t) / (10 + t)), as in TensorFlow's ExponentialMovingAverage.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self._network = network
        self._decay = decay
        self._steps = 0
        self._mean = [p.detach().clone() for p in network.parameters()]

    @torch.no_grad()
    def update(self) -> None:
        """Take the network's present weights into the average."""
        decay = min(self._decay, (1 + self._steps) / (10 + self._steps))
        self._steps += 1
        torch._foreach_lerp_(self._mean, [p.detach() for p in self._network.parameters()], 1 - decay)

    def state(self) -> dict[str, Any]:
        """The average and how many steps it has seen, for `go_on`."""
        return {"steps": self._steps, "mean": [mean.cpu() for mean in self._mean]}

    @torch.no_grad()
    def go_on(self, state: dict[str, Any]) -> None:
        """Continue where another average of the same network was."""
        self._steps = state["steps"]
        for mean, saved in zip(self._mean, state["mean"], strict=True):
            mean.copy_(saved)

    @torch.no_grad()
    def store(self) -> None:
        """Give the network the averaged weights."""
        for parameter, mean in zip(self._network.parameters(), self._mean, strict=True):
            parameter.copy_(mean)


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        msg = f"weights {path} do not exist; give the model.pt of a version"
        raise NotFound(msg)
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
        return {"state_dict": found["state_dict"], **found}
    except (OSError, RuntimeError, pickle.UnpicklingError, EOFError, KeyError, TypeError, ValueError) as error:
        msg = f"weights {path} cannot be read as a checkpoint of tensors under 'state_dict': {_first_line(error)}"
        raise BadInput(msg) from error


def _differences(wanted: dict[str, torch.Tensor], found: object) -> str:
    if not isinstance(found, dict):
        return "'state_dict' is no table of tensors"
    for name in sorted(wanted.keys() ^ found.keys()):
        return f"{name} is {'missing' if name in wanted else 'not part of it'}"
    for name, value in wanted.items():
        if found[name].shape != value.shape:
            return f"{name} has shape {tuple(found[name].shape)}, needed {tuple(value.shape)}"
    return ""


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
