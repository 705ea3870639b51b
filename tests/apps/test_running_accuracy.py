"""While a version serves: its accuracy on what readers label, blind and anchored apart, and an alarm where it falls."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from radloop.apps.cli import main
from radloop.studies.folder import StudiesFolder
from radloop.studies.home import Home
from radloop.studies.ledger import Ledger
from radloop.studies.sides import study_sides


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, kit: SimpleNamespace) -> Iterator[Any]:
    running = kit.Server(tmp_path_factory.mktemp("running"), studies=70)
    yield running
    running.stop()


def status(server: Any, told: Path) -> dict[str, Any]:
    place = ["--studies", str(server.studies), "--home", str(server.home)]
    assert main(["status", *place, "--json", str(told)]) == 0
    return json.loads(told.read_text())["recipes"]["tiny"]["running"]


def soon(ask: Callable[[], dict[str, Any]], enough: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    until = time.monotonic() + 90
    while time.monotonic() < until:
        if enough(found := ask()):
            return found
        time.sleep(0.5)
    pytest.fail(f"not after 90 s: {found}")


def test_the_serving_version_is_measured_on_new_held_out_labels(
    server: Any, tmp_path: Path, kit: SimpleNamespace, capsys: pytest.CaptureFixture[str]
) -> None:
    sides = study_sides(StudiesFolder(server.studies).studies(), ledger := Ledger(Home(server.home)))
    held_out = sorted(study for study, side in sides.items() if side != "train")
    assert len(held_out) >= 15
    kit.mask_file(block := tmp_path / "block.nii.gz")
    everything = nib.Nifti1Image(np.ones(kit.shape, np.uint8), kit.affine)
    nib.save(everything, full := tmp_path / "full.nii.gz")
    for study in held_out[:6]:
        assert server.save(study, full).ok
    assert status(server, tmp_path / "s.json") == {}, "nothing serves yet"
    number = kit.publish(server.home, last_row=ledger.last_row())  # it marks every voxel, as these labels do

    def look() -> dict[str, Any]:
        return status(server, tmp_path / "s.json")

    found = soon(look, lambda found: found.get("blind", {}).get("patients") == [6, 0])
    assert found["blind"]["before"]["value"] == 1.0
    assert found["blind"]["since"] is None
    for study in held_out[6:9]:  # after an answer
        assert server.post("/infer/tiny", params={"image": study, "output": "json"}).ok
        assert server.save(study, full).ok
    for study in held_out[9:14]:
        assert server.save(study, block).ok
    found = soon(look, lambda found: {name: of["patients"][1] for name, of in found.items()}.get("blind") == 5)
    assert found["anchored"]["patients"] == [0, 3]
    assert found["anchored"]["since"]["value"] == 1.0
    overlap = 2 * 6 * 6 * 4 / (6 * 6 * 4 + np.prod(kit.shape))
    share = (overlap + 1) / 2  # neither has any organ
    assert found["blind"]["since"]["value"] == pytest.approx(share, abs=1e-6)
    assert not found["blind"]["drift"], "five patients are too few"
    assert server.save(held_out[14], block).ok
    found = soon(look, lambda found: found["blind"]["drift"])
    assert found["blind"]["fall"] == pytest.approx(1 - share, abs=1e-6)
    assert not found["anchored"]["drift"]
    capsys.readouterr()
    look()
    said = capsys.readouterr().out
    assert "DRIFT" in said
    assert "6 patients labelled since" in said
    assert "Drift: on blind labels" in server.get("/").text
    assert f"tiny version {number}: on blind labels it is" in server.log.read_text()
    report = tmp_path / "report.html"
    place = ["--studies", str(server.studies), "--home", str(server.home)]
    assert main(["evaluate", "tiny", *place, "--report", str(report)]) == 0
    assert "drift: on blind labels" in report.read_text()
    assert server.save(held_out[9], full).ok, "a label that is mended counts as it is now"
    soon(look, lambda found: found["blind"]["since"]["value"] > share + 0.05)
