"""From the labels in the ledger to a version that serves, or one that is kept with the reason why it does not."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import monai
import torch

from radloop.engine.assess import Score
from radloop.engine.calibrate import calibrate
from radloop.engine.fit import Cancelled, FitReport, Progress, fit
from radloop.engine.running import Run
from radloop.engine.verdict import HeldOut, Verdict, levels, opponents
from radloop.evaluation.gate_rule import Decision
from radloop.networks.topology import topology
from radloop.recipes.errors import BadInput, Conflict, RadloopError
from radloop.recipes.recipe import JSON_KINDS, STUDY_KINDS, Recipe
from radloop.registry.folders import WEIGHTS
from radloop.registry.lineage import made_by, tainted
from radloop.registry.registry import Overtaken, Registry
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
    scores: tuple[Score, ...]


@dataclass(frozen=True)
class _Sides:
    """What a training learns from, what its probabilities are scaled by, and what it is measured on."""

    train: list[Case]
    calibration: list[Case]
    held_out: HeldOut
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
    run: Run | None = None,
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
        run: which training of the ledger it is; says up to which label it learns, keeps a checkpoint, and goes on after
            a crash.

    Raises:
        Conflict: there is no label to train on, or the version was published and the gate's word not carried out.
        Cancelled: `cancelled` said so.
        BadInput: no label can be read, or the budget or fold is not usable.
        NoSpace: a disk is full.
    """
    registry, ledger = Registry(home), Ledger(home)
    champion = None if fold else registry.champion(recipe.name)
    last_row = run.last_row if run else ledger.last_row()  # what comes from now on is new to the next version
    sides = _sides(studies, ledger, recipe, only, fold, champion, last_row)
    started_from = _to_start_from(registry, ledger, champion, recipe)
    weights_of = None if started_from else _weights_of(registry, ledger, recipe)
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
            checkpoint=run.checkpoint if run else None,
        )
        temperature = calibrate(
            recipe, staged / WEIGHTS, sides.calibration, device, lambda: _stop_if(cancelled, recipe)
        )
        against = opponents(registry, recipe.name, champion, sides.held_out.now)
        verdict = Verdict(recipe, sides.train, sides.held_out, home.cache, device, lambda: _stop_if(cancelled, recipe))
        verdict.measure(staged / WEIGHTS, against, judged=fold is None)
        asked = {"epochs": epochs, "minutes": minutes, "fold": list(fold) if fold else None, "seed": seed}
        lineage = {
            "started_from": started_from.number if started_from else None,
            "weights_of": [weights_of.recipe, weights_of.number] if weights_of else None,
            "last_row": last_row,
            "training": run.id if run else None,
            "judged_against": champion.number if champion else None,
            "reference": _reference(recipe, champion, verdict.decision),
            "temperature": temperature,
        }
        manifest = _manifest(sides, report, verdict, asked | lineage)
        _stop_if(cancelled, recipe)
        version = registry.publish(recipe, staged, manifest)
    except BaseException:
        registry.discard(staged)
        raise
    settled = _settle(registry, version, verdict.decision, champion.number if champion else None)
    scores = tuple(score for score in verdict.scores if score.row in {case.row for case in sides.held_out.now})
    return TrainOutcome(settled, verdict.decision, report, scores)


def _sides(
    studies: StudiesFolder,
    ledger: Ledger,
    recipe: Recipe,
    only: Collection[str] | None,
    fold: tuple[int, int] | None,
    champion: Version | None,
    until: int,
) -> _Sides:
    """Cases to learn from and to measure on."""
    cases = labelled_cases(studies, ledger, recipe, SIDES, until=until)
    train = [case for case in cases if case.side == "train"]
    held_out = [case for case in cases if case.side == "validation"]
    calibration = held_out
    if fold:
        number, k = fold
        if not 1 <= number <= k:
            msg = f"fold {number}/{k} does not exist; give 1/{k} to {k}/{k}"
            raise BadInput(msg)
        places = Split(ledger).folds((case.patient for case in cases), k)
        train = [case for case in cases if places[case.patient] != number - 1]
        held_out = [case for case in cases if places[case.patient] == number - 1]
        if recipe.kind in JSON_KINDS:  # what a fold is measured on must not scale its probabilities
            calibration = [case for case in train if case.side == "validation"]
            train = [case for case in train if case.side != "validation"]
    if only is not None:
        train = [case for case in train if case.study in only]
    if not train:
        among = f" among the {len(only)} images given" if only is not None else ""
        msg = (
            f"recipe {recipe.name!r} has no label on the training side{among} ({len(cases)} labelled studies in all); "
            f"label a study of a training-side patient first{_where_answers_are(recipe)}"
        )
        raise Conflict(msg)
    patients = {"train": _patients(train), "validation" if not fold else "fold": _patients(held_out)}
    before = None
    if champion:
        then = labelled_cases(studies, ledger, recipe, SIDES, until=champion.last_row)
        before = [case for case in then if case.side == "validation"]
    return _Sides(train, calibration, HeldOut(held_out, before), patients)


