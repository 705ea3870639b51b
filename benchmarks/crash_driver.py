"""One home, and a server on it whose processes are killed at random moments; for `crashes.py` and the tests."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import psutil
import requests

RECIPE = """
name = "tiny"
labels = { lesion = 1, organ = 2 }
[preprocess]
normalise = "zscore"
[network]
features = [4, 8]
strides = [[1, 1, 1], [2, 2, 2]]
[fit]
patch = [16, 16, 8]
steps = 20
epochs = 8
[gate]
first_model_after = 2
"""
KINDS = ("server", "training", "both")
SHAPE = (24, 22, 12)
STUDIES = 12
CLIENTS = 3
SPAN = 9.0
"""Seconds in which the moment lies, after a training was asked for or came into the ledger; each takes about that."""
LATE = 0.6
"""Share of the rounds whose moment is counted from when the training is in the ledger; in the others it is counted from
when it was asked for, so that most of them kill while its process imports."""
TRAINS = "monailabel.interfaces.utils.app"
"""What is in the command line of a training's process."""


@dataclass(frozen=True)
class Acknowledged:
    """A label that the server said it keeps."""

    row: int
    study: str
    mask: np.ndarray


@dataclass
class Seen:
    """What was seen over the rounds, to compare with."""

    labels: list[Acknowledged] = field(default_factory=list)
    answers: dict[int, str] = field(default_factory=dict)
    processes: dict[int, float] = field(default_factory=dict)
    most_trainings: int = 0


