"""What a version says of a study that has no label, for strategies: how sure it is, what it finds.

Masks: entropy over the predicted target and two voxels around it; an average over everything would measure how much
background there is. Where nothing is predicted, the thousandth part of the voxels that most look like target stands for
it. Answers in words and risks: entropy of the answer. Boxes: entropy of the most doubtful one.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy import ndimage
from scipy.special import entr

from radloop.engine.dropout import dropping
from radloop.networks.topology import patch_shape
from radloop.recipes.preprocess import Preprocess
from radloop.recipes.recipe import CLASS_KINDS, Recipe
from radloop.recipes.volume import Volume

if TYPE_CHECKING:
    from radloop.engine.predictor import Predictor

BORDER = 2  # voxels of the network's grid
LOOKS = 5
_PART = 1000
_FEWEST = 27
_EXCLUSIVE = ("classification", "ordinal")
_FAINT = 0.1  # boxes less probable than that say nothing
GiveWay = Callable[[], object]


@dataclass(frozen=True)
class Score:
    """What a version says of a study; `scores` and `classes` are those of `Candidate`."""

    scores: Mapping[str, float]
    classes: Mapping[str, float]


def score_study(
    predictor: Any,
    volume: Volume,
    *,
    region: Volume | None = None,
    cells: Mapping[str, str] | None = None,
    earlier: Sequence[tuple[Volume, float]] = (),
    looks: int = 0,
    give_way: GiveWay = lambda: None,
) -> Score:
    """A study's scores by a version.

    Args:
        predictor: of any kind; nobody else may ask it meanwhile.
        volume: the study's channels as read from its files.
        region, cells, earlier: as `AnswerPredictor.predict` takes them.
        looks: with dropout, for `mutual_information`; 0 leaves that out.
        give_way: called before each window of the network; may wait.

    Raises:
        BadImage, BadLabel, BadInput: the study does not fit the recipe.
    """
    recipe: Recipe = predictor.recipe
    if recipe.kind == "segmentation":
        image, _ = Preprocess(recipe).image(volume)
        return _of_mask(predictor, image, looks, give_way)

    def ask() -> np.ndarray | list[tuple[str, float]]:
        give_way()
        if recipe.kind == "detection":
            return [(box.label, float(box.score or 0)) for box in predictor.predict(volume).boxes]
        found = predictor.predict(volume, region, cells, earlier)
        return found.probabilities if recipe.kind in CLASS_KINDS else found.risks[-1:]

    found = ask()
    seen = []
    for look in range(looks):
        with dropping(predictor.network, _seed(volume, look)):
            seen.append(ask())
    if recipe.kind == "detection":
        return _of_boxes(recipe, found, seen)  # type: ignore[arg-type]
    return _of_words(recipe, np.asarray(found), [np.asarray(one) for one in seen])


def _of_words(recipe: Recipe, found: np.ndarray, seen: Sequence[np.ndarray]) -> Score:
    names, exclusive = recipe.label_names[: len(found)], recipe.kind in _EXCLUSIVE
    whole = _entropy(found, exclusive)
    scores = {"entropy": whole}
    if exclusive:
        scores[f"entropy.{names[int(found.argmax())]}"] = whole
    else:
        scores |= {f"entropy.{n}": float(_binary(p)) for n, p in zip(names, found, strict=True) if p >= 0.5}
    scores |= _disagreement(seen, lambda p: _entropy(p, exclusive))
    return Score(scores, {name: float(p) for name, p in zip(names, found, strict=True)})


def _of_boxes(recipe: Recipe, found: list[tuple[str, float]], seen: Sequence[list[tuple[str, float]]]) -> Score:
    classes = dict(zip(recipe.label_names, _surest(recipe, found).tolist(), strict=True))
    scores = {"entropy": 0.0, "foreground": max(classes.values())}
    for name, p in found:
        if p >= _FAINT:
            value = float(_binary(np.array(p)))
            scores[f"entropy.{name}"] = max(value, scores.get(f"entropy.{name}", 0.0))
            scores["entropy"] = max(value, scores["entropy"])
    scores |= _disagreement([_surest(recipe, one) for one in seen], lambda p: _entropy(p, False))
    return Score(scores, classes)


def _surest(recipe: Recipe, boxes: list[tuple[str, float]]) -> np.ndarray:
    """(labels,) probability of each label's most probable box, 0 where it has none."""
    return np.array([max((p for label, p in boxes if label == name), default=0.0) for name in recipe.label_names])


