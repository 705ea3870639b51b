"""What the gate is given: a challenger and those it must not fall behind, measured on the same held-out cases.

It is measured twice, with every held-out label and without the new ones: a reader who labels the wrong organ on both
sides would otherwise make the champion look bad and the challenger good (docs/gate.md).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from radloop.engine.assess import CaseScore, assess, label_scores, patient_scores
from radloop.engine.baseline import baseline_cases
from radloop.engine.predictor import Predictor
from radloop.evaluation.gate_rule import FULL, Decision, judge, reconcile
from radloop.recipes.errors import RadloopError
from radloop.recipes.recipe import Recipe
from radloop.registry.registry import Registry
from radloop.registry.version import Version, verify
from radloop.studies.cases import Case

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class HeldOut:
    """Held-out cases as they are now, and as they were for the champion.

    Attributes:
        now: every one, with its label of now.
        before: those that had a label when the champion was trained, with the label of then; None where there is no
            champion, or it was trained on a fold.
    """

    now: list[Case]
    before: list[Case] | None = None

    @property
    def every(self) -> list[Case]:
        """Both, each label once."""
        rows = {case.row: case for case in (*self.now, *(self.before or ()))}
        return [rows[row] for row in sorted(rows)]

    @property
    def new(self) -> list[Case]:
        """Those whose label the champion was not judged on."""
        known = {case.row for case in self.before or ()}
        return [case for case in self.now if case.row not in known]


@dataclass(frozen=True)
class Opponents:
    """Those that a challenger is compared with.

    Attributes:
        champion: the version that serves, or None.
        reference: the version that the champion's line was last shown better at; None where that is the champion.
        looks: full judgements so far on some of the same patients.
        proven: whether the champion passed a full judgement.
    """

    champion: Version | None = None
    reference: Version | None = None
    looks: int = 0
    proven: bool = True


def opponents(registry: Registry, recipe: str, champion: Version | None, cases: Sequence[Case]) -> Opponents:
    """The opponents of a challenger on these held-out cases."""
    if champion is None:
        return Opponents()
    gate = champion.manifest.get("gate") or {}
    proven = not gate.get("provisional", False)
    return Opponents(champion, _reference(registry, champion), _looks(registry, recipe, cases), proven)


def _reference(registry: Registry, champion: Version) -> Version | None:
    number = champion.manifest.get("reference")
    if number in (None, champion.number):
        return None
    try:
        version = registry.version(champion.recipe, int(number))
        verify(version)
    except RadloopError as error:
        logger.warning("%s version %s is no reference any more: %s", champion.recipe, number, error)
        return None
    return version


def _looks(registry: Registry, recipe: str, cases: Sequence[Case]) -> int:
    """How many versions were fully judged against a champion on some of these patients."""
    patients = {case.patient for case in cases}

    def counts(manifest: Mapping[str, Any]) -> bool:
        full = (manifest.get("gate") or {}).get("n", 0) >= FULL and manifest.get("champion") is not None
        return full and not patients.isdisjoint(manifest.get("held_out") or ())

    return sum(counts(version.manifest) for version in registry.versions(recipe))


def blind_first(cases: Sequence[Case]) -> list[Case]:
    """The cases labelled blind where these are of six patients or more, else all.

    A label made by correcting the champion's answer leans towards the champion.
    """
    blind = [case for case in cases if case.blind]
    return blind if len({case.patient for case in blind}) >= FULL else list(cases)


@dataclass
class Verdict:
    """The measurements of a challenger and what the gate makes of them.

    Args:
        recipe: the question as it is now.
        train: what the challenger learned from, for the trivial method.
        held_out: what it is measured on.
        cache: for preprocessed cases.
        device: `cpu` or `cuda`.
        stop: called before each case; may raise.
    """

    recipe: Recipe
    train: Sequence[Case]
    held_out: HeldOut
    cache: Path
    device: str | torch.device | None = None
    stop: Callable[[], None] = lambda: None
    scores: list[CaseScore] = field(default_factory=list)
    champion: list[CaseScore] | None = None
    reference: list[CaseScore] | None = None
    baseline: list[CaseScore] = field(default_factory=list)
    skipped: list[tuple[str, str]] = field(default_factory=list)
    decision: Decision | None = None
    without: Decision | None = None
    seconds: float = 0.0

    def measure(self, weights: Path, against: Opponents, *, judged: bool) -> None:
        """Score the challenger and its opponents on the same cases, then ask the gate."""
        begun = time.monotonic()
        self.scores = self._assess(Predictor(self.recipe, weights, self.device))
        self.champion, self.reference = self._version(against.champion), self._version(against.reference)
        self.baseline = baseline_cases(self.recipe, self.train, self.held_out.every, self.cache)
        if judged:
            self._judge(against)
        self.seconds = time.monotonic() - begun

    def shown(self) -> dict[str, Any]:
        """The scores for the manifest: patient -> mean Dice, on every held-out label of now."""
        rows = {case.row for case in self.held_out.now}
        lists = {"held_out": self.scores, "champion": self.champion, "baseline": self.baseline}
        return {name: None if of is None else patient_scores(_of(of, rows)) for name, of in lists.items()}

    def gate(self) -> dict[str, Any]:
        """The decision for the manifest, with the scores of every label that each judgement stood on."""
        if self.decision is None:
            return {}
        told = self.decision.as_dict()
        if self.without is not None:
            told |= {"without": self.without.as_dict(), "new_rows": sorted(case.row for case in self.held_out.new)}
        return told

    def _judge(self, against: Opponents) -> None:
        now = self._ask(blind_first(self.held_out.now), against)
        self.decision = now
        if self.held_out.before is not None and self.held_out.new:
            self.without = self._ask(blind_first(self.held_out.before), against)
            authors = sorted({case.author for case in self.held_out.new if case.author})
            self.decision = reconcile(now, self.without, authors)

    def _ask(self, cases: Sequence[Case], against: Opponents) -> Decision:
        rows = {case.row for case in cases}

        def of(scores: list[CaseScore] | None) -> list[CaseScore] | None:
            return None if scores is None else _of(scores, rows)

        champion, reference = of(self.champion), of(self.reference)
        baseline = _of(self.baseline, rows)
        return judge(
            patient_scores(_of(self.scores, rows)),
            None if champion is None else patient_scores(champion),
            patient_scores(baseline),
            self.recipe.gate.margin,
            challenger_labels=label_scores(_of(self.scores, rows)),
            champion_labels=label_scores(champion or []),
            baseline_labels=label_scores(baseline),
            label_margins=self.recipe.gate.label_margins,
            reference=None if reference is None else patient_scores(reference),
            reference_labels=label_scores(reference or []),
            looks=against.looks,
            proven=against.proven,
        )

    def _version(self, version: Version | None) -> list[CaseScore] | None:
        if version is None:
            return None
        return self._assess(Predictor(version.load_recipe(), version.weights, self.device))

    def _assess(self, predictor: Predictor) -> list[CaseScore]:
        found = assess(predictor, self.held_out.every, lambda _: self.stop(), surfaces=False)
        self.skipped += [skip for skip in found.skipped if skip not in self.skipped]
        return list(found.scores)


def _of(scores: Sequence[CaseScore], rows: Collection[int]) -> list[CaseScore]:
    return [score for score in scores if score.row in rows]