def _where_answers_are(recipe: Recipe) -> str:
    if recipe.kind == "detection":
        return ", or put its boxes into labels/final as <id>.json"
    if recipe.kind not in STUDY_KINDS:
        return ""
    columns = recipe.label_names if recipe.kind == "multilabel" else (recipe.answer.column or recipe.name,)
    if recipe.kind == "risk":
        columns = (recipe.answer.event, recipe.answer.time)
    return f", or fill {', '.join(map(repr, columns))} in answers.csv"


def _to_start_from(registry: Registry, ledger: Ledger, champion: Version | None, recipe: Recipe) -> Version | None:
    """The champion, where its weights fit and nothing that it learned from was retracted since."""
    if champion is None or not _same_network(champion.load_recipe(), recipe):
        return None
    if champion.number in {version.number for version in tainted(registry, ledger, recipe.name)}:
        logger.info("%s version %d learned from labels retracted since; starting anew", recipe.name, champion.number)
        return None
    return champion


def _weights_of(registry: Registry, ledger: Ledger, recipe: Recipe) -> Version | None:
    """The version whose weights the recipe names, where it is one of ours.

    Raises:
        BadInput: it learned from held-out patients, or from labels that were retracted since.
    """
    file = Path(recipe.network.weights)
    version = made_by(registry, file) if recipe.network.weights and file.is_file() else None
    if version is None:
        return None
    why = "was trained on a fold, so it learned from held-out patients" if version.state == FOLD else ""
    if version.number in {one.number for one in tainted(registry, ledger, version.recipe)}:
        why = "learned from labels that were retracted since"
    if why:
        msg = (
            f"network.weights = {str(file)!r} is version {version.number} of {version.recipe}, which {why}; name others"
        )
        raise BadInput(msg)
    return version


def _reference(recipe: Recipe, champion: Version | None, decision: Decision | None) -> dict[str, int] | None:
    """Label -> the version whose level the next challengers must keep; this version itself where none is named.

    It sets the level where it was shown to be better, or was compared as a first model.
    """
    if champion is None or decision is None or decision.superior or decision.first:
        return None
    return {name: number for name, number in levels(champion).items() if name in recipe.labels}


def _settle(registry: Registry, version: Version, decision: Decision | None, over: int | None) -> Version:
    """Promote, reject or hold for a person, as the gate decided; a fold stays as it is.

    It is promoted only over the champion that it was judged against; after a rollback meanwhile it waits for a person.

    Raises:
        Conflict: that could not be written down; the message names the version.
    """
    if decision is None:
        return version
    logger.info("%s version %d: %s", version.recipe, version.number, decision.reason)
    try:
        if not decision.serves:
            return (registry.hold if decision.held else registry.reject)(version, decision.reason)
        try:
            return registry.promote(version, over)
        except Overtaken as error:
            return registry.hold(version, str(error))
    except RadloopError as error:
        msg = f"version {version.number} was published, but the gate's word could not be carried out: {error}"
        raise Conflict(msg) from error


def _manifest(sides: _Sides, report: FitReport, verdict: Verdict, asked: dict[str, Any]) -> dict[str, Any]:
    return {
        **asked,
        "labels": list(report.used),
        "held_out_labels": sorted(case.row for case in sides.held_out.every),
        "patients": sides.patients,
        "skipped": [{"study": study, "reason": reason} for study, reason in (*report.skipped, *verdict.skipped)],
        "epochs_done": report.epochs,
        "steps": report.steps,
        "losses": [None if math.isnan(loss) else loss for loss in report.losses],  # an epoch of skipped steps has none
        "seconds": {"fit": report.seconds, "measure": verdict.seconds},
        **verdict.shown(),
        "gate": verdict.gate(),
        "state": CHALLENGER if verdict.decision else FOLD,
        "torch": str(torch.__version__),
        "monai": str(monai.__version__),
    }


def _same_network(one: Recipe, other: Recipe) -> bool:
    """Whether weights of one recipe mean the same in the other."""
    same = ("dimension", "channels", "optional", "labels", "preprocess", "kind", "answer")
    return (
        all(getattr(one, field) == getattr(other, field) for field in same)
        and one.network.name == other.network.name
        and one.network.deep_supervision == other.network.deep_supervision
        and topology(one) == topology(other)
        and (one.kind not in JSON_KINDS or one.fit.patch == other.fit.patch)
    )


def _patients(cases: Sequence[Case]) -> list[str]:
    return sorted({case.patient for case in cases})


def _stop_if(cancelled: Callable[[], bool], recipe: Recipe) -> None:
    if cancelled():
        msg = f"training of recipe {recipe.name!r} was cancelled; nothing was published"
        raise Cancelled(msg)