def _of_mask(predictor: Predictor, image: torch.Tensor, looks: int, give_way: GiveWay) -> Score:
    recipe = predictor.recipe

    def wait(_share: float) -> None:
        give_way()

    give_way()
    found = predictor.probabilities(image, wait).numpy()
    winners = found.argmax(axis=0)
    target = winners > 0 if winners.any() else _likeliest(found[0])
    box = _box_of(target, BORDER)
    inside = (slice(None), *box)
    sure, near = _entropies(found[inside], True, whole=True), _widened(target[box])
    scores = {"entropy": float(sure[near].mean()), "foreground": float(1 - found[0].mean(dtype=np.float64))}
    for name, number in recipe.labels.items():
        if (there := winners[box] == number).any():
            scores[f"entropy.{name}"] = float(sure[_widened(there)].mean())
    if looks:
        cut, place = _with_room(image, box, patch_shape(recipe))
        seen = []
        for look in range(looks):
            with dropping(predictor.network, look):
                some = predictor.probabilities(image[cut], wait).numpy()
            seen.append(some[place][:, near])
        scores |= _disagreement(seen, lambda p: float(_entropies(p, True, whole=True).mean()))
    counts = np.bincount(winners.ravel(), minlength=len(found))
    return Score(scores, {name: float(counts[number] / winners.size) for name, number in recipe.labels.items()})


def _likeliest(background: np.ndarray) -> np.ndarray:
    """(x, y, z) bool: the voxels that are least likely background."""
    count = min(background.size, max(_FEWEST, background.size // _PART))
    chosen = np.zeros(background.size, bool)
    chosen[np.argpartition(background.ravel(), count - 1)[:count]] = True
    return chosen.reshape(background.shape)


def _widened(mask: np.ndarray) -> np.ndarray:
    return np.asarray(ndimage.binary_dilation(mask, iterations=BORDER))


def _box_of(mask: np.ndarray, border: int) -> tuple[slice, ...]:
    places = [np.flatnonzero(mask.any(axis=tuple(o for o in range(3) if o != axis))) for axis in range(3)]
    return tuple(
        slice(max(0, int(p[0]) - border), min(n, int(p[-1]) + 1 + border))
        for p, n in zip(places, mask.shape, strict=True)
    )


def _with_room(
    image: torch.Tensor, box: tuple[slice, ...], patch: Sequence[int]
) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Where to cut an image so that a box has half a patch around it, and where the box lies in the cut."""
    cut, place = [slice(None)], [slice(None)]
    for axis, (start, stop, n) in enumerate((of.start, of.stop, n) for of, n in zip(box, image.shape[1:], strict=True)):
        room = patch[axis] // 2 if axis < len(patch) else 0
        first = max(0, start - room)
        cut.append(slice(first, min(n, stop + room)))
        place.append(slice(start - first, stop - first))
    return tuple(cut), tuple(place)


def _disagreement(seen: Sequence[np.ndarray], entropy: Callable[[np.ndarray], float]) -> dict[str, float]:
    """Entropy of the mean answer less the mean entropy of the answers."""
    if not seen:
        return {}
    value = entropy(np.mean(seen, axis=0, dtype=np.float64)) - float(np.mean([entropy(one) for one in seen]))
    return {"mutual_information": max(0.0, float(value))}


def _entropy(p: np.ndarray, exclusive: bool) -> float:
    """Nats of an answer; of findings the mean over them."""
    each = _entropies(p, exclusive)
    return float(each.sum() if exclusive else each.mean())


def _entropies(p: np.ndarray, exclusive: bool, *, whole: bool = False) -> np.ndarray:
    """Each label's part in the entropy; `whole` adds them up along the first axis."""
    each = entr(p.astype(np.float64)) if exclusive else _binary(p)
    return np.asarray(each.sum(axis=0) if whole else each)


def _binary(p: np.ndarray) -> np.ndarray:
    p = np.clip(p.astype(np.float64), 0, 1)
    return np.asarray(entr(p) + entr(1 - p))


def _seed(volume: Volume, look: int) -> int:
    return zlib.crc32(repr((volume.shape, look)).encode())
