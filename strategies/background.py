"""Scores and embeddings of studies, computed in a thread of the server while no reader waits, one study after another.

What is done is on disk (`ScoreCache`), so a restart goes on where it stopped. Studies come in an order that has nothing
to do with them, so that those scored so far are a fair sample.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
import zlib
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from radloop.engine.predictor import PredictorCache
from radloop.engine.turns import Turns
from radloop.recipes.errors import RadloopError
from radloop.recipes.recipe import Recipe
from radloop.recipes.volume import Volume
from radloop.strategies.choose import Candidate
from radloop.strategies.embedding import image_embedding
from radloop.strategies.score_cache import Kept, ScoreCache, stamp_of
from radloop.strategies.scores import LOOKS, Score, score_study
from radloop.strategies.study_input import StudyInput
from radloop.studies.folder import Study
from radloop.studies.images import read_study
from radloop.studies.pool import Known, Pool

if TYPE_CHECKING:
    from radloop.registry.version import Version

logger = logging.getLogger(__name__)
LOOK_EVERY = 5.0
MUTUAL = "mutual_information"
Result = TypeVar("Result")


@dataclass
class _Of:
    """What is known of a recipe's studies by the version that serves."""

    version: int | None = None
    scores: dict[str, Kept] = field(default_factory=dict)
    embeddings: dict[str, tuple[str, np.ndarray | None]] = field(default_factory=dict)
    candidates: dict[str, Candidate] = field(default_factory=dict)
    pending: deque[str] = field(default_factory=deque)
    stamps: dict[str, str] = field(default_factory=dict)
    planned: tuple[Known, frozenset[str]] | None = None


