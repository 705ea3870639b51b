"""A made-up chest: body wall, ribs, spine, heart, aorta, liver and two lungs with vessels and nodules.

Nothing here comes from a person. Sizes follow textbook anatomy roughly; the frame is RAS in mm with the origin in the
middle of the chest, so x grows to the patient's right-hand side of the world (R+), y to the front, z to the head.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter

from radloop.sample_studies.canvas import Canvas, ellipsoid


@dataclass(frozen=True)
class Lesion:
    """A nodule: `centre` and `radius` in mm, directions (n, 3) and heights (n,) of its spikes, its density in HU."""

    centre: np.ndarray
    radius: float
    spikes: np.ndarray
    heights: np.ndarray
    sharpness: float
    hu: float

    def distance(self, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
        """Signed distance in mm (approximate): a ball whose radius rises towards its spikes."""
        offset = np.stack([x, y, z], -1) - self.centre.astype(np.float32)
        length = np.sqrt((offset**2).sum(-1))
        facing = np.clip((offset / np.maximum(length, 1e-3)[..., None]) @ self.spikes.T.astype(np.float32), 0, 1)
        return length - self.radius * (1 + facing**self.sharpness @ self.heights.astype(np.float32))

    @property
    def reach(self) -> float:
        """No part lies farther than this from the centre, mm."""
        return self.radius * (1 + float(self.heights.sum()))


@dataclass(frozen=True)
class Anatomy:
    """What differs between patients: sizes relative to the middle, fat in mm, contrast in HU."""

    width: float
    depth: float
    fat: float
    blood: float
    seed: int


def make_anatomy(rng: np.random.Generator) -> Anatomy:
    """Draws a patient."""
    return Anatomy(
        width=rng.uniform(0.93, 1.05),
        depth=rng.uniform(0.93, 1.07),
        fat=rng.uniform(9, 20),
        blood=rng.uniform(110, 190),
        seed=int(rng.integers(2**31)),
    )


def make_lesion(rng: np.random.Generator, anatomy: Anatomy, radius: float, spiculated: bool) -> Lesion:
    """Draws a nodule somewhere in the lungs, clear of the heart and the diaphragm."""
    count = 14 if spiculated else 4
    spikes = rng.normal(size=(count, 3))
    spikes /= np.linalg.norm(spikes, axis=1, keepdims=True)
    heights = rng.uniform(0.6, 1.1, count) if spiculated else rng.uniform(0.0, 0.12, count)
    return Lesion(
        centre=_place_in_lung(rng, anatomy, radius),
        radius=radius * (0.85 if spiculated else 1.0),
        spikes=spikes,
        heights=heights,
        sharpness=22.0 if spiculated else 2.0,
        hu=float(rng.uniform(15, 60)),
    )


def _place_in_lung(rng: np.random.Generator, anatomy: Anatomy, radius: float) -> np.ndarray:
    while True:
        point = rng.uniform((-125, -75, -25), (125, 65, 55))
        inside = lung_distance(point[:1], point[1:2], point[2:], anatomy)[0]
        if inside < -(radius + 2) and abs(point[0]) > 45:
            return point


def lung_distance(x: np.ndarray, y: np.ndarray, z: np.ndarray, anatomy: Anatomy) -> np.ndarray:
    """Signed distance in mm (negative in the lungs) to both lungs: the chest less mediastinum and diaphragm."""
    w, d = anatomy.width, anatomy.depth
    sides = [ellipsoid(x, y, z, (s * 72 * w, -2, -10), (58 * w, 84 * d, 118), 2.3) for s in (1, -1)]
    dome = (
        -62
        + 34 * np.exp(-((x - 75 * w) ** 2 + (y - 10) ** 2) / 65**2)
        + 26 * np.exp(-((x + 75 * w) ** 2 + y**2) / 60**2)
    )
    heart = _heart(x, y, z, anatomy) - 4
    middle = 24 - np.abs(x)
    return np.maximum.reduce([np.minimum(*sides), dome - z, -heart, middle])


def _heart(x: np.ndarray, y: np.ndarray, z: np.ndarray, anatomy: Anatomy) -> np.ndarray:
    return ellipsoid(x + 0.25 * z, y, z, (-24, 24, -28), (50 * anatomy.width, 42 * anatomy.depth, 48))


_WAYS = ((1, 0.3, 0.9), (1, 0.9, 0.2), (1, 0.1, -0.2), (0.8, -0.9, 0.3), (1, -0.5, -0.9))
"""Where the vessels of a right lung leave its root; the left mirrors them."""


def paint_chest(canvas: Canvas, anatomy: Anatomy) -> None:
    """Paints everything but the lesions, without noise."""
    x, y, z = canvas.x, canvas.y, canvas.z
    _paint_wall(canvas, anatomy)
    _paint_bones(canvas, anatomy)
    lungs = canvas.paint(lung_distance(x, y, z, anatomy), -850 - 0.35 * y)
    _paint_upper_abdomen(canvas, anatomy)
    _paint_mediastinum(canvas, anatomy)
    rng = np.random.default_rng(anatomy.seed)
    for side in (1, -1):
        root = np.array([side * 27.0, -8.0, 5.0])
        for way in _WAYS:
            _paint_vessel(canvas, rng, root, np.array(way) * (side, 1, 1), 5.0, 24.0, anatomy.blood, lungs)


def _paint_wall(canvas: Canvas, anatomy: Anatomy) -> None:
    x, y, z = canvas.x, canvas.y, canvas.z
    a, b = 148 * anatomy.width, 102 * anatomy.depth
    outline = ellipsoid(x, y, z, (0, 0, 0), (a + anatomy.fat, b + anatomy.fat, np.inf), 2.35)
    canvas.paint(np.abs(np.hypot(x, y - 240) - 358 - anatomy.fat) - 2.5, -150, y < -60)  # the table
    canvas.paint(outline, 15)  # skin
    canvas.paint(outline + 2.5, -100)  # fat
    canvas.paint(ellipsoid(x, y, z, (0, -2, 0), (a, b, np.inf), 2.35), 55)  # muscle
    canvas.paint(np.abs(ellipsoid(x, y, z, (0, -2, 0), (a - 9, b - 8, np.inf), 2.35)) - 1.5, -80)  # fat between


def _paint_bones(canvas: Canvas, anatomy: Anatomy) -> None:
    x, y, z = canvas.x, canvas.y, canvas.z
    ring = ellipsoid(x, y, z, (0, -2, 0), (134 * anatomy.width, 90 * anatomy.depth, np.inf), 2.35)
    height = np.mod(z + 0.45 * y, 25.0) - 12.5
    rib = np.hypot(ring, 0.75 * height) - 5.5
    canvas.paint(rib, 320, np.abs(x) > 14)
    canvas.paint(rib + 3, 180, np.abs(x) > 14)
    canvas.paint(ellipsoid(x, y, z, (0, 84 * anatomy.depth, 20), (17, 6, 85), 4), 220)  # sternum
    back = -66 * anatomy.depth
    body = ellipsoid(x, y, z, (0, back, 0), (19, 15, np.inf))
    disc = np.abs(np.mod(z, 27.0) - 13.5) > 10.5
    canvas.paint(body, np.where(disc, 90, 260))
    canvas.paint(body + 4, np.where(disc, 80, 170))
    canvas.paint(ellipsoid(x, y, z, (0, back - 24, 0), (15, 9, np.inf)), 280)  # arch
    canvas.paint(ellipsoid(x, y, z, (0, back - 20, 0), (9, 7, np.inf)), 25)  # canal
    spinous = ellipsoid(x, y, z, (0, back - 36, 0), (3.5, 14, np.inf))
    canvas.paint(spinous, 260, np.abs(np.mod(z - 0.6 * y, 27.0) - 13.5) < 8)


def _paint_upper_abdomen(canvas: Canvas, anatomy: Anatomy) -> None:
    x, y, z = canvas.x, canvas.y, canvas.z
    w = anatomy.width
    below = lung_distance(x, y, z + 5, anatomy) > 2
    canvas.paint(ellipsoid(x, y, z, (58 * w, 2, -92), (88 * w, 84, 62), 2.4), 100, below & (z < -25))  # liver
    canvas.paint(ellipsoid(x, y, z, (-88 * w, -38, -92), (32, 38, 48)), 120, below & (z < -25))  # spleen
    canvas.paint(ellipsoid(x, y, z, (-62 * w, 30, -98), (40, 36, 46)), 30, below & (z < -40))  # stomach
    canvas.paint(ellipsoid(x, y, z, (-62 * w, 46, -96), (28, 16, 30)), -950, below & (z < -48))  # its air


def _paint_mediastinum(canvas: Canvas, anatomy: Anatomy) -> None:
    x, y, z = canvas.x, canvas.y, canvas.z
    blood = anatomy.blood
    middle = ellipsoid(x, y, z, (0, 8, 10), (27, 62, 120), 3)
    canvas.paint(middle, -75, _away_from_spine(y, anatomy))
    canvas.paint(_heart(x, y, z, anatomy), 60)
    canvas.paint(_heart(x, y, z, anatomy) + 10, 0.85 * blood)
    canvas.paint(_heart(x, y, z, anatomy) + 34, 60)
    canvas.paint(ellipsoid(x, y, z, (-20, -44 * anatomy.depth, 0), (12, 12, np.inf)), blood)  # descending aorta
    canvas.paint(_arch(x, y, z), blood)
    canvas.paint(ellipsoid(x, y, z, (24, 22, 60), (9, 10, 62)), 1.1 * blood)  # superior vena cava
    canvas.paint(ellipsoid(x, y, z, (0, 6, 12), (34, 12, 13)), blood)  # pulmonary arteries
    canvas.paint(ellipsoid(x, y, z, (2, -14, 72), (9, 9, 54), 4), 40)  # trachea and its wall
    canvas.paint(ellipsoid(x, y, z, (2, -14, 72), (7, 7, 54), 4), -990)
    for side in (1, -1):
        canvas.paint(ellipsoid(x, y, z + 0.5 * np.abs(x), (side * 17, -15, 31), (19, 5.5, 6)), -980)  # main bronchi


def _arch(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Ascending aorta and arch: half a ring from front right to back left."""
    along = (y + 10) * 0.85 - x * 0.5
    across = (y + 10) * 0.5 + x * 0.85 + 2
    ring = np.hypot(np.hypot(along - 4, np.maximum(z - 42, 0)) - 30, across) - 12
    return np.maximum(ring, -18 - z)


