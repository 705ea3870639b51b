"""Training: a recipe, labelled cases and a budget become weights.

AdamW with warm-up and cosine decay over the budget (Loshchilov and Hutter, ICLR 2017 and 2019), the loss of the kind of
answer, gradient clipping; what is saved is the running average of the weights at the end, nothing is selected.
Where the machine is faster so, networks compute with half of float32's bits (`engine/precision.py`). The same seed,
epochs, threads and machine give the same weights, bit by bit, on a CPU.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn

from radloop.engine.answer_task import AnswerTask
from radloop.engine.augment import Augment
from radloop.engine.box_task import BoxTask
from radloop.engine.checkpoint import Checkpoint, digest
from radloop.engine.cores import usable_cores
from radloop.engine.mask_task import MaskTask
from radloop.engine.precision import multiplies_bfloat16
from radloop.engine.risk_task import RiskTask
from radloop.engine.schedule import Budget, peak_share
from radloop.engine.weights import Average, default_device, load_weights, save_weights
from radloop.networks.registry import build
from radloop.recipes.errors import BadInput, Conflict, RadloopError
from radloop.recipes.recipe import CLASS_KINDS, Recipe
from radloop.studies.cases import Case
from radloop.studies.rows import checksum

logger = logging.getLogger(__name__)

_FROM_CHAMPION = 0.3  # times the peak learning rate, so that good weights are not washed out
_WEIGHT_DECAY = 1e-2
_CLIP = 5.0
_MOST_BAD_STEPS = 20  # in a row


class Cancelled(Conflict):
    """The training was stopped by request; nothing was written."""


class Ready(Protocol):
    """A case that was preprocessed."""

    @property
    def case(self) -> Case:
        """The study and its label."""

    @property
    def folder(self) -> Path:
        """Where it is; the name changes with the content."""

    @property
    def known(self) -> np.ndarray:
        """Whether its label speaks for each of the network's outputs or labels."""


@dataclass(frozen=True)
class Progress:
    """How far a training is.

    Attributes:
        epoch: epochs done; the caching before the first counts as 0.
        epochs: epochs in all; estimated where the budget is minutes, 0 until it can be.
        step: steps done.
        loss: mean loss of the epoch so far, NaN before the first step.
        seconds: since the start, caching included.
        share: of the budget used, 0..1.
    """

    epoch: int
    epochs: int
    step: int
    loss: float
    seconds: float
    share: float


@dataclass(frozen=True)
class FitReport:
    """What a training did.

    Attributes:
        epochs: epochs done, the last perhaps in part.
        steps: steps done.
        seconds: wall clock without the caching.
        losses: mean training loss of each epoch.
        skipped: (study, reason) of cases that could not be read.
        used: ledger rows of the labels trained on, sorted.
        resumed: the step at which it went on from a checkpoint; 0 where it began anew.
    """

    epochs: int
    steps: int
    seconds: float
    losses: tuple[float, ...]
    skipped: tuple[tuple[str, str], ...]
    used: tuple[int, ...]
    resumed: int = 0


def fit(
    recipe: Recipe,
    cases: Sequence[Case],
    out: Path,
    *,
    cache: Path,
    epochs: int | None = None,
    minutes: float | None = None,
    start: Path | None = None,
    seed: int = 0,
    threads: int | None = None,
    device: str | torch.device | None = None,
    progress: Callable[[Progress], None] | None = None,
    cancelled: Callable[[], bool] = lambda: False,
    checkpoint: Checkpoint | None = None,
) -> FitReport:
    """Train `recipe` on `cases` and write `out/model.pt`.

    Args:
        recipe: what to learn and how.
        cases: studies with a label each; those that cannot be read are named in the report.
        out: an existing folder.
        cache: where preprocessed cases are kept; may be deleted at any time.
        epochs: budget in epochs of `recipe.fit.steps` steps.
        minutes: budget in minutes, without the caching; give at most one, neither takes the recipe's.
        start: weights to start from, such as the champion's.
        seed: of the weights, patches and augmentation.
        threads: CPU threads; all cores by default.
        device: `cpu` or `cuda`; CUDA where there is one by default.
        progress: called after every step.
        cancelled: asked before every case and step.
        checkpoint: where the training's state is kept while it runs; one of this very job is gone on from, on a CPU to
            the same weights, bit by bit. It stays for the caller to remove.

    Raises:
        Conflict: the checkpoint is needed and of another job.
        BadInput: no case can be read, or the budget is not usable, or `start` does not fit.
        Cancelled: `cancelled` said so.
        RadloopError: the loss stopped being finite.
        NoSpace: the cache or the weights cannot be written.
    """
    budget = Budget.of(recipe, epochs, minutes)
    where, threads = torch.device(device or default_device()), threads or usable_cores()
    training = _Training(recipe, seed, where, progress, cancelled, checkpoint)
    with _threads(threads), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        ready = training.task.prepare(cases, cache, training.caching)
        if not ready.ready:
            reasons = f"; {ready.skipped[0][0]}: {ready.skipped[0][1]}" if ready.skipped else ""
            msg = f"none of {len(cases)} cases for recipe {recipe.name!r} can be read{reasons}"
            raise BadInput(msg)
        start = start or (Path(recipe.network.weights) if recipe.network.weights else None)
        state = checkpoint.open(_job(recipe, ready.ready, budget, start, seed, threads, where)) if checkpoint else None
        training.run(ready.ready, budget, start, state)
        training.finish(out / "model.pt")
    return training.report(ready.skipped, ready.ready)


