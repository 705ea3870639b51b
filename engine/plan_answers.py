"""A recipe for an answer in words, planned: the finest voxels at which the network sees the whole study in time.

A mask's network slides over a study; a classifier is given one cut of it (`fit.patch`). So the patch must hold the
study, and where that is too much for the machine voxels become coarser. Pictures that do not say how large a pixel is
are fitted into a size instead.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from pydantic import ValidationError

from radloop.engine import plan_rules as rules
from radloop.engine.plan_answer_words import answer_heading, answer_tables
from radloop.engine.plan_search import RESERVE
from radloop.engine.plan_text import toml_text
from radloop.engine.speed import Machine, MiniRun, NetworkSpeed, PathSeconds, TrainingCost
from radloop.networks.topology import topology
from radloop.recipes.errors import BadInput
from radloop.recipes.recipe import Answer, Fit, Network, Preprocess, Recipe
from radloop.studies.answer_look import AnswerLook
from radloop.studies.fingerprint import Fingerprint

COVERED = 95.0  # percent of the studies that the patch holds whole, along each axis
_MOST_VOXELS = {("cpu", 3): 64**3, ("cuda", 3): 128**3, ("cpu", 2): 256**2, ("cuda", 2): 512**2}
_BATCHES = (16, 8, 4)
_STEP_SECONDS = 4.0
_MEMORY_SHARE = 0.5
_LIBRARIES = 900 << 20
_COARSER = 2 ** (1 / 6)
_MOST_STEPS = 30  # 32 times coarser
_EDGES = (512, 448, 384, 320, 256, 224, 192, 160, 128, 96, 64, 48, 32)
_MINUTES, _STEPS = {"cpu": 20.0, "cuda": 30.0}, {"cpu": 50, "cuda": 250}


@dataclass(frozen=True)
class AnswerPlan:
    """A recipe and the figures behind it.

    Attributes:
        recipe: what was found.
        full: voxel size in mm that the studies have, or nothing where pictures do not say it.
        budget: seconds that an answer may take.
        path: reading and resampling the largest study.
        network: seconds of the network, all mirrorings together.
        memory: bytes at the peak of an answer.
        training: what a study takes in training.
        machine: where.
    """

    recipe: Recipe
    full: tuple[float, ...]
    budget: float
    path: PathSeconds
    network: float
    memory: float
    training: TrainingCost
    machine: Machine

    @property
    def seconds(self) -> float:
        """Seconds from the click to the answer."""
        return self.path.total + self.network


class AnswerPlanner:
    """Plans.

    Args:
        seen: the fingerprint of the studies.
        look: what their answers are.
        budget: seconds that an answer may take.
        machine: where.
        progress: called with a line that says what is being measured.
    """

    def __init__(
        self, seen: Fingerprint, look: AnswerLook, budget: float, machine: Machine, progress: Callable[[str], None]
    ) -> None:
        self._seen, self._look, self._budget, self._machine = seen, look, budget, machine
        self._speed = NetworkSpeed(machine, progress)
        largest = seen.largest
        self._shape = tuple(int(n) for n in seen.shapes[largest])
        spacing = tuple(float(mm) for mm in seen.spacings[largest])
        self._mini = MiniRun(self._shape, spacing, seen.channels, machine)

    def text(self, name: str, folder: str) -> str:
        """The TOML text of the recipe.

        Raises:
            BadInput: the answers make no labels, or nothing answers in time here.
        """
        plan = self.plan(name)
        return toml_text(
            answer_heading(self._seen, self._look, plan, folder), answer_tables(self._seen, self._look, plan)
        )

    def plan(self, name: str) -> AnswerPlan:
        """The plan; see `text` for errors."""
        base = self._base(name)
        least = None
        for recipe in self._candidates(base):
            cost = self._speed.training(recipe)
            batch = next((of for of in _BATCHES if self._affordable(cost, of)), None)
            if batch is None:
                continue
            fit = recipe.fit.model_copy(update={"batch": batch})
            plan = self._with_figures(recipe.model_copy(update={"fit": fit}), cost)
            if plan.seconds <= RESERVE * self._budget and plan.memory <= _MEMORY_SHARE * self._machine.memory:
                return plan
            least = plan if least is None or plan.seconds < least.seconds else least
            if plan.path.read > RESERVE * self._budget:  # coarser voxels are not read faster
                break
        raise BadInput(self._too_slow(least))

    def _base(self, name: str) -> Recipe:
        """The recipe with all that does not depend on speed."""
        seen, look = self._seen, self._look
        try:
            return Recipe(
                name=name,
                kind=look.kind,
                modality=seen.modality,
                dimension=seen.dimension,
                channels=rules.channel_names(seen),
                optional=rules.optional(seen),
                labels={label: number for number, label in enumerate(look.labels, start=1)},
                answer=Answer(column=look.column),
                preprocess=_intensities(seen),
                network=Network(name="cnn"),
                fit=Fit(
                    patch=(16,) * seen.dimension,
                    minutes=_MINUTES[self._machine.device],
                    steps=_STEPS[self._machine.device],
                    mirror=rules.mirroring(look.labels, seen.dimension)[0],
                ),
            )
        except ValidationError as error:
            reason = error.errors(include_url=False)[0]["msg"].removeprefix("Value error, ")
            msg = f"a recipe cannot be made of the answers in answers.csv: {reason}; change them there"
            raise BadInput(msg) from error

    def _candidates(self, base: Recipe) -> Iterator[Recipe]:
        """From the finest: recipes whose patch holds the studies and is not too large."""
        most = _MOST_VOXELS[self._machine.device, base.dimension]
        sizes = self._sizes() if without_mm(self._seen) else self._spacings()
        for change, patch in sizes:
            if math.prod(patch) <= most:
                preprocess = base.preprocess.model_copy(update=change)
                fit = base.fit.model_copy(update={"patch": patch})
                recipe = base.model_copy(update={"preprocess": preprocess, "fit": fit})
                network = Network(name="cnn", features=topology(recipe).features)
                yield recipe.model_copy(update={"network": network})

    def _spacings(self) -> Iterator[tuple[dict[str, tuple[float, ...]], tuple[int, ...]]]:
        axes = self._seen.dimension
        full = rules.full_spacing(self._seen)
        lengths = np.percentile(self._seen.shapes[:, :axes] * self._seen.spacings[:, :axes], COVERED, axis=0)
        for step in range(_MOST_STEPS):
            spacing = rules.coarser(full, min(full) * _COARSER**step)
            yield {"spacing": spacing}, tuple(max(4, math.ceil(n / mm)) for n, mm in zip(lengths, spacing, strict=True))

    def _sizes(self) -> Iterator[tuple[dict[str, tuple[int, ...]], tuple[int, ...]]]:
        """Rectangles of the pictures' median proportions, at most as large as the median picture."""
        wide = np.median(self._seen.shapes[:, :2], axis=0)
        whole = max(_EDGES[-1], 16 * math.ceil(wide.max() / 16))
        for edge in dict.fromkeys((min(whole, _EDGES[0]), *(edge for edge in _EDGES if edge < whole))):
            size = tuple(16 * math.ceil(edge * n / wide.max() / 16) for n in wide)
            yield {"size": size}, size

    def _affordable(self, cost: TrainingCost, batch: int) -> bool:
        slow = self._machine.device == "cpu" and batch * cost.seconds > _STEP_SECONDS
        return not slow and cost.memory(batch) <= _MEMORY_SHARE * self._machine.device_memory

    def _with_figures(self, recipe: Recipe, cost: TrainingCost) -> AnswerPlan:
        voxels, channels = math.prod(self._shape), len(recipe.channels)
        memory = _LIBRARIES + voxels * (4.0 * channels + 10.0) + 8.0 * channels * math.prod(recipe.fit.patch)
        full = () if recipe.preprocess.size else rules.full_spacing(self._seen)
        path, network = self._mini.path(recipe), 2 ** len(recipe.fit.mirror) * self._speed.forward(recipe)
        return AnswerPlan(recipe, full, self._budget, path, network, memory, cost, self._machine)

    def _too_slow(self, least: AnswerPlan | None) -> str:
        name = self._seen.ids[self._seen.largest]
        if least is None:
            return (
                f"no network that sees {name!r} whole can be trained on {self._machine.name}; name a region to look at"
            )
        needed = math.ceil(least.seconds / RESERVE)
        return (
            f"answer_seconds = {self._budget:g} cannot be met on {self._machine.name}: the largest study {name!r} "
            f"takes {least.seconds:.2g} s and {least.memory / 2**30:.1f} GiB; give {needed} or more"
        )


def _intensities(seen: Fingerprint) -> Preprocess:
    """As for a mask, but down to air: nobody said where the finding is."""
    found = rules.intensities(seen)[0]
    if found.normalise != "ct":
        return found
    return found.model_copy(update={"window": (min(-1000.0, found.window[0]), found.window[1])})


def without_mm(seen: Fingerprint) -> bool:
    """Whether these are pictures that do not say how large a pixel is."""
    return seen.dimension == 2 and bool(np.allclose(seen.spacings[:, :2], 1.0))
