"""What is installed from the wheel works away from the checkout: all of it is there, and a small loop runs on it."""

from __future__ import annotations

import subprocess
import zipfile
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow


def _run(installed: Any, *words: str, cwd: Path) -> str:
    done = subprocess.run(words, cwd=cwd, env=installed.env, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_every_room_comes_from_the_wheel(installed: Any, tmp_path: Path, root: Path) -> None:
    code = (
        "import importlib, pathlib, pkgutil, sys\n"
        "for room in sys.argv[2:]:\n"
        "    package = importlib.import_module(f'radloop.{room}')\n"
        "    assert package.__file__.startswith(sys.argv[1]), package.__file__\n"
        "    assert pathlib.Path(package.__file__).with_name('py.typed').is_file(), room\n"
        "    for module in pkgutil.iter_modules(package.__path__):\n"
        "        if room not in ('apps', 'infers', 'trainers', 'strategies') and module.name != 'migrations':\n"
        "            importlib.import_module(f'radloop.{room}.{module.name}')\n"
    )
    rooms = sorted(path.parent.name for path in root.glob("*/py.typed"))
    assert len(rooms) == 11
    _run(installed, str(installed.python), "-c", code, str(installed.packages), *rooms, cwd=tmp_path)


def test_every_file_of_the_rooms_is_in_the_wheel(installed: Any, root: Path) -> None:
    written_by_host = {"model", "lib", "logs", "bin", "__pycache__"}
    for room in sorted(path.parent for path in root.glob("*/py.typed")):
        for path in room.rglob("*"):
            inside = path.relative_to(root)
            if path.is_file() and not written_by_host & set(inside.parts):
                assert (installed.packages / "radloop" / inside).is_file(), f"{inside} is not in the wheel"


def test_nothing_but_radloop_is_in_the_wheel(installed: Any) -> None:
    (wheel,) = installed.packages.parents[3].glob("radloop-*.whl")
    tops = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"radloop"}


def test_the_command_and_its_module_answer(installed: Any, tmp_path: Path) -> None:
    assert "recipe" in _run(installed, str(installed.radloop), "--help", cwd=tmp_path)
    assert "recipe" in _run(installed, str(installed.python), "-m", "radloop.apps.cli", "--help", cwd=tmp_path)


def test_a_small_loop_runs_on_it(installed: Any, tmp_path: Path) -> None:
    studies, radloop = tmp_path / "studies", str(installed.radloop)
    _run(installed, str(installed.python), "-m", "radloop.sample_studies.make", str(studies), cwd=tmp_path)
    on = ("--studies", str(studies))
    assert "gate" in _run(installed, radloop, "train", "sample_lesions", *on, "--epochs", "1", cwd=tmp_path)
    _run(installed, radloop, "model", "rollback", "sample_lesions", "1", *on, cwd=tmp_path)
    _run(installed, radloop, "evaluate", "sample_lesions", *on, "--report", "report.html", cwd=tmp_path)
    assert "not for clinical use" in (tmp_path / "report.html").read_text().lower()
    assert "sample_lesions" in _run(installed, radloop, "status", *on, cwd=tmp_path)
