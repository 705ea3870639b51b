"""Who is in the sample studies: 14 made-up patients, 20 studies, their dates, nodules and follow-up."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np

from radloop.sample_studies.phantom import Anatomy, Lesion, make_anatomy, make_lesion

SHAPES = (
    "spiculated", "smooth", "smooth", "spiculated", "smooth", "spiculated", "smooth",
    "none", "spiculated", "smooth", "none", "smooth", "spiculated", "none",
)  # fmt: skip
"""What each patient has; 1 in 5 has nothing."""
STUDIES_OF = {1: 3, 2: 2, 4: 2, 6: 2, 9: 2}
"""Patients (counted from 1) with more than one study."""
LABELLED = (1, 2, 3, 4, 5, 6, 7, 9, 10, 12)
"""Patients whose first study comes with a mask; all of them have a nodule."""
CENSORED_AFTER = 1500
"""Days of follow-up."""


@dataclass(frozen=True)
class SampleStudy:
    """One study of the sample set: what is in it and on which grid it lies."""

    id: str
    patient: str
    date: date
    shape_class: str
    anatomy: Anatomy
    lesions: tuple[Lesion, ...]
    event: int
    time: int
    labelled: bool
    size: tuple[int, int, int]
    affine: np.ndarray
    noise_seed: int


def plan_studies(seed: int = 7) -> list[SampleStudy]:
    """All 20 studies, in the order of their ids; the same seed gives the same studies."""
    studies: list[SampleStudy] = []
    for number, shape_class in enumerate(SHAPES, start=1):
        studies += _patient(number, shape_class, seed, first_index=len(studies))
    return studies


def _patient(number: int, shape_class: str, seed: int, first_index: int) -> list[SampleStudy]:
    rng = np.random.default_rng([seed, number])
    anatomy = make_anatomy(rng)
    lesions = _lesions(rng, anatomy, shape_class)
    day = date(2021, 1, 4) + timedelta(days=int(rng.integers(0, 600)))
    event_after = _days_to_event(rng, lesions, shape_class)
    studies = []
    for visit in range(STUDIES_OF.get(number, 1)):
        after = visit * 120 + (int(rng.integers(-12, 13)) if visit else 0)
        followed = min(event_after, CENSORED_AFTER) - after
        size, affine = _grid(first_index + visit, rng)
        studies.append(
            SampleStudy(
                id=f"patient{number:02d}_{day + timedelta(days=after):%Y%m%d}",
                patient=f"patient{number:02d}",
                date=day + timedelta(days=after),
                shape_class=shape_class,
                anatomy=anatomy,
                lesions=tuple(_grown(lesion, after) for lesion in lesions),
                event=int(event_after <= CENSORED_AFTER),
                time=followed,
                labelled=visit == 0 and number in LABELLED,
                size=size,
                affine=affine,
                noise_seed=seed * 1000 + first_index + visit,
            )
        )
    return studies


def _lesions(rng: np.random.Generator, anatomy: Anatomy, shape_class: str) -> list[Lesion]:
    if shape_class == "none":
        return []
    lesions: list[Lesion] = []
    count = int(rng.integers(1, 4))
    while len(lesions) < count:
        lesion = make_lesion(rng, anatomy, float(rng.uniform(9, 17)), shape_class == "spiculated")
        if all(np.linalg.norm(lesion.centre - other.centre) > 45 for other in lesions):
            lesions.append(lesion)
    return lesions


def _grown(lesion: Lesion, days: int) -> Lesion:
    """The same nodule later: spikes or not, the radius grows by a fifth in four months."""
    return Lesion(**{**vars(lesion), "radius": lesion.radius * (1 + 0.2 * days / 120)})


def _days_to_event(rng: np.random.Generator, lesions: list[Lesion], shape_class: str) -> int:
    """Exponential follow-up, at least 300 days; spikes and large nodules raise the risk."""
    volume_ml = sum(4.19 * lesion.radius**3 / 1000 for lesion in lesions)
    risk = np.exp(1.2 * (shape_class == "spiculated") + 0.06 * volume_ml)
    return 300 + int(rng.exponential(2200 / risk))


def _grid(index: int, rng: np.random.Generator) -> tuple[tuple[int, int, int], np.ndarray]:
    """Voxel counts and affine: RAS and LPS in turn, study 5 oblique, study 8 with thick slices."""
    in_plane = float(rng.choice([3.8, 4.0, 4.2]))
    spacing = np.array([in_plane, in_plane, 9.0 if index == 8 else float(rng.choice([4.0, 4.5]))])
    extent = np.array([350.0, 262.0, 168.0])
    size = np.ceil(extent / spacing).astype(int)
    turn = _rotation(0.16, 0.10) if index == 5 else np.eye(3)
    signs = np.diag([1.0, 1.0, 1.0] if index % 2 == 0 else [-1.0, -1.0, 1.0])
    axes = turn @ signs @ np.diag(spacing)
    centre = np.array([0.0, -13.0, 6.0]) + rng.uniform(-3, 3, 3)
    affine = np.eye(4)
    affine[:3, :3] = axes
    affine[:3, 3] = centre - axes @ ((size - 1) / 2)
    return (int(size[0]), int(size[1]), int(size[2])), affine.round(6)


def _rotation(about_x: float, about_z: float) -> np.ndarray:
    cx, sx, cz, sz = np.cos(about_x), np.sin(about_x), np.cos(about_z), np.sin(about_z)
    return np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]]) @ np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
