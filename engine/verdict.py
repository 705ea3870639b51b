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

from radloop.engine.assess import Score, assess, label_scores, patient_scores
from radloop.engine.baseline import baseline_cases
from radloop.engine.predictor import predictor_of
from radloop.engine.risk_predictor import RiskPredictor
from radloop.evaluation.gate_rule import FULL, Decision, Level, judge, reconcile
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
        references: versions that the champion's line was last shown better at, each with the labels it was shown for;
            none where that is the champion.
        looks: full judgements so far on some of the same patients.
        proven: labels on which the champion was shown to beat the trivial method.
    """

    champion: Version | None = None
    references: tuple[tuple[Version, tuple[str, ...]], ...] = ()
    looks: int = 0
    proven: tuple[str, ...] = ()


def opponents(registry: Registry, recipe: str, champion: Version | None, cases: Sequence[Case]) -> Opponents:
    """The opponents of a challenger on these held-out cases."""
    looks = _looks(registry, recipe, cases, first=champion is None)
    if champion is None:
        return Opponents(looks=looks)
    return Opponents(champion, _references(registry, champion), looks, _proven(champion))


def levels(version: Version) -> dict[str, int]:
    """Label -> number of the version that set its level: the last one shown to be better, else the first to have it."""
    set_by = version.manifest.get("reference")
    names = version.load_recipe().label_names
    if isinstance(set_by, dict):
        return {name: int(set_by.get(name) or version.number) for name in names}
    return dict.fromkeys(names, int(set_by or version.number))


def _references(registry: Registry, champion: Version) -> tuple[tuple[Version, tuple[str, ...]], ...]:
    by_number: dict[int, list[str]] = {}
    for name, number in levels(champion).items():
        by_number.setdefault(number, []).append(name)
    found = []
    for number in sorted(by_number.keys() - {champion.number}):
        try:
            version = registry.version(champion.recipe, number)
            verify(version)
        except RadloopError as error:
            logger.warning("%s version %s is no reference any more: %s", champion.recipe, number, error)
            continue
        found.append((version, tuple(by_number[number])))
    return tuple(found)


def _proven(champion: Version) -> tuple[str, ...]:
    """What the gate said when it was judged; of versions that served against its word, nothing."""
    gate = champion.manifest.get("gate") or {}
    if "proven" in gate:
        return tuple(gate["proven"])
    full = gate.get("serves") and not gate.get("provisional")  # of an older release
    return champion.load_recipe().label_names if full else ()


def _looks(registry: Registry, recipe: str, cases: Sequence[Case], *, first: bool) -> int:
    """How many versions were fully judged on some of these patients, as first models or against a champion."""
    patients = {case.patient for case in cases}

    def counts(manifest: Mapping[str, Any]) -> bool:
        full = (manifest.get("gate") or {}).get("n", 0) >= FULL and (manifest.get("champion") is None) == first
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
    scores: list[Score] = field(default_factory=list)
    champion: list[Score] | None = None
    references: list[list[Score]] = field(default_factory=list)
    baseline: list[Score] = field(default_factory=list)
    skipped: list[tuple[str, str]] = field(default_factory=list)
    decision: Decision | None = None
    without: Decision | None = None
    seconds: float = 0.0

    def measure(self, weights: Path, against: Opponents, *, judged: bool) -> None:
        """Score the challenger and its opponents on the same cases, then ask the gate."""
        begun = time.monotonic()
        self.scores = self._assess(predictor_of(self.recipe, weights, self.device))
        self.champion = None if against.champion is None else self._version(against.champion)
        self.references = [self._version(version) for version, _ in against.references]
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
        cases = blind_first(self.held_out.now)
        now = self._ask(cases, against)
        self.decision = now
        if self.held_out.before is not None and self.held_out.new:
            before = self.held_out.before
            if len(cases) < len(self.held_out.now):  # blind labels decide: anchored ones would lean to the champion
                before = [case for case in before if case.blind]
            self.without = self._ask(blind_first(before), against)
            authors = sorted({case.author for case in self.held_out.new if case.author})
            self.decision = reconcile(now, self.without, authors)

    def _ask(self, cases: Sequence[Case], against: Opponents) -> Decision:
        rows = {case.row for case in cases}

        def mean(scores: list[Score]) -> dict[str, float]:
            return patient_scores(_of(scores, rows))

        def by_label(scores: list[Score]) -> dict[str, dict[str, float]]:
            return label_scores(_of(scores, rows))

        def level(scores: list[Score], names: Sequence[str]) -> Level:
            return Level(mean(scores), {name: of for name, of in by_label(scores).items() if name in names})

        names, champion = self.recipe.label_names, against.champion
        pairs = zip(self.references, against.references, strict=True)
        return judge(
            mean(self.scores),
            None if self.champion is None else mean(self.champion),
            mean(self.baseline),
            self.recipe.gate.margin,
            challenger_labels=by_label(self.scores),
            champion_labels=by_label(self.champion or []),
            baseline_labels=by_label(self.baseline),
            label_margins=self.recipe.gate.label_margins,
            references=[level(scores, shown) for scores, (_, shown) in pairs],
            looks=against.looks,
            names=names,
            shared=champion is not None and not set(names).isdisjoint(champion.load_recipe().label_names),
            proven=against.proven,
            unanswered=len(self._unanswered() & rows),
        )

    def _unanswered(self) -> set[int]:
        """Held-out labels that the champion or the trivial method can be measured on, and the challenger cannot."""
        others = {score.row for score in (*(self.champion or ()), *self.baseline)}
        return others - {score.row for score in self.scores}

    def _version(self, version: Version) -> list[Score]:
        predictor = predictor_of(version.load_recipe(), version.weights, self.device)
        if isinstance(predictor, RiskPredictor) and self.recipe.kind == "risk":
            predictor.ask(self.recipe)  # both at the same times, or they could not be compared
        return self._assess(predictor)

    def _assess(self, predictor: Any) -> list[Score]:
        found = assess(predictor, self.held_out.every, lambda _: self.stop(), surfaces=False)
        self.skipped += [skip for skip in found.skipped if skip not in self.skipped]
        return list(found.scores)


def _of(scores: Sequence[Score], rows: Collection[int]) -> list[Score]:
    return [score for score in scores if score.row in rows]
