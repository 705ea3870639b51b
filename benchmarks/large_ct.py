"""One click on a large CT: does the answer come back within a minute, and does a training beside it hurt?

Makes a synthetic CT of 512 x 512 x 300 voxels (0.8 x 0.8 x 1.5 mm) and six small labelled ones, plans a recipe with
`answer_seconds = 60`, trains it for a few steps (the answer's quality is not the question here), publishes the version
and measures one answer, alone and while a training runs in another process: through the predictor in a fresh process,
and as a viewer asks for it, from `radloop serve` over HTTP. Run it on a machine that does nothing else: `load_before`
must be near 0, or `seconds` says more about the others than about radloop.

    python benchmarks/large_ct.py [--json benchmarks/results/large_ct.json] [--work DIR]

Targets: at most 60 s and 6 GB, and at most twice the time while a training runs.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import socket
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import psutil

SHAPE, SPACING = (512, 512, 300), (0.8, 0.8, 1.5)
SMALL = (224, 224, 64)
ANSWER_SECONDS = 60.0
MOST_GB = 6.0
MOST_TIMES_SLOWER = 2.0


def main() -> int:
    """Measure, write the figures, and return 0 where all targets are met."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, default=Path(__file__).parent / "results" / "large_ct.json")
    parser.add_argument("--work", type=Path, help="folder for the studies; a temporary one by default")
    parser.add_argument("--answer", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--train", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.answer:
        return answer(options.answer)
    if options.train:
        return train(options.train)
    with tempfile.TemporaryDirectory() as temporary:
        figures = measure(options.work or Path(temporary))
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(figures, indent=1))
    return 0 if all(figures["met"].values()) else 1


def measure(work: Path) -> dict[str, Any]:
    """All figures of the benchmark."""
    load = os.getloadavg()[0]  # before the first load of our own
    given = [f"{name}={os.environ[name]}" for name in ("OMP_WAIT_POLICY", "OMP_NUM_THREADS") if name in os.environ]
    studies = make_studies(work / "studies")
    begun = time.monotonic()
    text = plan(studies)
    planned = time.monotonic() - begun
    make_version(studies)
    alone = run_answer(studies)
    with training(studies):
        beside = run_answer(studies)
    with serving(studies) as server:
        served = server.click()
        with training(studies):
            served_beside = server.click()
    return {
        "command": " ".join([*given, "python benchmarks/large_ct.py"]),
        "machine": f"{os.cpu_count()} cores, {platform.processor() or platform.machine()}",
        "load_before": round(load, 2),
        "omp_wait_policy": env(studies).get("OMP_WAIT_POLICY", "not set"),
        "study": {"shape": SHAPE, "spacing_mm": SPACING},
        "plan_seconds": round(planned, 1),
        "plan": [line for line in text.splitlines() if line.startswith(("spacing", "features", "patch"))],
        "estimate": " ".join(line.lstrip("# ") for line in text.split("\n\n")[0].splitlines()),
        "alone": alone,
        "while_training": beside,
        "served": served,
        "served_while_training": served_beside,
        "met": {
            "60 s": max(alone["seconds"], served["seconds"]) <= ANSWER_SECONDS,
            "6 GB": max(alone["peak_gb"], served["peak_gb"]) <= MOST_GB,
            "twice while training": beside["seconds"] <= MOST_TIMES_SLOWER * alone["seconds"]
            and served_beside["seconds"] <= MOST_TIMES_SLOWER * served["seconds"],
        },
    }


def make_studies(folder: Path) -> Path:
    """A studies folder with the large CT and six small labelled ones."""
    final = folder / "labels" / "final"
    final.mkdir(parents=True, exist_ok=True)
    if not (folder / "large.nii.gz").exists():
        for number in range(6):
            image, mask = phantom(SMALL, seed=number)
            save(folder / f"small{number}.nii.gz", image)
            save(final / f"small{number}.nii.gz", mask)
        save(folder / "large.nii.gz", phantom(SHAPE, seed=99)[0])
    return folder


