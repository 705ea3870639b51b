"""What readers wait for, measured on a real server: the next study.

    python benchmarks/readers.py [--studies 10000] [--json FILE]

Six readers at once ask 100 times each, one question right after the other, of a server with many studies; then one
alone. No study may come twice and no question may fail. The same for each strategy asked about.

Studies are made up; the version is of random weights, which takes as long as one that learned. Run it on a machine that
does nothing else.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import requests
from crash_driver import free_port, until

from radloop.engine.weights import save_weights
from radloop.networks.registry import build
from radloop.recipes.load import load_recipe
from radloop.registry.registry import Registry
from radloop.studies.home import Home

OUT = Path(__file__).parent / "results" / "readers.json"
READERS, QUESTIONS = 6, 100
STRATEGIES = ("auto", "clasp_pe", "random")
KINDS = 60  # of images, each behind many names
RECIPE = """
name = "blob"
labels = { lesion = 1, organ = 2 }
[preprocess]
normalise = "zscore"
[network]
features = [4, 8, 8]
strides = [[1, 1, 1], [2, 2, 2], [2, 2, 2]]
[fit]
patch = [16, 16, 8]
"""


class Place:
    """Made-up studies and a version that serves, in a folder of its own.

    Args:
        shape: voxels of a study.
    """

    def __init__(self, folder: Path, count: int, shape: tuple[int, int, int]) -> None:
        self.studies, self.home, self.log = folder / "studies", Home(folder / "home"), folder / "serve.log"
        self.studies.mkdir()
        kinds = [folder / f"kind{number}.nii.gz" for number in range(min(count, KINDS))]
        for number, kind in enumerate(kinds):
            image = np.random.default_rng(number).normal(size=shape).astype(np.float32)
            nib.save(nib.Nifti1Image(image, np.eye(4)), kind)
        for number in range(count):
            os.link(kinds[number % len(kinds)], self.studies / f"s{number:05d}.nii.gz")
        (self.home.recipes / "blob.toml").write_text(RECIPE)
        recipe, registry = load_recipe("blob", self.home.path), Registry(self.home)
        staged = registry.stage(recipe)
        save_weights(build(recipe), staged / "model.pt")
        registry.promote(registry.publish(recipe, staged, {"labels": []}))

    @contextlib.contextmanager
    def served(self) -> Iterator[str]:
        """The address of `radloop serve` on it, until the end."""
        port = free_port()
        command = [sys.executable, "-m", "radloop.apps.cli", "--home", str(self.home.path), "serve"]
        with self.log.open("wb") as out:
            server = subprocess.Popen(
                [*command, "--studies", str(self.studies), "--port", str(port)], stdout=out, stderr=out
            )
        try:
            until(lambda: b"stop with Ctrl-C" in self.log.read_bytes() or server.poll() is not None, 300)
            if server.poll() is not None:
                msg = f"the server did not start: {self.log.read_text()[-2000:]}"
                raise RuntimeError(msg)
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()
            server.wait(60)


def next_studies(folder: Path, count: int) -> dict[str, Any]:
    """Seconds to the next study, of six readers at once and of one alone."""
    place, told = Place(folder, count, (16, 16, 8)), dict[str, Any]()
    with place.served() as url:
        for strategy in STRATEGIES:
            with ThreadPoolExecutor(READERS) as crowd:
                asked = crowd.map(lambda reader, s=strategy: _ask(url, s, f"{s}-{reader}", QUESTIONS), range(READERS))
                given = [one for of in asked for one in of]
            studies = [study for study, _ in given]
            lost = READERS * QUESTIONS - len(set(studies))
            told[strategy] = {"questions": len(given), "twice_or_lost": lost, **_spread([s for _, s in given])}
        told["alone"] = _spread([s for _, s in _ask(url, "auto", "alone", QUESTIONS)])
    return {"studies": count, "readers": READERS, **told}


def _ask(url: str, strategy: str, reader: str, count: int) -> list[tuple[str, float]]:
    found = []
    with requests.Session() as session:
        for _ in range(count):
            begun = time.perf_counter()
            reply = session.post(f"{url}/activelearning/{strategy}", json={"client_id": reader}, timeout=60)
            seconds = time.perf_counter() - begun
            reply.raise_for_status()
            found.append((reply.json()["id"], seconds))
    return found


def _spread(seconds: Sequence[float]) -> dict[str, float]:
    points = {"median": 0.5, "p99": 0.99, "worst": 1.0}
    return {f"{name}_ms": round(1000 * float(np.quantile(seconds, share)), 1) for name, share in points.items()}


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, write the result file, print it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--studies", type=int, default=10_000)
    parser.add_argument("--json", type=Path, default=OUT)
    options = parser.parse_args(argv)
    least = (len(STRATEGIES) + 1) * READERS * QUESTIONS
    if options.studies < least:
        parser.error(f"--studies {options.studies} do not last for all questions; give {least} or more")
    with tempfile.TemporaryDirectory() as folder:
        told = {"cores": os.cpu_count(), "next": next_studies(Path(folder), options.studies)}
    options.json.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    print(options.json.read_text(encoding="utf-8"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
