"""What readers wait for, measured on a real server: the next study, and answers while studies are scored.

    python benchmarks/readers.py [--studies 10000] [--blocks 5] [--json FILE]

next    Six readers at once ask 100 times each, one question right after the other, of a server with many studies.
        No study may come twice and no question may fail. The same for each strategy asked about.
delays  A reader asks for answers, some seconds apart, so that scoring goes on between them: in blocks, in turn while
        all is scored and while nothing is (the scores are deleted). The medians of the same studies are compared,
        with a 95 % interval from drawing the pairs again.

Studies are made up; the version is of random weights, which takes as long as one that learned. Run it on a machine that
does nothing else.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
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
from tqdm import tqdm

from radloop.engine.weights import save_weights
from radloop.networks.registry import build
from radloop.recipes.load import load_recipe
from radloop.registry.registry import Registry
from radloop.strategies.score_cache import ScoreCache
from radloop.studies.home import Home

OUT = Path(__file__).parent / "results" / "readers.json"
READERS, QUESTIONS = 6, 100
STRATEGIES = ("auto", "clasp_pe", "random")
SCORED, ASKED, PAUSE = 60, 8, 4.0  # studies to score; answers a block; seconds, twice what scoring rests
RECIPE = """
name = "blob"
labels = { lesion = 1, organ = 2 }
[preprocess]
normalise = "zscore"
[network]
features = %s
strides = [[1, 1, 1], [2, 2, 2], [2, 2, 2]]
[fit]
patch = %s
"""


class Place:
    """Made-up studies and a version that serves, in a folder of its own.

    Args:
        shape: voxels of a study.
        hard: a network and a patch that take about a second a study.
    """

    def __init__(self, folder: Path, count: int, shape: tuple[int, int, int], *, hard: bool) -> None:
        self.studies, self.home, self.log = folder / "studies", Home(folder / "home"), folder / "serve.log"
        self.studies.mkdir()
        kinds = [folder / f"kind{number}.nii.gz" for number in range(min(count, SCORED))]
        for number, kind in enumerate(kinds):
            image = np.random.default_rng(number).normal(size=shape).astype(np.float32)
            nib.save(nib.Nifti1Image(image, np.eye(4)), kind)
        for number in range(count):
            os.link(kinds[number % len(kinds)], self.studies / f"s{number:05d}.nii.gz")
        sizes = ("[16, 32, 64]", "[32, 32, 32]") if hard else ("[4, 8, 8]", "[16, 16, 8]")
        (self.home.recipes / "blob.toml").write_text(RECIPE % sizes)
        recipe, registry = load_recipe("blob", self.home.path), Registry(self.home)
        staged = registry.stage(recipe)
        save_weights(build(recipe), staged / "model.pt")
        self.version = registry.promote(registry.publish(recipe, staged, {"labels": []})).number

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

    def scored(self) -> int:
        """Studies that have a score by now."""
        return len(ScoreCache(self.home).scores("blob", self.version))

    def forget_scores(self) -> None:
        """As if nothing had been scored."""
        shutil.rmtree(self.home.cache / "scores", ignore_errors=True)


def next_studies(folder: Path, count: int) -> dict[str, Any]:
    """Seconds to the next study, of six readers at once and of one alone."""
    place, told = Place(folder, count, (16, 16, 8), hard=False), dict[str, Any]()
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


def delays(folder: Path, blocks: int) -> dict[str, Any]:
    """How much longer an answer takes while studies are scored."""
    place, waited = Place(folder, SCORED, (64, 64, 48), hard=True), dict[str, list[float]](quiet=[], scoring=[])
    with place.served() as url, tqdm(total=2 * blocks, unit="block", desc="delays") as bar:
        most = _settled(place)
        _answers(url, 0)
        for block in range(blocks):
            waited["quiet"] += _answers(url, block)
            bar.update()
            place.forget_scores()
            before = place.scored()
            waited["scoring"] += _answers(url, block)
            if not before < place.scored() < most:
                msg = (
                    f"{place.scored()} of {most} studies are scored after a block, {before} before; scoring must go on"
                )
                raise RuntimeError(msg)
            bar.update()
            _settled(place)
    quiet, busy = (np.array(waited[name]) for name in ("quiet", "scoring"))
    rng = np.random.default_rng(0)
    drawn = rng.integers(len(quiet), size=(2000, len(quiet)))
    ratios = np.median(busy[drawn], 1) / np.median(quiet[drawn], 1) - 1
    low, high = np.percentile(ratios, [2.5, 97.5])
    percent = {"value": float(np.median(busy) / np.median(quiet) - 1), "low": float(low), "high": float(high)}
    told = {name: _spread(of) for name, of in waited.items()}
    return {"answers": len(quiet), "to_score": most, **told, "later": percent}


def _settled(place: Place) -> int:
    """Waits until everything is scored; the number of it."""
    seen = [-1, place.scored()]
    while seen[-1] == 0 or seen[-1] != seen[-2]:
        time.sleep(10)
        seen.append(place.scored())
    return seen[-1]


def _answers(url: str, block: int) -> list[float]:
    """Seconds of a few answers; a block asks about the same studies each time."""
    seconds = []
    for number in range(block * ASKED, (block + 1) * ASKED):
        time.sleep(PAUSE)
        begun = time.perf_counter()
        path = f"{url}/infer/blob?image=s{number % SCORED:05d}&output=json"
        requests.post(path, timeout=120).raise_for_status()
        seconds.append(time.perf_counter() - begun)
    return seconds


def _spread(seconds: Sequence[float]) -> dict[str, float]:
    points = {"median": 0.5, "p99": 0.99, "worst": 1.0}
    return {f"{name}_ms": round(1000 * float(np.quantile(seconds, share)), 1) for name, share in points.items()}


def main(argv: Sequence[str] | None = None) -> int:
    """Measure both, write the result file, print it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--studies", type=int, default=10_000)
    parser.add_argument("--blocks", type=int, default=5)
    parser.add_argument("--json", type=Path, default=OUT)
    options = parser.parse_args(argv)
    told = {"cores": os.cpu_count()}
    for name, measure in (("next", next_studies), ("delays", delays)):
        with tempfile.TemporaryDirectory() as folder:
            told[name] = measure(Path(folder), options.studies if name == "next" else options.blocks)
        options.json.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    print(options.json.read_text(encoding="utf-8"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
