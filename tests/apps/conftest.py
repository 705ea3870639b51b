"""A real server process on tiny studies, shared by the tests of this folder, and the unmodified Slicer client."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
import requests

TINY = """
name = "tiny"
title = "Two things in noise"
labels = { lesion = 1, organ = 2 }
[preprocess]
normalise = "zscore"
[network]
features = [4, 8]
strides = [[1, 1, 1], [2, 2, 2]]
[fit]
patch = [16, 16, 8]
steps = 2
epochs = 1
[gate]
first_model_after = 2
"""
SECOND = TINY.replace('"tiny"', '"second"').replace("{ lesion = 1, organ = 2 }", "{ vessel = 1 }")
SECOND = SECOND.replace("first_model_after = 2", "first_model_after = 1\nretrain_after = 2")
SHAPE = (24, 22, 12)
TILT = np.array([[-1, 0, 0], [0, -np.cos(0.1), -np.sin(0.1)], [0, -np.sin(0.1), np.cos(0.1)]])
AFFINE = np.vstack([np.column_stack([TILT * (2.0, 1.9, 2.9), (10, 20, -30)]), (0, 0, 0, 1)])  # voxel -> RAS mm
CHINESE = "患者一_胸部"


def make_study(folder: Path, study_id: str, seed: int = 0) -> Path:
    """A noisy CT-like study with a bright block."""
    array = np.random.default_rng(seed).normal(40, 10, SHAPE).astype(np.float32)
    array[8:14, 8:14, 4:8] += 120
    path = folder / f"{study_id}.nii.gz"
    nib.save(nib.Nifti1Image(array, AFFINE), path)
    return path


def mask_file(path: Path, value: int = 1, affine: np.ndarray = AFFINE, shape: tuple[int, ...] = SHAPE) -> Path:
    """A mask of one block with a voxel value; value 0 makes an empty one."""
    array = np.zeros(shape, np.uint8)
    array[8:14, 8:14, 4:8] = value
    nib.save(nib.Nifti1Image(array, affine), path)
    return path


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Server:
    """A server process on studies of its own; `guarded=False` starts MONAI Label's bare application."""

    def __init__(self, folder: Path, studies: int = 12, guarded: bool = True) -> None:
        from radloop.apps.host_settings import host_env
        from radloop.studies.home import Home

        self.folder, self.studies, self.home = folder, folder / "studies", folder / "home"
        self.studies.mkdir(parents=True)
        for number in range(studies):
            make_study(self.studies, f"s{number:02d}", number)
        make_study(self.studies, CHINESE, 99)
        home = Home(self.home)
        (home.recipes / "tiny.toml").write_text(TINY)
        (home.recipes / "second.toml").write_text(SECOND)
        import radloop.apps.radiology

        shutil.copy(Path(next(iter(radloop.apps.radiology.__path__))) / "main.py", home.app)
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = folder / "server.log"
        self._env = {**os.environ, **host_env(self.studies, home, ["tiny", "second"]), "OMP_NUM_THREADS": "1"}
        self._guarded = guarded
        self.process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        command = [sys.executable, "-m", "monailabel.main", "start_server", "--app", str(self.home / "app")]
        command += ["--studies", str(self.studies), "--host", "127.0.0.1", "--port", str(self.port)]
        command += ["--uvicorn_app", "radloop.apps.asgi:app"] if self._guarded else []
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, env=self._env, cwd=self.home, stdout=log, stderr=log)
        until = time.monotonic() + 180
        while time.monotonic() < until:
            if self.process.poll() is not None:
                break
            try:
                requests.get(f"{self.url}/info/", timeout=30).raise_for_status()
            except requests.ConnectionError:
                time.sleep(0.2)
            else:
                return
        pytest.fail(f"the server did not start:\n{self.log.read_text()[-3000:]}")

    def stop(self, number: int = signal.SIGTERM) -> None:
        if self.process and self.process.poll() is None:
            self.process.send_signal(number)
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def get(self, path: str, **more: object) -> requests.Response:
        return requests.get(self.url + path, timeout=60, **more)

    def post(self, path: str, **more: object) -> requests.Response:
        return requests.post(self.url + path, timeout=120, **more)

    def put(self, path: str, **more: object) -> requests.Response:
        return requests.put(self.url + path, timeout=60, **more)

    def delete(self, path: str, **more: object) -> requests.Response:
        return requests.delete(self.url + path, timeout=60, **more)

    def save(self, study: str, file: Path, params: str = "{}", tag: str | None = None) -> requests.Response:
        query = {"image": study} | ({"tag": tag} if tag else {})
        with file.open("rb") as handle:
            return self.put("/datastore/label", params=query, data={"params": params}, files={"label": handle})


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server for all tests that leave it as they found it, apart from labels of their own studies."""
    running = Server(tmp_path_factory.mktemp("server"))
    yield running
    running.stop()


@pytest.fixture(scope="session")
def slicer() -> ModuleType:
    """The client inside 3D Slicer's MONAI Label module, as the wheel ships it."""
    path = Path(sys.prefix) / "monailabel/plugins/slicer/MONAILabel/MONAILabelLib/client.py"
    if not path.is_file():
        pytest.fail(f"MONAI Label's wheel, which radloop requires, put no Slicer client at {path}")
    spec = importlib.util.spec_from_file_location("slicer_client", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # it imports cgi
        spec.loader.exec_module(module)
    return module


def error_of(reply: requests.Response) -> str:
    """The message of a refusal; fails where the reply is not radloop's JSON error."""
    assert reply.headers["content-type"].startswith("application/json"), reply.text
    error = reply.json()["error"]
    assert set(error) == {"message", "kind"}
    assert "\n" not in error["message"]
    assert "Traceback" not in reply.text
    assert "/site-packages/" not in reply.text
    return str(error["message"])


def publish(home_path: Path, recipe_name: str = "tiny", bias: int = 1, **manifest: object) -> int:
    """Publishes and promotes a version without training: it marks every voxel as label `bias`."""
    import torch

    from radloop.engine.weights import save_weights
    from radloop.networks.registry import build
    from radloop.recipes.load import load_recipe
    from radloop.registry.registry import Registry
    from radloop.studies.home import Home

    recipe = load_recipe(recipe_name, home_path)
    network = build(recipe)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
        last = [p for p in network.parameters() if p.ndim == 1 and len(p) == 1 + len(recipe.labels)][-1]
        last[bias] = 5.0
    registry = Registry(Home(home_path))
    staged = registry.stage(recipe)
    save_weights(network, staged / "model.pt")
    held_out = {"p1": 0.8, "p2": 0.7}
    made = {"held_out": held_out, "state": "challenger", "labels": [], **manifest}
    version = registry.publish(recipe, staged, made)
    return registry.promote(version).number


@pytest.fixture(scope="session")
def kit() -> SimpleNamespace:
    """What tests here build with."""
    return SimpleNamespace(
        Server=Server,
        affine=AFFINE,
        chinese=CHINESE,
        error_of=error_of,
        free_port=free_port,
        make_study=make_study,
        mask_file=mask_file,
        publish=publish,
        shape=SHAPE,
        tiny=TINY,
    )