def task_of(recipe: Recipe) -> AnswerTask | BoxTask | MaskTask:
    """The data and the loss of a recipe's kind."""
    if recipe.kind == "detection":
        return BoxTask(recipe)
    if recipe.kind == "risk":
        return RiskTask(recipe)
    return AnswerTask(recipe) if recipe.kind in CLASS_KINDS else MaskTask(recipe)


def _job(
    recipe: Recipe,
    cases: Sequence[Ready],
    budget: Budget,
    start: Path | None,
    seed: int,
    threads: int,
    device: torch.device,
) -> dict[str, Any]:
    """What the weights depend on; a checkpoint of anything else is not gone on from."""
    return {
        "recipe": recipe.hash(),
        "labels": digest(
            [
                [c.case.row, c.folder.name, c.known.tolist(), dict(c.case.answers)]
                + [[one.study, one.gap] for one in c.case.earlier]
                for c in cases
            ]
        ),
        "the version to start from": checksum(start) if start and start.is_file() else "",
        "budget": [budget.steps, budget.seconds],
        "seed": seed,
        "threads": threads,
        "device": device.type,
        "half precision": device.type == "cuda" or multiplies_bfloat16(),
        "torch": str(torch.__version__),
    }


class _Training:
    """One run of the loop and its books."""

    def __init__(
        self,
        recipe: Recipe,
        seed: int,
        device: torch.device,
        progress: Callable[[Progress], None] | None,
        cancelled: Callable[[], bool],
        checkpoint: Checkpoint | None,
    ) -> None:
        self._checkpoint = checkpoint
        self.task = task_of(recipe)
        self._recipe, self._seed, self._device = recipe, seed, device
        self._progress, self._cancelled = progress, cancelled
        self._begun = self._trained_from = time.monotonic()
        self._step = self._bad = self._resumed = 0
        self._share = 0.0
        self._losses: list[list[float]] = []

    def caching(self, number: int) -> None:
        """Called before each case is preprocessed."""
        self._stop_if_cancelled()
        if number % 10 == 0:
            self._tell()

    def run(
        self, cases: Sequence[Any], budget: Budget, start: Path | None, state: dict[str, Any] | None = None
    ) -> None:
        """Learn until the budget is used, from `start` or on from a saved state."""
        self._trained_from = time.monotonic()
        self._network = build(self._recipe)
        peak = self._recipe.fit.learning_rate
        if start:
            load_weights(self._network, start)
            peak *= _FROM_CHAMPION
        self._network.to(self._device).train()
        self._average = Average(self._network, self._recipe.fit.ema)
        self._optimiser = torch.optim.AdamW(self._network.parameters(), lr=peak, weight_decay=_WEIGHT_DECAY)
        self._scaler = torch.amp.GradScaler(self._device.type, enabled=self._device.type == "cuda")
        self._source = self.task.source(cases, self._seed)
        self._augment = Augment(self._recipe, torch.Generator().manual_seed(self._seed))
        if state:
            self._go_on(state)
        while True:
            self._stop_if_cancelled()
            self._share = budget.share(self._step, time.monotonic() - self._trained_from)
            if self._checkpoint and self._checkpoint.due(last=self._share >= 1):  # the last one for the measuring
                self._checkpoint.save(self._state)
            if self._share >= 1:
                return
            for group in self._optimiser.param_groups:
                group["lr"] = peak * peak_share(self._share)
            self._note(self._learn(self._source.next()))

    def _state(self) -> dict[str, Any]:
        """All that the next step depends on, for `_go_on`."""
        return {
            "network": self._network.state_dict(),
            "average": self._average.state(),
            "optimiser": self._optimiser.state_dict(),
            "scaler": self._scaler.state_dict(),
            "source": self._source.state(),
            "augment": self._augment.state(),
            "torch": torch.random.get_rng_state(),
            "cuda": torch.cuda.get_rng_state(self._device) if self._device.type == "cuda" else None,
            "books": {"step": self._step, "bad": self._bad, "losses": self._losses},
            "seconds": time.monotonic() - self._trained_from,
        }

    def _go_on(self, state: dict[str, Any]) -> None:
        self._network.load_state_dict(state["network"])
        self._average.go_on(state["average"])
        self._optimiser.load_state_dict(state["optimiser"])
        self._scaler.load_state_dict(state["scaler"])
        self._source.go_on(state["source"])
        self._augment.go_on(state["augment"])
        torch.random.set_rng_state(state["torch"])
        if state["cuda"] is not None:
            torch.cuda.set_rng_state(state["cuda"], self._device)
        books = state["books"]
        self._step, self._bad, self._losses = books["step"], books["bad"], books["losses"]
        self._trained_from = time.monotonic() - state["seconds"]
        self._resumed = self._step
        logger.info("the training of %s goes on at step %d", self._recipe.name, self._step)

    def _learn(self, batch: Any) -> float:
        """One step; its loss, NaN where the step was skipped."""
        self._optimiser.zero_grad(set_to_none=True)
        loss = self.task.loss(self._network, batch, self._augment, self._device)
        value = loss.item()
        if not math.isfinite(value):
            return math.nan
        self._scaler.scale(loss).backward()
        self._scaler.unscale_(self._optimiser)
        norm = nn.utils.clip_grad_norm_(self._network.parameters(), _CLIP)
        if self._device.type == "cpu" and not math.isfinite(float(norm)):
            return math.nan
        self._scaler.step(self._optimiser)
        self._scaler.update()
        self._average.update()
        return value

    def _note(self, loss: float) -> None:
        if self._step % self._recipe.fit.steps == 0:
            self._losses.append([])
        self._step += 1
        if math.isnan(loss):
            self._bad += 1
            if self._bad >= _MOST_BAD_STEPS:
                rate = self._recipe.fit.learning_rate
                msg = (
                    f"training of recipe {self._recipe.name!r} diverged: no finite loss in {self._bad} steps; "
                    f"lower fit.learning_rate (now {rate:g})"
                )
                raise RadloopError(msg)
        else:
            self._bad = 0
            self._losses[-1].append(loss)
        self._tell()

    def _tell(self) -> None:
        if not self._progress:
            return
        done = self._step / self._recipe.fit.steps
        self._progress(
            Progress(
                epoch=int(done),
                epochs=round(done / self._share) if self._share else 0,
                step=self._step,
                loss=_mean(self._losses[-1]) if self._losses else math.nan,
                seconds=time.monotonic() - self._begun,
                share=self._share,
            )
        )

    def _stop_if_cancelled(self) -> None:
        if self._cancelled():
            msg = f"training of recipe {self._recipe.name!r} was cancelled after {self._step} steps; nothing was saved"
            raise Cancelled(msg)

    def finish(self, path: Path) -> None:
        """Write the averaged weights."""
        self._average.store()
        save_weights(self._network, path, self.task.kept())
        self._seconds = time.monotonic() - self._trained_from

    def report(self, skipped: Sequence[tuple[str, str]], cases: Sequence[Ready]) -> FitReport:
        return FitReport(
            epochs=len(self._losses),
            steps=self._step,
            seconds=self._seconds,
            losses=tuple(_mean(losses) for losses in self._losses),
            skipped=tuple(skipped),
            used=tuple(sorted(prepared.case.row for prepared in cases)),
            resumed=self._resumed,
        )


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else math.nan


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """A block that runs torch with `count` CPU threads, and on CUDA the same way each time."""
    before, cudnn = torch.get_num_threads(), torch.backends.cudnn
    torch.set_num_threads(count)
    try:
        with cudnn.flags(enabled=cudnn.enabled, benchmark=False, deterministic=True):
            yield
    finally:
        torch.set_num_threads(before)
