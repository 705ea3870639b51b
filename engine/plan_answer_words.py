"""What a planned recipe for an answer in words says about itself: a reason for every value."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from radloop.engine import plan_rules as rules
from radloop.engine.plan_search import RESERVE
from radloop.engine.plan_text import Entry, Table
from radloop.engine.plan_words import channels_why, first_words, normalising, optional_channels, seconds, times
from radloop.recipes.recipe import Recipe
from radloop.studies.answer_look import AnswerLook
from radloop.studies.fingerprint import Fingerprint

if TYPE_CHECKING:
    from radloop.engine.plan_answers import AnswerPlan

FEW = 10
"""Patients with a label, or without a finding, under which it is called rare."""


def answer_heading(seen: Fingerprint, look: AnswerLook, plan: AnswerPlan, folder: str) -> list[str]:
    """The paragraphs above the recipe: where it is from, what an answer takes, and what to look at first."""
    of = seen.ids[seen.largest]
    lines = [
        f'Planned by radloop from {len(seen.ids)} studies in "{folder}" and their answers.csv, for this machine: '
        f"{plan.machine.name}. Change what you know better; `radloop recipe check` reads it.",
        f"Answer: about {seconds(plan.seconds)} s for the largest study seen ({of}, {times(seen.shapes[seen.largest])} "
        f"voxels): reading {seconds(plan.path.read)}, resampling {seconds(plan.path.image)}, network "
        f"{seconds(plan.network)}. Planned for {RESERVE * plan.budget:g} s. About {plan.memory / 2**30:.1f} GiB.",
        f"{look.answered} of {look.studies} studies have an answer. {_counts(look)}.",
    ]
    rare = [f"{name} ({count})" for name, count in look.patients.items() if count < FEW]
    rare += [f"no {name} ({count})" for name, count in look.without.items() if count < FEW]
    if rare:
        lines.append(
            f"LOOK HERE: fewer than {FEW} patients have {', '.join(rare)}. About 65 % of them are learned from, 15 % "
            "judge a version and 20 % are in its report: figures of so few say little. Collect more, or merge classes."
        )
    constant = [name for name in look.without if not look.patients[name] or not look.without[name]]
    if constant:
        lines.append(
            f"LOOK HERE: {', '.join(constant)} has the same answer in every study, so nothing can be learned of it; "
            "take it out of [labels] until there are others."
        )
    if not look.ordered:
        lines.append(
            "LOOK HERE: nobody said which grade is higher, so [labels] are in alphabetical order; put them right."
        )
    return lines + first_words(seen)


def _counts(look: AnswerLook) -> str:
    if look.without:
        told = (f"{name} in {count} and not in {look.without[name]}" for name, count in look.patients.items())
    else:
        told = (f"{name}: {count}" for name, count in look.patients.items())
    return f"Patients: {', '.join(told)}"


def answer_tables(seen: Fingerprint, look: AnswerLook, plan: AnswerPlan) -> list[Table]:
    """The recipe's tables, each value with its reason."""
    recipe = plan.recipe
    top = [
        Entry("format", recipe.format),
        Entry("name", recipe.name),
        Entry("title", recipe.name.replace("_", " ").capitalize(), "What a reader sees in the viewer."),
        Entry("kind", recipe.kind, f"{look.kind_from[0].upper()}{look.kind_from[1:]}."),
        Entry("modality", recipe.modality, f"From {seen.modality_from}."),
        Entry("dimension", recipe.dimension, "" if recipe.dimension == 3 else "Every study has one slice."),
        Entry("channels", recipe.channels, channels_why(recipe)),
        *optional_channels(seen, recipe),
        Entry("display_channel", recipe.display_channel),
    ]
    return [
        Table("", top),
        Table("labels", [Entry(name, number) for name, number in recipe.labels.items()], _labels_why(look)),
        Table("answer", _answer(look)),
        Table("preprocess", [_grid(seen, plan), *_normalising(seen, recipe)]),
        Table("network", [*_network(plan)]),
        Table("fit", _fit(plan)),
        Table("gate", _gate(recipe)),
    ]


