"""`radloop predict` for answers in words: one line a label with its probability, and no masks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from radloop.apps.results_table import Job, Row, source_of, stamps

if TYPE_CHECKING:
    from radloop.engine.regions import Region
    from radloop.recipes.recipe import Recipe
    from radloop.registry.version import Version
    from radloop.studies.folder import StudiesFolder
    from radloop.studies.home import Home
    from radloop.studies.visits import Earlier


class Answers:
    """What a recipe of this kind is told beside the image, and the lines of its answers.

    Args:
        home: of the models, and of readers' masks of the region.
        folder: the studies, or None where a single image is answered.
        version: what answers.
    """

    def __init__(self, home: Home, folder: StudiesFolder | None, version: Version) -> None:
        from radloop.engine.predictor import PredictorCache
        from radloop.engine.regions import Regions
        from radloop.registry.registry import Registry
        from radloop.studies.folder import StudiesFolder
        from radloop.studies.ledger import Ledger

        self._folder, self._version, self._recipe = folder, version, version.load_recipe()
        self._ledger, self._registry, cache = Ledger(home), Registry(home), PredictorCache()
        self._predictor = cache.get(version)
        beside = folder or StudiesFolder(home.path)
        self._regions = Regions(beside, self._ledger, self._registry.champion, cache.get)

    def told(self, job: Job) -> str:
        """Changes with what the answer depends on beside the image: covariates, region's mask, earlier studies."""
        name = self._recipe.answer.region
        row = self._ledger.latest(job.study, name) if name and self._folder else None
        champion = self._registry.champion(name) if name and row is None else None
        cells = self._cells(job)
        covariates = [cells.get(one, "") for one in self._recipe.answer.covariates]
        seen = [(one.study, one.gap, stamps(one.channels)) for one in self._earlier(job)]
        return repr((covariates, row.checksum if row else "", champion.number if champion else 0, seen))

    @property
    def labels(self) -> tuple[str, ...]:
        """What the lines of a study are called, in order."""
        return self._recipe.label_names

    def file(self, job: Job, out: Path) -> Path | None:
        """A file that a study's answer is also written to, or None."""
        return None

    def rows(self, job: Job, out: Path) -> Iterator[Row]:
        """The lines of one study.

        Raises:
            BadInput: the study or a covariate cannot be used.
            NotFound: there is no mask of the region.
        """
        from radloop.engine.channels import lacking_words

        (found, *each), region = self._ask(job)
        warnings = [f"{name} is not known" for name in found.missing]
        warnings += lacking_words(found.lacking)
        warnings += [f"looked where {region.source} says"] if region else []
        source = asdict(source_of(job, self._version, self.told(job)))
        for number, one in enumerate([found, *each]):
            about = {"lesion": str(number) if number else "", "lesions": "" if number or not each else str(len(each))}
            yield from self._lines(job, one, {**about, "warnings": "; ".join(warnings), **source})

    def _lines(self, job: Job, found: Any, more: Mapping[str, str]) -> Iterator[Row]:
        for name, value in zip(self._recipe.label_names, found.probabilities, strict=True):
            limits = found.limits.get(name)
            yield Row(
                job.study,
                name,
                probability=f"{value:.4f}",
                low=f"{limits[0]:.4f}" if limits else "",
                high=f"{limits[1]:.4f}" if limits else "",
                seconds=f"{found.seconds:.2f}",
                **more,
            )

    def _ask(self, job: Job) -> tuple[list[Any], Region | None]:
        """The answer about the study, and those about each lesion, the largest first; and the region."""
        from radloop.apps.results_table import MOST_LESIONS
        from radloop.engine.answer_data import earlier_volumes
        from radloop.engine.regions import lesions_of
        from radloop.studies.images import read_study

        volume = read_study(job.channels, self._recipe.may_lack)
        region = self._regions.of(self._recipe, job.study if self._folder else None, volume)
        earlier = earlier_volumes(self._recipe, self._earlier(job))
        beside = self._cells(job), earlier
        if region is None or self._recipe.answer.per == "study":
            return [self._predictor.predict(volume, region.mask if region else None, *beside)], region
        each = [self._predictor.predict(volume, part, *beside) for part in lesions_of(region.mask)[:MOST_LESIONS]]
        return [each[0], *each], region

    def _earlier(self, job: Job) -> tuple[Earlier, ...]:
        from radloop.studies.visits import earlier_of

        return earlier_of(self._folder, job.study, self._recipe) if self._folder else ()

    def _cells(self, job: Job) -> Mapping[str, str]:
        return self._folder.study(job.study).answers if self._folder else {}


def in_words(recipe: Recipe) -> bool:
    """Whether a recipe's answers are about the whole study and not masks."""
    from radloop.recipes.recipe import STUDY_KINDS

    return recipe.kind in STUDY_KINDS