class Scoring:
    """Scores of the versions that serve.

    Args:
        pool: the studies.
        cache: where results are kept.
        recipes: those served.
        champion: the version of a recipe that served a moment ago, without waiting.
        inputs: a study's images and what a predictor needs beside them.
        turns: when readers' answers are computed.
    """

    def __init__(
        self,
        pool: Pool,
        cache: ScoreCache,
        recipes: Sequence[Recipe],
        champion: Callable[[str], Version | None],
        inputs: StudyInput,
        turns: Turns,
    ) -> None:
        self._pool, self._cache, self._champion = pool, cache, champion
        self._recipes, self._inputs, self._turns = {r.name: r for r in recipes}, inputs, turns
        self._of: dict[str, _Of] = {}
        self._predictors = PredictorCache(size=1)  # not the server's: dropout would show in readers' answers
        self._wanted, self._lock, self._wake = set[str](), threading.RLock(), threading.Event()
        self._complained = ""

    # -- for whoever chooses

    def candidates(self, recipe: str, known: Known) -> tuple[int | None, Mapping[str, Candidate]]:
        """The version that serves, and the studies as strategies see them; one that is new may be missing."""
        with self._lock:
            of = self._at(self._recipes[recipe], known)
            return of.version, of.candidates

    def progress(self, recipe: str) -> tuple[int | None, int]:
        """The version that is scored, and how many studies have a score."""
        with self._lock:
            of = self._of.get(recipe, _Of())
            return of.version, sum(kept.score is not None for kept in of.scores.values())

    def want(self, needs: Collection[str]) -> None:
        """From now on compute this too, where it costs more than the rest."""
        if MUTUAL in needs and MUTUAL not in self._wanted:
            self._wanted.add(MUTUAL)
            self._wake.set()

    # -- the thread

    def start(self, *others: Callable[[], bool]) -> None:
        """Computes from now on, as long as the process lives.

        Args:
            others: what else the thread does, in turn; each does a little and gives False where nothing is left.
        """
        steps = (self.step, *others)
        threading.Thread(target=self._run, args=(steps,), name="radloop-scoring", daemon=True).start()

    def _run(self, steps: Sequence[Callable[[], bool]]) -> None:
        while True:
            self._wake.clear()
            if not any([self._tried(step) for step in steps]):
                self._wake.wait(LOOK_EVERY)

    def _tried(self, step: Callable[[], bool]) -> bool:
        try:
            return step()
        except Exception as error:  # a study or a full disk must not end it for ever
            if repr(error) != self._complained:
                self._complained = repr(error)
                expected = isinstance(error, RadloopError | sqlite3.Error)
                logger.warning("scoring waits: %s", error, exc_info=None if expected else error)
            return False

    def step(self) -> bool:
        """Computes what is missing of one study; False where nothing is. Never in two threads at once."""
        for recipe in self._recipes.values():
            known = self._pool.look()
            with self._lock:
                of = self._at(recipe, known)
            self._plan(recipe, of, known)
            while of.pending:
                study = known.studies.get(of.pending.popleft())
                if study and self._missing(recipe, of, study.id, known):
                    self._turns.give_way()
                    self._compute(recipe, of, study, known)
                    return True
        return False

    def _at(self, recipe: Recipe, known: Known) -> _Of:
        """What is known of a recipe, by the version that serves now."""
        version = self._champion(recipe.name)
        number = version.number if version else None
        of = self._of.get(recipe.name)
        if of is None or of.version != number:
            embeddings = of.embeddings if of else self._cache.embeddings(recipe)
            scores = self._cache.scores(recipe.name, number) if number is not None else {}
            of = self._of[recipe.name] = _Of(number, scores, embeddings)
            of.candidates = {i: _candidate(study, of) for i, study in known.studies.items()}
        return of

    def _plan(self, recipe: Recipe, of: _Of, known: Known) -> None:
        """Lists what is missing, where studies or wishes changed or all that was listed is done."""
        wanted = frozenset(self._wanted)
        before, wished = of.planned or (None, wanted)
        same = before is not None and before.studies is known.studies and before.sides is known.sides
        if same and wished == wanted and (of.pending or before is known):
            return
        if not same:
            of.stamps = {i: stamp_of(known.studies[i]) for i in known.learned_from}
        with self._lock:
            self._tidy(of, known)
        labelled = known.labelled.get(recipe.name, frozenset())
        missing = [i for i in of.stamps if self._missing(recipe, of, i, known)]
        of.pending = deque(sorted(missing, key=lambda i: (i not in labelled, zlib.crc32(i.encode()), i)))
        of.planned = (known, wanted)

    def _tidy(self, of: _Of, known: Known) -> None:
        """Drops what is known of studies that are gone, or whose images or patient are others by now."""
        for study in known.studies.keys() | of.candidates.keys():
            if study not in known.studies or _stale(study, of):
                of.scores.pop(study, None)
                of.embeddings.pop(study, None)
                of.candidates.pop(study, None)
        for one in known.studies.values():
            if one.id not in of.candidates or of.candidates[one.id].patient != one.patient:
                of.candidates[one.id] = _candidate(one, of)

    def _missing(self, recipe: Recipe, of: _Of, study: str, known: Known) -> bool:
        labelled = study in known.labelled.get(recipe.name, ())
        return study not in of.embeddings or (not labelled and self._lacks(of, study))

    def _lacks(self, of: _Of, study: str) -> bool:
        """Whether a study has no score by the version that serves, or not all that is wanted."""
        if of.version is None:
            return False
        kept = of.scores.get(study)
        return kept is None or (kept.score is not None and MUTUAL in self._wanted and not kept.looks)

    def _compute(self, recipe: Recipe, of: _Of, study: Study, known: Known) -> None:
        """Embeds and scores a study, and keeps both; what cannot be read is kept as that and not tried again."""
        stamp = of.stamps[study.id]
        if study.id not in of.embeddings:
            vector = _tried(study, lambda: image_embedding(recipe, _read(recipe, study)))
            self._cache.keep_embedding(recipe, study.id, stamp, vector)
            of.embeddings[study.id] = (stamp, vector)
        version = self._champion(recipe.name)
        labelled = study.id in known.labelled.get(recipe.name, ())
        if version and version.number == of.version and not labelled and self._lacks(of, study.id):
            looks = LOOKS if MUTUAL in self._wanted else 0
            kept = Kept(stamp, looks, _tried(study, lambda: self._score(version, study, looks)))
            self._cache.keep_score(recipe.name, version.number, study.id, kept)
            of.scores[study.id] = kept
        with self._lock:
            of.candidates[study.id] = _candidate(study, of)

    def _score(self, version: Version, study: Study, looks: int) -> Score:
        predictor = self._predictors.get(version)
        found = [
            score_study(predictor, each.volume, **each.beside, looks=looks, give_way=self._turns.give_way)
            for each in self._inputs.of(predictor.recipe, study)
        ]
        return max(found, key=lambda score: score.scores["entropy"])  # of several lesions the most doubtful


def _tried(study: Study, compute: Callable[[], Result]) -> Result | None:
    try:
        return compute()
    except RadloopError as error:
        logger.info("%s has no score: %s", study.id, error)
        return None


def _read(recipe: Recipe, study: Study) -> Volume:
    return read_study(study.first_channels(len(recipe.channels)), recipe.may_lack)


def _stale(study: str, of: _Of) -> bool:
    """Whether the images are others than those that were looked at."""
    kept, (stamp, _) = of.scores.get(study), of.embeddings.get(study, ("", None))
    now = of.stamps.get(study, "")
    return bool(now) and any(was not in ("", now) for was in (stamp, kept.stamp if kept else ""))


def _candidate(study: Study, of: _Of) -> Candidate:
    kept, (_, vector) = of.scores.get(study.id), of.embeddings.get(study.id, ("", None))
    score = kept.score if kept else None
    plain = Candidate(study.id, study.patient, embedding=vector)
    return replace(plain, scores=score.scores, classes=score.classes) if score else plain