def phantom(shape: tuple[int, int, int], seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A body of 40 HU with two lungs and some nodules in noise (int16), and the mask of the nodules."""
    rng = np.random.default_rng(seed)
    grid = np.ogrid[tuple(slice(-1, 1, n * 1j) for n in shape)]
    x, y, z = (axis.astype(np.float32) for axis in grid)
    image = np.full(shape, -1000, np.int16)
    image[np.broadcast_to(x**2 / 0.8 + y**2 / 0.5 < 1, shape)] = 40
    for side in (-0.42, 0.42):
        image[(x - side) ** 2 / 0.08 + y**2 / 0.2 + z**2 / 0.8 < 1] = -850
    mask = np.zeros(shape, np.uint8)
    for centre in rng.uniform(-0.5, 0.5, (6, 3)):
        extent = [n * mm for n, mm in zip(shape, SPACING, strict=True)]
        axes = [(axis - c) * mm / 2 for axis, c, mm in zip((x, y, z), centre, extent, strict=True)]
        mask[sum(axis**2 for axis in axes) < rng.uniform(6, 12) ** 2] = 1
    image[mask > 0] = 60
    for plane in range(shape[2]):
        image[..., plane] += rng.normal(0, 20, shape[:2]).astype(np.int16)
    return image, mask


def save(path: Path, array: np.ndarray) -> None:
    """Write a NIfTI in radiological orientation, as scanners' converters do."""
    nib.save(nib.Nifti1Image(array, np.diag([-SPACING[0], -SPACING[1], SPACING[2], 1.0])), path)


def plan(studies: Path) -> str:
    """Plan the recipe and keep it beside the studies' home."""
    from radloop.engine.plan import plan_recipe
    from radloop.studies.folder import StudiesFolder
    from radloop.studies.home import Home

    home = Home.find(studies)
    text = plan_recipe(
        StudiesFolder(studies), home, answer_seconds=ANSWER_SECONDS, name="large_ct", labels={"nodule": 1}
    )
    (home.recipes / "large_ct.toml").write_text(text, encoding="utf-8")
    return text


def cases(studies: Path) -> list[Any]:
    """The small studies as training cases."""
    from radloop.studies.cases import Case

    found = []
    for path in sorted(studies.glob("small*.nii.gz")):
        name = path.name.removesuffix(".nii.gz")
        label = studies / "labels" / "final" / path.name
        found.append(Case(name, name, "train", (path,), label, ("nodule",), 0, True))
    return found


def make_version(studies: Path) -> None:
    """Train for three steps and let the version serve."""
    from radloop.engine.fit import fit
    from radloop.recipes.load import load_recipe
    from radloop.registry.registry import Registry
    from radloop.studies.home import Home

    home = Home.find(studies)
    recipe = load_recipe("large_ct", home.path)
    registry = Registry(home)
    staged = registry.stage(recipe)
    short = recipe.model_copy(update={"fit": recipe.fit.model_copy(update={"steps": 3})})
    fit(short, cases(studies), staged, cache=home.cache / "large_ct", epochs=1)
    registry.promote(registry.publish(recipe, staged, {"epochs": 1, "state": "provisional"}))


def env(studies: Path) -> dict[str, str]:
    """The environment in which the server answers and trains."""
    from radloop.apps.host_settings import host_env
    from radloop.studies.home import Home

    # waiting threads sleep, as the command line sets it: spinning ones steal from the training beside them
    return {"OMP_WAIT_POLICY": "PASSIVE", **os.environ, **host_env(studies, Home.find(studies), ["large_ct"])}


class Server:
    """`radloop serve` with one recipe, asked as a viewer asks."""

    def __init__(self, process: subprocess.Popen[str], port: int) -> None:
        self._process = process
        self._url = f"http://127.0.0.1:{port}"

    def wait(self) -> None:
        """Return when it answers."""
        end = time.monotonic() + 600
        while time.monotonic() < end and self._process.poll() is None:
            try:
                with urllib.request.urlopen(f"{self._url}/info/", timeout=30):
                    return
            except OSError:
                time.sleep(0.5)
        msg = "radloop serve did not come up"
        raise RuntimeError(msg)

    def click(self) -> dict[str, Any]:
        """Figures of one answer, from the request to the last byte of the mask; the peak is the server's own."""
        parts = urllib.parse.urlencode({"params": "{}"}).encode()
        begun = time.monotonic()
        with urllib.request.urlopen(
            f"{self._url}/infer/large_ct?image=large&output=image", parts, timeout=1800
        ) as reply:
            size = len(reply.read())
        family = [self._process, *psutil.Process(self._process.pid).children(recursive=True)]
        return {
            "seconds": round(time.monotonic() - begun, 2),
            "mask_bytes": size,
            "peak_gb": round(max(peak_bytes(member.pid) for member in family) / 1e9, 2),
        }


@contextmanager
def serving(studies: Path) -> Iterator[Server]:
    """A server of these studies."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    radloop = [sys.executable, "-m", "radloop.apps.cli"]
    command = [*radloop, "serve", "--studies", str(studies), "--recipes", "large_ct", "--port", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, text=True)
    try:
        server = Server(process, port)
        server.wait()
        yield server
    finally:
        process.terminate()
        process.wait()


def peak_bytes(pid: int) -> int:
    """The most memory that a process ever held (Linux)."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0


def run_answer(studies: Path) -> dict[str, Any]:
    """The figures of one answer in a fresh process."""
    done = subprocess.run(
        [sys.executable, __file__, "--answer", str(studies)],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        env=env(studies),
    )
    return json.loads(done.stdout.splitlines()[-1])


def answer(studies: Path) -> int:
    """One click: the champion, the study, the mask on disk. Prints its figures."""
    begun = time.monotonic()
    from radloop.engine.predictor import PredictorCache
    from radloop.registry.registry import Registry
    from radloop.studies.folder import StudiesFolder
    from radloop.studies.home import Home
    from radloop.studies.images import read_study, write_mask

    version = Registry(Home.find(studies)).champion("large_ct")
    predictor = PredictorCache().get(version)
    ready, used = time.monotonic(), time.process_time()
    volume = read_study(StudiesFolder(studies).study("large").channels)
    read = time.monotonic()
    found = predictor.predict(volume)
    predicted = time.monotonic()
    with tempfile.TemporaryDirectory() as temporary:
        write_mask(Path(temporary) / "answer.nii.gz", found.mask, found.affine)
    written = time.monotonic()
    figures = {
        "seconds": written - ready,
        "read": read - ready,
        "predict": predicted - read,
        "write": written - predicted,
        "processor_seconds": time.process_time() - used,
        "start_of_process": ready - begun,
        "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9,
    }
    print(json.dumps({name: round(value, 2) for name, value in figures.items()}))
    return 0


@contextmanager
def training(studies: Path) -> Iterator[None]:
    """A training that is under way in another process, as the server starts one: nice 10, all cores but one."""
    command = [sys.executable, __file__, "--train", str(studies)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env(studies))
    try:
        if process.stdout is None or "under way" not in process.stdout.readline():
            msg = f"the training ended with {process.wait()} before its first step"
            raise RuntimeError(msg)
        yield
        if process.poll() is not None:
            msg = "the training ended before the answer did; it measures nothing"
            raise RuntimeError(msg)
    finally:
        process.kill()
        process.wait()


def train(studies: Path) -> int:
    """Train until killed; says when the first step is done."""
    from radloop.engine.fit import fit
    from radloop.recipes.load import load_recipe
    from radloop.studies.home import Home

    os.nice(10)
    home = Home.find(studies)
    said = []

    def progress(now: object) -> None:
        if not said:
            said.append(now)
            print("under way", flush=True)

    with tempfile.TemporaryDirectory() as temporary:
        fit(
            load_recipe("large_ct", home.path),
            cases(studies),
            Path(temporary),
            cache=home.cache / "large_ct",
            minutes=30,
            threads=max(1, (os.cpu_count() or 2) - 1),
            progress=progress,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
