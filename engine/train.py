"""From the labels in the ledger to a version that serves, or one that is kept with the reason why it does not."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import monai
import torch

from radloop.engine.assess import CaseScore, assess, label_scores, patient_scores
from radloop.engine.baseline import baseline_scores
from radloop.engine.fit import Cancelled, FitReport, Progress, fit
from radloop.engine.predictor import Predictor
from radloop.evaluation.gate_rule import Decision, judge
from radloop.networks.topology import topology
from radloop.recipes.errors import BadInput, Conflict
from radloop.recipes.recipe import Recipe
from radloop.registry.registry import Registry
from radloop.registry.version import CHALLENGER, FOLD, Version
from radloop.studies.cases import Case, labelled_cases
from radloop.studies.folder import StudiesFolder
from radloop.studies.home import Home
from radloop.studies.ledger import Ledger
from radloop.studies.split import SIDES, Split

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainOutcome:
    """What came of a training.

    Attributes:
        version: the published version, with its state of now.
        decision: the gate's; None for a fold, which is never judged.
        report: of the training itself.
        scores: of the version on its held-out cases.
    """

    version: Version
    decision: Decision | None
    report: FitReport
    scores: tuple[CaseScore, ...]


@dataclass(frozen=True)
class _Sides:
    """What a training learns from and what it is measured on."""

    train: list[Case]
    held_out: list[Case]
    patients: dict[str, list[str]]


def train_version(
    studies: StudiesFolder,
    home: Home,
    recipe: Recipe,
    *,
    epochs: int | None = None,
    minutes: float | None = None,
    only: Collection[str] | None = None,
    fold: tuple[int, int] | None = None,
    seed: int = 0,
    threads: int | None = None,
    device: str | torch.device | None = None,
    progress: Callable[[Progress], None] | None = None,
    cancelled: Callable[[], bool] = lambda: False,
) -> TrainOutcome:
    """Train a challenger from the champion, measure both on the same validation cases, and let the gate decide.

    Args:
        studies: the folder.
        home: where ledger, registry and cache are.
        recipe: the question.
        epochs: budget in epochs; give at most one of both, neither takes the recipe's.
        minutes: budget of the training in minutes, without preprocessing and without the measuring afterwards.
        only: learn from these study ids alone, as far as they are on the training side.
        fold: (i, k) trains on all labelled patients but those of fold i of k, i = 1..k, and measures on those; starts
            from nothing and never serves.
        seed: of weights, patches and augmentation.
        threads: CPU threads; all cores by default.
        device: `cpu` or `cuda`.
        progress: called after every step.
        cancelled: asked before every case and step; once true, nothing is published.

    Raises:
        Conflict: there is no label to train on.
        Cancelled: `cancelled` said so.
        BadInput: no label can be read, or the budget or fold is not usable.
        NoSpace: a disk is full.
    """
    registry, sides = Registry(home), _sides(studies, Ledger(home), recipe, only, fold)
    champion = None if fold else registry.champion(recipe.name)
    started_from = champion if champion and _same_network(champion.load_recipe(), recipe) else None
    staged = registry.stage(recipe)
    try:
        report = fit(
            recipe,
            sides.train,
            staged,
            cache=home.cache,
            epochs=epochs,
            minutes=minutes,
            start=started_from.weights if started_from else None,
            seed=seed,
            threads=threads,
            device=device,
            progress=progress,
            cancelled=cancelled,
        )
        verdict = _Verdict(recipe, sides, home.cache, device, cancelled)
        verdict.measure(staged, champion, judged=fold is None)
        asked = {"epochs": epochs, "minutes": minutes, "fold": list(fold) if fold else None, "seed": seed}
        lineage = {"started_from": started_from.number if started_from else None}
        manifest = _manifest(sides, report, verdict, asked | lineage)
        _stop_if(cancelled, recipe)
        version = registry.publish(recipe, staged, manifest)
    except BaseException:
        registry.discard(staged)
        raise
    settled = _settle(registry, version, verdict.decision, champion.number if champion else None)
    return TrainOutcome(settled, verdict.decision, report, tuple(verdict.scores))


def _sides(
    studies: StudiesFolder,
    ledger: Ledger,
    recipe: Recipe,
    only: Collection[str] | None,
    fold: tuple[int, int] | None,
) -> _Sides:
    """Cases to learn from and to measure on."""
    cases = labelled_cases(studies, ledger, recipe, SIDES)
    train = [case for case in cases if case.side == "train"]
    held_out = [case for case in cases if case.side == "validation"]
    if fold:
        number, k = fold
        if not 1 <= number <= k:
            msg = f"fold {number}/{k} does not exist; give 1/{k} to {k}/{k}"
            raise BadInput(msg)
        places = Split(ledger).folds((case.patient for case in cases), k)
        train = [case for case in cases if places[case.patient] != number - 1]
        held_out = [case for case in cases if places[case.patient] == number - 1]
    if only is not None:
        train = [case for case in train if case.study in only]
    if not train:
        among = f" among the {len(only)} images given" if only is not None else ""
        msg = (
            f"recipe {recipe.name!r} has no label on the training side{among} ({len(cases)} labelled studies in all); "
            f"label a study of a training-side patient first"
        )
        raise Conflict(msg)
    patients = {"train": _patients(train), "validation" if not fold else "fold": _patients(held_out)}
    return _Sides(train, held_out, patients)


class _Verdict:
    """The measurements of a challenger and what the gate makes of them."""

    def __init__(
        self,
        recipe: Recipe,
        sides: _Sides,
        cache: Path,
        device: str | torch.device | None,
        cancelled: Callable[[], bool],
    ) -> None:
        self._recipe, self._sides, self._cache = recipe, sides, cache
        self._device, self._cancelled = device, cancelled
        self.scores: list[CaseScore] = []
        self.held_out: dict[str, float] = {}
        self.champion: dict[str, float] | None = None
        self.baseline: dict[str, float] = {}
        self.skipped: list[tuple[str, str]] = []
        self.decision: Decision | None = None
        self.seconds = 0.0

    def measure(self, staged: Path, champion: Version | None, *, judged: bool) -> None:
        """Score the staged version, and the champion on the same cases, then ask the gate."""
        begun = time.monotonic()
        self.scores = self._assess(Predictor(self._recipe, staged / "model.pt", self._device))
        self.held_out = patient_scores(self.scores)
        theirs: list[CaseScore] = []
        if champion:
            theirs = self._assess(Predictor(champion.load_recipe(), champion.weights, self._device))
            self.champion = patient_scores(theirs)
        self.baseline = baseline_scores(self._recipe, self._sides.train, self._sides.held_out, self._cache)
        if judged:
            self.decision = judge(
                self.held_out,
                self.champion,
                self.baseline,
                self._recipe.gate.margin,
                challenger_labels=label_scores(self.scores),
                champion_labels=label_scores(theirs),
            )
        self.seconds = time.monotonic() - begun

    def _assess(self, predictor: Predictor) -> list[CaseScore]:
        found = assess(
            predictor, self._sides.held_out, lambda _: _stop_if(self._cancelled, self._recipe), surfaces=False
        )
        self.skipped += [skip for skip in found.skipped if skip not in self.skipped]
        return list(found.scores)


def _settle(registry: Registry, version: Version, decision: Decision | None, over: int | None) -> Version:
    """Promote or reject, as the gate decided; a fold and a version that waits for a person stay as they are.

    It is promoted only over the champion that it was judged against; after a rollback meanwhile it waits for a person.
    """
    if decision is None:
        return version
    logger.info("%s version %d: %s", version.recipe, version.number, decision.reason)
    if decision.serves:
        try:
            return registry.promote(version, over)
        except Conflict as error:
            logger.warning("%s version %d waits for a person: %s", version.recipe, version.number, error)
            return version
    return version if decision.held else registry.reject(version, decision.reason)


def _manifest(sides: _Sides, report: FitReport, verdict: _Verdict, asked: dict[str, Any]) -> dict[str, Any]:
    held_out = {case.row for case in sides.held_out}
    return {
        **asked,
        "labels": list(report.used),
        "held_out_labels": sorted(held_out),
        "patients": sides.patients,
        "skipped": [{"study": study, "reason": reason} for study, reason in (*report.skipped, *verdict.skipped)],
        "epochs_done": report.epochs,
        "steps": report.steps,
        "losses": list(report.losses),
        "seconds": {"fit": report.seconds, "measure": verdict.seconds},
        "held_out": verdict.held_out,
        "champion": verdict.champion,
        "baseline": verdict.baseline,
        "gate": verdict.decision.as_dict() if verdict.decision else {},
        "state": CHALLENGER if verdict.decision else FOLD,
        "torch": str(torch.__version__),
        "monai": str(monai.__version__),
    }


def _same_network(one: Recipe, other: Recipe) -> bool:
    """Whether weights of one recipe mean the same in the other."""
    same = ("dimension", "channels", "labels", "preprocess")
    return (
        all(getattr(one, field) == getattr(other, field) for field in same)
        and one.network.name == other.network.name
        and topology(one) == topology(other)
    )


def _patients(cases: Sequence[Case]) -> list[str]:
    return sorted({case.patient for case in cases})


def _stop_if(cancelled: Callable[[], bool], recipe: Recipe) -> None:
    if cancelled():
        msg = f"training of recipe {recipe.name!r} was cancelled; nothing was published"
        raise Cancelled(msg)
