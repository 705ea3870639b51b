"""What must fit together in a recipe, beyond what each value allows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from radloop.recipes.recipe import CLASS_KINDS, JSON_KINDS, STUDY_KINDS, Answer, Recipe


class Disagreement(NamedTuple):
    """Values of a recipe that are right by themselves but do not fit together.

    Attributes:
        paths: the keys it is about; the first is the one to change.
        message: what does not fit and what is allowed.
    """

    paths: tuple[tuple[str, ...], ...]
    message: str


def disagreements(recipe: Recipe) -> list[Disagreement]:
    """All that does not fit together in a recipe; empty where nothing is wrong."""
    return [*_lengths(recipe), *_strides(recipe), *_ranges(recipe), *_answers(recipe), *_risks(recipe), *_masks(recipe)]


def _lengths(recipe: Recipe) -> Iterator[Disagreement]:
    dimension = ("dimension",)
    chain = recipe.preprocess
    values: dict[tuple[str, str], Sequence[float]] = {
        ("preprocess", "spacing"): chain.spacing,
        ("preprocess", "size"): chain.size,
        ("fit", "patch"): recipe.fit.patch,
    }
    if chain.spacing and chain.size:
        text = "preprocess has spacing and size; keep size for pictures without a known pixel size, else spacing"
        yield Disagreement((("preprocess", "size"), ("preprocess", "spacing")), text)
    for path, numbers in values.items():
        if len(numbers) != recipe.dimension and (numbers or path[0] == "fit"):
            text = (
                f"{'.'.join(path)} has {len(numbers)} numbers; dimension = {recipe.dimension} needs {recipe.dimension}"
            )
            yield Disagreement((path, dimension), text)


def _strides(recipe: Recipe) -> Iterator[Disagreement]:
    strides, features = recipe.network.strides, recipe.network.features
    here, sizes = ("network", "strides"), ("network", "features")
    derived = recipe.kind in JSON_KINDS and not strides  # from the patch, whatever the number of features
    if len(strides) != len(features) and not derived:
        text = f"network.strides has {len(strides)} rows, network.features {len(features)}; give one row a resolution"
        yield Disagreement((here, sizes), text)
    if any(len(row) != recipe.dimension for row in strides):
        text = f"every row of network.strides needs {recipe.dimension} numbers, as dimension = {recipe.dimension}"
        yield Disagreement((here, ("dimension",)), text)
    if strides and set(strides[0]) != {1}:
        text = f"network.strides begins with {list(strides[0])}; the first row must be 1s (full resolution)"
        yield Disagreement((here,), text)


def _ranges(recipe: Recipe) -> Iterator[Disagreement]:
    low, high = recipe.preprocess.window
    if low >= high:
        text = f"preprocess.window is {low:g}..{high:g}; the first number must be the lower"
        yield Disagreement((("preprocess", "window"),), text)
    axes = recipe.fit.mirror
    if len(set(axes)) != len(axes) or not set(axes) <= set(range(recipe.dimension)):
        text = f"fit.mirror is {list(axes)}; axes are 0..{recipe.dimension - 1}, each once"
        yield Disagreement((("fit", "mirror"), ("dimension",)), text)
    for name in recipe.gate.label_margins.keys() - recipe.labels.keys():
        text = f"gate.label_margins names {name!r}, which is no label; labels are {', '.join(recipe.labels)}"
        yield Disagreement((("gate", "label_margins"), ("labels",)), text)
    names = recipe.channels
    if not names or len(set(names)) != len(names):
        yield Disagreement((("channels",),), f"channels is {list(names)}; give at least one name, each once")
    elif recipe.display_channel >= len(names):
        text = f"display_channel = {recipe.display_channel}; channels are numbered 0..{len(names) - 1}"
        yield Disagreement((("display_channel",), ("channels",)), text)
    else:
        yield from _optional(recipe)


def _optional(recipe: Recipe) -> Iterator[Disagreement]:
    names, here = recipe.optional, (("optional",), ("channels",))
    unknown = [name for name in names if name not in recipe.channels or names.count(name) > 1]
    if unknown:
        text = f"optional names {unknown[0]!r}; it must be one of channels, {', '.join(recipe.channels)}, and only once"
        yield Disagreement(here, text)
    for place, what in ((0, "the first channel, which says where the study lies"), (recipe.display_channel, "shown")):
        if recipe.channels[place] in names:
            text = f"optional names {recipe.channels[place]!r}, which is {what}; a study cannot lack it"
            yield Disagreement(here, text)
            return


def _answers(recipe: Recipe) -> Iterator[Disagreement]:
    kind, answer = recipe.kind, recipe.answer
    if kind in ("classification", "ordinal") and len(recipe.labels) < 2:
        text = f"kind = {kind!r} with one label; name at least two, such as {{ benign = 1, malignant = 2 }}"
        yield Disagreement((("labels",), ("kind",)), text)
    if kind not in STUDY_KINDS and answer != Answer():
        yield Disagreement((("answer",), ("kind",)), f"[answer] is for {', '.join(STUDY_KINDS)}; kind is {kind!r}")
    if recipe.fit.balance != "none" and kind not in CLASS_KINDS:
        text = f"fit.balance = {recipe.fit.balance!r} is for classes; leave it out where kind is {kind!r}"
        yield Disagreement((("fit", "balance"), ("kind",)), text)
    if kind == "multilabel" and answer.column:
        text = f"answer.column = {answer.column!r}; a multilabel recipe has a column of each label's name: leave it out"
        yield Disagreement((("answer", "column"), ("kind",)), text)
    if answer.region == recipe.name:
        yield Disagreement((("answer", "region"),), f"answer.region = {answer.region!r} is the recipe itself")
    if answer.per == "lesion" and (not answer.region or kind not in CLASS_KINDS):
        text = f"answer.per = 'lesion' needs answer.region and a kind of {', '.join(CLASS_KINDS)}; leave it out"
        yield Disagreement((("answer", "per"), ("answer", "region"), ("kind",)), text)
    if answer.sequence and answer.region:
        text = "answer.sequence and answer.region cannot be together: earlier visits have no region of their own yet"
        yield Disagreement((("answer", "sequence"), ("answer", "region")), text)
    truth = _truth(recipe)
    told = [name for name in answer.covariates if name in truth]
    if told:
        text = f"answer.covariates names {told[0]!r}, which is the column of the answer itself; leave it out"
        yield Disagreement((("answer", "covariates"),), text)
    repeated = [name for name in answer.covariates if answer.covariates.count(name) > 1]
    if repeated:
        yield Disagreement((("answer", "covariates"),), f"answer.covariates names {repeated[0]!r} twice")


def _truth(recipe: Recipe) -> tuple[str, ...]:
    """Columns of `answers.csv` that hold the answer, so that nothing may be told from them."""
    answer = recipe.answer
    if recipe.kind == "risk":
        return answer.event, answer.time
    return recipe.label_names if recipe.kind == "multilabel" else (answer.column or recipe.name,)


def _masks(recipe: Recipe) -> Iterator[Disagreement]:
    """What only a mask has."""
    is_mask, network, lesions = recipe.kind == "segmentation", recipe.network, recipe.evaluate.lesions
    for name in ("deep_supervision", "mirror"):
        if getattr(network, name) and not is_mask:
            text = f"network.{name} is for segmentation; kind is {recipe.kind!r}: leave it out"
            yield Disagreement((("network", name), ("kind",)), text)
    if network.mirror and not recipe.fit.mirror:
        text = "network.mirror = true, but fit.mirror names no axis; name those that may be mirrored in training"
        yield Disagreement((("network", "mirror"), ("fit", "mirror")), text)
    if lesions and not is_mask:
        text = f"evaluate.lesions is for segmentation; kind is {recipe.kind!r}: leave it out"
        yield Disagreement((("evaluate", "lesions"), ("kind",)), text)
    if recipe.evaluate.smallest and not lesions:
        text = "evaluate.smallest is of lesions, but evaluate.lesions names no label; name those that are lesions"
        yield Disagreement((("evaluate", "smallest"), ("evaluate", "lesions")), text)
    for name in dict.fromkeys(lesions):
        if name not in recipe.labels or lesions.count(name) > 1:
            text = (
                f"evaluate.lesions names {name!r}, which is {'there twice' if name in recipe.labels else 'no label'}; "
            )
            yield Disagreement((("evaluate", "lesions"), ("labels",)), text + f"labels are {', '.join(recipe.labels)}")


_OF_RISK = ("event", "time", "unit", "times", "intervals")


def _risks(recipe: Recipe) -> Iterator[Disagreement]:
    answer, kind = recipe.answer, ("kind",)
    if recipe.kind != "risk":
        given = [name for name in _OF_RISK if getattr(answer, name) != getattr(Answer(), name)]
        given = [name for name in given if name != "unit" or not answer.sequence]
        if given and recipe.kind in STUDY_KINDS:
            text = f"answer.{given[0]} is for kind = 'risk'; kind is {recipe.kind!r}"
            yield Disagreement((("answer", given[0]), kind), text)
        return
    if len(recipe.labels) != 1:
        text = f"kind = 'risk' with {len(recipe.labels)} labels; name the one event, such as {{ death = 1 }}"
        yield Disagreement((("labels",), kind), text)
    if answer.column:
        text = f"answer.column = {answer.column!r}; a risk recipe has answer.event and answer.time in its place"
        yield Disagreement((("answer", "column"), kind), text)
    if not answer.times or list(answer.times) != sorted(set(answer.times)):
        text = f"answer.times is {list(answer.times)}; say at which times the risk is told, such as [365, 1095]"
        yield Disagreement((("answer", "times"), kind), text)
    if not answer.event or not answer.time or answer.event == answer.time:
        text = f"answer.event = {answer.event!r} and answer.time = {answer.time!r} must be two columns of answers.csv"
        yield Disagreement((("answer", "event"), ("answer", "time")), text)