class Crashes:
    """One home, and a server on it that is killed again and again.

    Args:
        folder: an empty folder.
        seed: of moments, kinds and masks.
    """

    def __init__(self, folder: Path, seed: int = 0) -> None:
        from radloop.studies.home import Home
        from radloop.studies.ledger import Ledger

        self.studies, self.home, self.log = folder / "studies", Home(folder / "home"), folder / "serve.log"
        self.seed, self.seen = seed, Seen()
        self.studies.mkdir(parents=True)
        for number in range(STUDIES):
            _study(self.studies / f"s{number:02d}.nii.gz", number)
        (self.home.recipes / "tiny.toml").write_text(RECIPE)
        _first_version(self.home)
        self._masks = folder / "masks"
        self._masks.mkdir()
        self._ledger = Ledger(self.home)
        self._owner: subprocess.Popen[bytes] | None = None
        self._watching = threading.Event()
        self._watch: threading.Thread | None = None

    # -- the server

    def start(self) -> None:
        """`radloop serve`, until it says that it is ready."""
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        command = [sys.executable, "-m", "radloop.apps.cli", "--home", str(self.home.path), "serve"]
        command += ["--studies", str(self.studies), "--port", str(self.port)]
        env = {**os.environ, "OMP_NUM_THREADS": "1", "RADLOOP_CHECKPOINT_SECONDS": "0.3"}
        with self.log.open("wb") as out:
            self._owner = subprocess.Popen(command, stdout=out, stderr=out, env=env)
        self._watching.clear()
        self._watch = threading.Thread(target=self._look_at_processes, daemon=True)
        self._watch.start()
        until(lambda: b"stop with Ctrl-C" in self.log.read_bytes() or self._owner_ended(), 180)
        if self._owner_ended():
            msg = f"the server did not start: {self.log.read_text()[-2000:]}"
            raise RuntimeError(msg)

    def stop(self) -> None:
        """Ends the server in order."""
        if self._owner and not self._owner_ended():
            self._owner.terminate()
            self._owner.wait(60)
        self._watching.set()

    def _owner_ended(self) -> bool:
        return self._owner is None or self._owner.poll() is not None

    def _server(self) -> psutil.Process:
        return psutil.Process(self._owner.pid).children()[0]  # type: ignore[union-attr]

    def _trainings(self) -> list[psutil.Process]:
        return [p for p in self._server().children() if _command_has(p, TRAINS)]

    def _look_at_processes(self) -> None:
        """Writes down every process that the server starts, and how many train at once."""
        while not self._watching.is_set() and not self._owner_ended():
            try:
                family = psutil.Process(self._owner.pid).children(recursive=True)  # type: ignore[union-attr]
                self.seen.processes |= {p.pid: p.create_time() for p in family}
                trains = {p.pid: p.ppid() for p in family if _command_has(p, TRAINS)}
                # What a training starts (a compiler, say) has its command line until it becomes that other program.
                own = sum(parent not in trains for parent in trains.values())
                self.seen.most_trainings = max(self.seen.most_trainings, own)
            except psutil.NoSuchProcess:
                pass
            time.sleep(0.05)

    # -- one round

    def round(self, number: int) -> dict[str, Any]:
        """Kills at a moment that the seed and the round's number give; says what was found wrong."""
        rng = random.Random(f"{self.seed}-{number}")
        kind, late, moment = KINDS[number % len(KINDS)], rng.random() < LATE, rng.uniform(0, SPAN)
        if self._owner_ended():
            self.start()
        problems = self.check_answer()
        before = len(self.seen.labels)
        stop, clients = threading.Event(), []
        for client in range(CLIENTS):
            given = (stop, client, random.Random(f"{self.seed}-{number}-{client}"))
            clients.append(threading.Thread(target=self._submit, args=given, daemon=True))
            clients[-1].start()
        began = self._train(number, anew=not late)
        if late:
            until(self._is_in_ledger, 60)
        time.sleep(moment)
        killed = self._kill(kind)
        time.sleep(0.5)
        stop.set()
        for client in clients:
            client.join(60)
        problems += self._after(kind)
        found = {
            "round": number,
            "kind": kind,
            "after": "steps" if late else "start",
            "moment": round(moment, 2),
            "killed": killed,
            "training": began,
        }
        found |= {"labels": len(self.seen.labels) - before, "problems": problems + self.check_home()}
        return found

    def _train(self, number: int, anew: bool) -> str:
        if not anew and any(not _gone(p.pid, p.create_time()) for p in self._trainings()):
            return "resumed"
        reply = requests.post(f"{self.url}/train/tiny", json={"seed": number}, timeout=60)
        end = time.monotonic() + 30
        while anew and reply.status_code == 409 and time.monotonic() < end:  # one goes on, or is about to
            requests.delete(f"{self.url}/train/", timeout=60)
            time.sleep(0.3)
            reply = requests.post(f"{self.url}/train/tiny", json={"seed": number}, timeout=60)
        return "started" if reply.ok else f"refused: {reply.json()['error']['message']}"

    def _is_in_ledger(self) -> bool:
        last = self._ledger.last_training("tiny")
        return last is not None and last.state == "running"

    def _kill(self, kind: str) -> list[str]:
        chosen = {"training": self._trainings()} if kind != "server" else {}
        chosen |= {"server": [self._server()]} if kind != "training" else {}
        killed = []
        for name, processes in chosen.items():
            for process in processes:
                try:
                    os.kill(process.pid, signal.SIGKILL)
                    killed.append(name)
                except ProcessLookupError:
                    continue
        return killed

    def _submit(self, stop: threading.Event, client: int, rng: random.Random) -> None:
        file = self._masks / f"{client}.nii.gz"
        while not stop.is_set():
            study = f"s{rng.randrange(STUDIES):02d}"
            mask = _mask(file, rng)
            params = json.dumps({"model": "tiny", "client_id": f"c{client}"})
            try:
                with file.open("rb") as handle:
                    reply = requests.put(
                        f"{self.url}/datastore/label",
                        params={"image": study},
                        data={"params": params},
                        files={"label": handle},
                        timeout=60,
                    )
                rows = reply.json()["saved"] if reply.ok else []
            except (requests.RequestException, ValueError):
                rows = []  # not acknowledged
            self.seen.labels += [Acknowledged(row["row"], study, mask) for row in rows]
            time.sleep(0.3)

    # -- what is looked at

    def _after(self, kind: str) -> list[str]:
        """Whatever belonged to a killed server ends with it."""
        if kind == "training":
            return [] if not self._owner_ended() else ["the server ended with its training"]
        problems = []
        if not until(self._owner_ended, 15):
            problems.append("radloop serve does not end with its server")
            self.stop()
        last = self.log.read_text().strip().splitlines()[-1]
        if "the server ended" not in last:
            problems.append(f"radloop serve does not say that its server ended: {last}")
        if not until(lambda: all(_gone(*one) for one in self.seen.processes.items()), 10):
            left = [pid for pid, born in self.seen.processes.items() if not _gone(pid, born)]
            problems.append(f"processes {left} outlive their server")
        return problems

    def check_home(self) -> list[str]:
        """Ledger and versions, read as they lie there."""
        return [*self._check_labels(), *self._check_trainings(), *self._check_versions()]

    def _check_labels(self) -> list[str]:
        problems = []
        rows = {row.id: row for row in self._ledger.history()}
        for one in self.seen.labels:
            row = rows.get(one.row)
            if row is None or row.study != one.study:
                problems.append(f"acknowledged label {one.row} of {one.study} is not in the ledger")
            elif not self._ledger.whole(row):
                problems.append(f"the content of label {one.row} is not what was given")
            elif not np.array_equal(np.asanyarray(nib.load(self._ledger.file(row)).dataobj), one.mask):
                problems.append(f"label {one.row} is another mask")
        return problems

    def _check_trainings(self) -> list[str]:
        from radloop.engine.running import is_training, trainings

        free = not is_training(self.home, self._ledger, "tiny")
        running = [t.id for t in trainings(self._ledger, "tiny") if t.state == "running"]
        problems = [f"trainings {running} are running although nothing trains"] if free and running else []
        problems += [f"trainings {running} run at once"] if len(running) > 1 else []
        more = self.seen.most_trainings
        return problems + ([f"{more} processes trained at once"] if more > 1 else [])

    def _check_versions(self) -> list[str]:
        from radloop.registry import folders
        from radloop.registry.registry import Registry

        registry = Registry(self.home)  # puts in order what a crash leaves
        problems = []
        folder = self.home.versions / "tiny"
        versions = registry.versions("tiny")
        if self._owner_ended():
            staged = [p.name for p in (self.home.versions / folders.STAGING).glob("*")]
            problems += [f"staged folders {staged} are left"] if staged else []
            if [v.number for v in versions] != folders.numbers(folder):
                problems.append(f"versions {versions} are not the folders {folders.numbers(folder)}")
        problems += [f"version {v.number} is {v.state}" for v in versions if not folders.is_complete(v.dir)]
        made = Counter(v.manifest.get("training") for v in versions)
        problems += [f"training {t} made {n} versions" for t, n in made.items() if t is not None and n > 1]
        return problems

    def check_answer(self) -> list[str]:
        """The version that serves answers as it did before, voxel by voxel."""
        reply = self._answer("json")
        if not reply.ok:
            return [f"no answer: {reply.text}"]
        version = reply.json().get("version")
        image = self._answer("image")
        if not image.ok:
            return [f"no answer: {image.text}"]
        if self._answer("json").json().get("version") != version or version is None:
            return []  # another one began to serve meanwhile, or none does yet
        file = self._masks / "answer.nii.gz"
        file.write_bytes(image.content)
        mask = np.asanyarray(nib.load(file).dataobj)
        digest = hashlib.sha256(np.ascontiguousarray(mask, np.uint8).tobytes()).hexdigest()
        known = self.seen.answers.setdefault(version, digest)
        return [] if known == digest else [f"version {version} answers otherwise than before"]

    def _answer(self, output: str) -> requests.Response:
        query = {"image": "s00", "output": output}
        params = json.dumps({"result_extension": ".nii.gz"})
        return requests.post(f"{self.url}/infer/tiny", params=query, data={"params": params}, timeout=120)

    def finish(self) -> dict[str, Any]:
        """Starts the server once more, looks at all of it, and says what came of the trainings."""
        from radloop.engine.running import trainings

        if self._owner_ended():
            self.start()
        problems = self.check_answer()
        self.stop()
        problems += self.check_home()
        rows = trainings(self._ledger, "tiny")
        resumed = [t for t in rows if json.loads(t.request or "{}").get("resumed")]
        return {
            "problems": problems,
            "labels": len(self.seen.labels),
            "versions_that_served": len(self.seen.answers),
            "trainings": dict(Counter(t.state for t in rows)),
            "resumed": dict(Counter(t.state for t in resumed)),
        }