def _labels_why(look: AnswerLook) -> str:
    if look.kind == "multilabel":
        return "A finding a column of answers.csv; several may hold at once, an empty cell was not looked at."
    if look.kind == "ordinal":
        return (
            "Grades from the lowest, as the column has them. Add those that nobody has yet: a version knows no others."
        )
    return "Classes as the column has them, the most frequent first: figures are about the last of two."


def _answer(look: AnswerLook) -> list[Entry]:
    more = f" Columns of numbers there: {', '.join(look.numbers)}." if look.numbers else ""
    hint = (
        "Numbers that are known before the answer and may help, such as age; they are told to the network and to the "
        f"trivial method alike.{more} Never one that is only known because of the answer."
    )
    where = "A mask recipe whose mask says where to look, for findings that are small in the study; empty: all of it."
    column = [Entry("column", look.column, "The column of answers.csv.")] if look.column else []
    return [*column, Entry("region", "", where), Entry("covariates", (), hint)]


def _grid(seen: Fingerprint, plan: AnswerPlan) -> Entry:
    chain = plan.recipe.preprocess
    if chain.size:
        low, high = seen.shapes[:, :2].min(axis=0), seen.shapes[:, :2].max(axis=0)
        return Entry(
            "size",
            chain.size,
            f"Pixels that every picture is fitted into, its proportions kept: they are {times(low)} to {times(high)} "
            "and do not say how large a pixel is. The largest that can be trained and answered in time here.",
        )
    axes = plan.recipe.dimension
    median = np.median(seen.spacings[:, :axes], axis=0)
    words = f"mm along {'R, A, S' if axes == 3 else 'columns and rows'}. Median of the studies: {times(median)}."
    if chain.spacing == plan.full:
        words += " No resolution is given up: the network sees a whole study at it."
    else:
        words += (
            f" Made coarser, {times(plan.full)} -> {times(chain.spacing)}, so that the network sees a whole study. "
            "What is smaller than some voxels is lost: where a finding is small, name a region to look at instead."
        )
    return Entry("spacing", chain.spacing, words)


def _normalising(seen: Fingerprint, recipe: Recipe) -> list[Entry]:
    found = normalising(seen, recipe)
    if recipe.preprocess.normalise != "ct":
        return found
    where = "above -500" if seen.intensities[0].where == "body" else "inside the masks"
    why = (
        f"HU. Mean and deviation are those {where}; the window goes down to air, as nobody said where the finding is. "
        "Narrow it where that is in soft tissue."
    )
    return [Entry("normalise", "ct", why), *found[1:]]


def _network(plan: AnswerPlan) -> list[Entry]:
    return [
        Entry(
            "name", plan.recipe.network.name, "A small residual network; docs/recipes.md has others to compare with."
        ),
        Entry("features", plan.recipe.network.features),
    ]


def _fit(plan: AnswerPlan) -> list[Entry]:
    fit, step = plan.recipe.fit, plan.recipe.fit.batch * plan.training.seconds
    whole = "the size above" if plan.recipe.preprocess.size else "95 of 100 studies whole; of larger ones the middle"
    return [
        Entry("patch", fit.patch, f"What the network is given: {whole}."),
        Entry("batch", fit.batch, f"Studies a step, which takes about {step:.2g} s here."),
        Entry("steps", fit.steps),
        Entry("minutes", fit.minutes, f"About {60 * fit.minutes / step:.0f} steps."),
        Entry("learning_rate", fit.learning_rate),
        Entry("mirror", fit.mirror, rules.mirroring(plan.recipe.labels, plan.recipe.dimension)[1]),
        Entry("ema", fit.ema),
        Entry(
            "balance",
            fit.balance,
            '"loss" or "sampler" make rare answers count more in training; probabilities are shifted back after it. '
            "First try without.",
        ),
    ]


def _gate(recipe: Recipe) -> list[Entry]:
    return [
        Entry(
            "margin",
            recipe.gate.margin,
            f"A new version serves only if its {recipe.figure} on the held-out patients is surely (one-sided 95 %) not "
            "worse than the old one's by more than this.",
        ),
        Entry("first_model_after", recipe.gate.first_model_after, "Labels before a first model is trained."),
        Entry("retrain_after", recipe.gate.retrain_after, "0: trained when somebody asks."),
    ]