def _away_from_spine(y: np.ndarray, anatomy: Anatomy) -> np.ndarray:
    return y > -48 * anatomy.depth


def _paint_vessel(
    canvas: Canvas,
    rng: np.random.Generator,
    start: np.ndarray,
    way: np.ndarray,
    radius: float,
    length: float,
    hu: float,
    lungs: np.ndarray,
) -> None:
    """Paints a branch and its daughters (radius falls by Murray's law, a factor of about 0.79 a fork)."""
    if radius < 1.2:
        return
    way = way / np.linalg.norm(way)
    end = start + way * length * rng.uniform(0.8, 1.2)
    canvas.paint_tube(start, end, radius, hu, lungs)
    for _ in range(2):
        daughter = way + rng.normal(scale=0.55, size=3)
        _paint_vessel(canvas, rng, end, daughter, radius * rng.uniform(0.7, 0.86), length * 0.86, hu, lungs)


def add_noise(hu: np.ndarray, rng: np.random.Generator, deviation: float = 14.0) -> np.ndarray:
    """Quantum noise with the grain of a soft kernel plus slow tissue texture; int16 HU, air outside left clean."""
    grain = gaussian_filter(rng.normal(size=hu.shape).astype(np.float32), 0.6)
    texture = gaussian_filter(rng.normal(size=hu.shape).astype(np.float32), 2.0)
    noisy = hu + deviation * grain / grain.std() + 6 * texture / texture.std()
    noisy = np.where(hu < -990, -1000, noisy)
    return np.clip(4 * np.round(noisy / 4), -1024, 1500).astype(np.int16)