def _first_version(home: Any) -> None:
    """A network as it was born serves, so that there is an answer from the first round on."""
    import torch

    from radloop.engine.weights import save_weights
    from radloop.networks.registry import build
    from radloop.recipes.load import load_recipe
    from radloop.registry.registry import Registry

    recipe, registry = load_recipe("tiny", home.path), Registry(home)
    staged = registry.stage(recipe)
    torch.manual_seed(0)
    save_weights(build(recipe), staged / "model.pt")
    registry.promote(registry.publish(recipe, staged, {"labels": []}))


def _study(path: Path, seed: int) -> None:
    array = np.random.default_rng(seed).normal(40, 10, SHAPE).astype(np.float32)
    array[8:14, 8:14, 4:8] += 120
    nib.save(nib.Nifti1Image(array, np.diag([2, 2, 3, 1])), path)


def _mask(path: Path, rng: random.Random) -> np.ndarray:
    """A block somewhere, almost never the same twice."""
    mask = np.zeros(SHAPE, np.uint8)
    x, y, z = (rng.randrange(n - 5) for n in SHAPE)
    mask[x : x + 4, y : y + 4, z : z + 3] = 1
    mask[8 : 8 + rng.randrange(1, 6), 8:14, 4:8] = 1 + rng.randrange(2)
    nib.save(nib.Nifti1Image(mask, np.diag([2, 2, 3, 1])), path)
    return mask


def free_port() -> int:
    """A port on loopback that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def until(condition: Callable[[], bool], seconds: float) -> bool:
    """Waits for a condition, at most so many seconds; whether it came true."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.1)
    return condition()


def _gone(pid: int, born: float) -> bool:
    try:
        process = psutil.Process(pid)
        return process.create_time() != born or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def _command_has(process: psutil.Process, word: str) -> bool:
    try:
        return word in process.cmdline()
    except psutil.Error:
        return False
