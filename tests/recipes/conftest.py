"""A large CT, prepared and restored in a process of its own, so that its memory can be told."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable

import pytest

SCRIPT = """
import json, resource, time
import numpy as np, torch
from radloop.recipes.preprocess import Preprocess
from radloop.recipes.recipe import Recipe
from radloop.recipes.volume import Volume
torch.set_num_threads(1)
recipe = Recipe(name="big", labels={"a": 1, "b": 2}, preprocess={"spacing": (SPACING), "normalise": "ct"})
array = np.zeros((1, 512, 512, 300), np.int16, order="F")
array[0, 100:300, 100:300] = 60
way, peak = Preprocess(recipe), lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
start, before = time.process_time(), peak()
image, grid = way.image(Volume(array, np.diag([-0.8, -0.8, 1.0, 1.0])))
image_s, used = time.process_time() - start, peak() - before
scores = torch.cat([image, -image, image - 1])
start = time.process_time()
way.restore(scores, grid)
print(json.dumps({"image_s": image_s, "restore_s": time.process_time() - start, "peak_gb": used}))
"""


@pytest.fixture
def time_and_peak() -> Callable[[str], dict[str, float]]:
    """For 512 x 512 x 300 voxels: processor seconds of `image` and `restore` at a spacing, and GB that `image` took."""

    def run(spacing: str) -> dict[str, float]:
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT.replace("SPACING", spacing)],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        return json.loads(done.stdout)

    return run
