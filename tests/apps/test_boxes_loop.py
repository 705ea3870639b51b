"""Boxes, once around: files in labels/final, train, evaluate, predict, then asked and corrected over HTTP."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from monailabel.app import app as monai_label  # noqa: F401 (loads the host before its settings are looked at)
from monailabel.config import settings
from monailabel.interfaces.utils import app as host
from PIL import Image
from requests_toolbelt import MultipartDecoder
from starlette.testclient import TestClient

from radloop.apps.app import RadloopApp
from radloop.apps.asgi import app
from radloop.apps.cli import main
from radloop.recipes.load import load_recipe
from radloop.registry.registry import Registry
from radloop.studies.home import Home
from radloop.studies.ledger import Ledger
from radloop.studies.shown import ShownAnswers
from radloop.studies.split import Split

BOXES = """
name = "blocks"
title = "Blocks"
kind = "detection"
modality = "XR"
dimension = 2
labels = { block = 1 }
[preprocess]
normalise = "ct"
window = [0, 255]
mean = 100
deviation = 50
[network]
name = "retinanet"
features = [8, 16, 32]
[fit]
patch = [48, 48]
batch = 4
steps = 10
epochs = 8
learning_rate = 5e-3
ema = 0.9
[gate]
blind = false
"""
STUDIES = 30


@pytest.fixture(scope="module")
def loop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thirty pictures with a bright block or none and a version that serves."""
    studies = tmp_path_factory.mktemp("boxes") / "studies"
    final = studies / "labels" / "final"
    final.mkdir(parents=True)
    for number in range(STUDIES):
        rng = np.random.default_rng(number)
        image, boxes = rng.normal(100, 10, (44, 60)), []
        if number % 6:
            (x, y), (w, h) = rng.integers(2, (44, 28)), rng.integers(9, 14, 2)
            image[y : y + h, x : x + w] += 120
            boxes = [{"label": "block", "center": [x + w / 2 - 0.5, y + h / 2 - 0.5, 0], "size": [int(w), int(h), 1]}]
        Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(studies / f"s{number:02d}.png")
        told = {"format": 1, "kind": "detection", "coordinates": "LPS", "boxes": boxes}
        if number < STUDIES - 1:
            (final / f"s{number:02d}.json").write_text(json.dumps(told))
    lines = [f"s{number:02d},{'north' if number % 2 else 'south'}" for number in range(STUDIES)]
    (studies / "answers.csv").write_text("image,site\n" + "\n".join(lines) + "\n")
    home = Home.find(studies)
    (home.recipes / "blocks.toml").write_text(BOXES)
    # the same sides in every run: a few held-out studies that all have one answer give few figures
    Split(Ledger(home), "words").assign(f"s{number:02d}" for number in range(STUDIES))
    assert main(["train", "blocks", "--studies", str(studies)]) == 0
    if Registry(home).champion("blocks") is None:
        assert main(["model", "rollback", "blocks", "1", "--studies", str(studies)]) == 0
    return studies


def run(loop: Path, *words: str) -> int:
    return main([*words, "--studies", str(loop)])


def test_a_version_is_judged_by_its_boxes(loop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(loop, "model", "list", "blocks") == 0
    assert "box F1" in capsys.readouterr().out
    (version,) = Registry(Home.find(loop)).versions("blocks")
    assert version.manifest["temperature"]["value"] > 0
    assert set(version.manifest["baseline"]) == set(version.manifest["held_out"])


def test_evaluate_writes_figures_report_and_table(
    loop: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = {name: tmp_path / f"out.{name}" for name in ("json", "html", "csv")}
    words = ["--json", str(files["json"]), "--report", str(files["html"]), "--per-study", str(files["csv"])]
    assert run(loop, "evaluate", "blocks", "--by", "site", *words) == 0
    said = capsys.readouterr().out
    assert "trivial method (the mean boxes of the studies learned from)" in said
    assert "not for clinical use" in said
    figures = json.loads(files["json"].read_text())
    assert {"recipe", "version", "n", "patients", "metrics"} <= set(figures)
    assert set(figures["groups"]["site"]) <= {"north", "south"}
    assert {"ap50", "ap50.block", "ap", "box_f1", "trivial_ap50", "difference"} <= set(figures["metrics"])
    assert "Not for clinical use" in files["html"].read_text()
    with files["csv"].open() as file:
        assert len(list(csv.DictReader(file))) == figures["n"]


def test_predict_writes_boxes_markups_and_a_line_each_and_goes_on(
    loop: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert run(loop, "predict", "blocks", "--out", str(out)) == 0
    with (out / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["study"] for row in rows} == {f"s{n:02d}" for n in range(STUDIES)}
    for study in ("s00", "s01"):
        told = json.loads((out / f"{study}.json").read_text())
        markups = json.loads((out / f"{study}.mrk.json").read_text())["markups"]
        lines = [row for row in rows if row["study"] == study and row["label"]]
        assert len(told["boxes"]) == len(markups) == len(lines)
        for box, roi, line in zip(told["boxes"], markups, lines, strict=True):
            assert roi["coordinateSystem"] == "LPS"
            assert roi["center"] == box["center"]
            assert float(line["probability"]) == pytest.approx(box["score"], abs=1e-4)
            assert line["centre_lps_mm"].split() == [f"{value:.1f}" for value in box["center"]]
    (out / "s01.mrk.json").unlink()
    capsys.readouterr()
    assert run(loop, "predict", "blocks", "--out", str(out)) == 0
    assert f"{STUDIES - 1} are there already" in capsys.readouterr().out


@pytest.fixture(scope="module")
def client(loop: Path) -> Iterator[TestClient]:
    """The guarded server in this process."""
    home = Home.find(loop)
    made = RadloopApp(str(home.app), str(loop), {"home": str(home.path), "recipes": "blocks"})
    key = f"{settings.MONAI_LABEL_APP_DIR}{settings.MONAI_LABEL_STUDIES}"
    before = host.apps.get(key)
    host.apps[key] = made
    yield TestClient(app, base_url="http://127.0.0.1:8000", client=("127.0.0.1", 1))
    host.apps.pop(key)
    if before is not None:
        host.apps[key] = before


def ask(client: TestClient, study: str) -> tuple[dict, np.ndarray]:
    import nibabel as nib

    form = {"params": json.dumps({"result_extension": ".nii.gz", "client_id": "r"})}
    reply = client.post("/infer/blocks", params={"image": study, "output": "all"}, data=form)
    assert reply.status_code == 200, reply.text
    found = {}
    for part in MultipartDecoder(reply.content, reply.headers["content-type"]).parts:
        name = "params" if b'name="params"' in part.headers[b"Content-Disposition"] else "file"
        found[name] = part.content
    image = nib.Nifti1Image.from_bytes(gzip.decompress(found["file"]))
    return json.loads(found["params"]), np.asanyarray(image.dataobj)


def send(client: TestClient, study: str, name: str, content: bytes, **params: object) -> object:
    told = {"model": "blocks", "client_id": "r", **params}
    return client.put(
        "/datastore/label",
        params={"image": study},
        data={"params": json.dumps(told)},
        files={"label": (name, content)},
    )


def test_a_viewer_is_shown_frames_and_told_the_boxes_which_it_may_send_back(client: TestClient, loop: Path) -> None:
    study = f"s{STUDIES - 1:02d}"
    params, mask = ask(client, study)
    assert mask.shape == (60, 44, 1)
    assert params["label_names"] == {"block": 1}
    assert set(np.unique(mask)) <= {0, 1}
    assert bool(mask.any()) == bool(params["boxes"])
    assert "block" in client.get("/info/").json()["labels"], "a reader needs a segment to draw in"
    keys = ("format", "kind", "coordinates", "boxes")
    reply = send(client, study, "a.json", json.dumps({key: params[key] for key in keys}).encode())
    assert reply.status_code == 200, reply.text
    asked = {"label": study, "tag": "final", "recipe": "blocks"}
    (label,) = client.get("/datastore/label/info", params=asked).json()["labels"]
    assert label["shown_version"] == "1"
    assert len(label["answer"]) == len(params["boxes"])
    home = Home.find(loop)
    asked_for = ShownAnswers(Ledger(home))
    assert asked_for.is_unchanged(study, load_recipe("blocks", home.path), "r", mask), "or as a segment among others"


def test_wrong_boxes_are_refused_with_what_to_write(client: TestClient) -> None:
    box = {"label": "blok", "center": [3, 3, 0], "size": [2, 2, 1]}
    told = {"format": 1, "kind": "detection", "coordinates": "LPS", "boxes": [box]}
    reply = send(client, "s01", "a.json", json.dumps(told).encode())
    assert reply.status_code == 400
    assert "did you mean 'block'" in reply.text


def test_a_mask_drawn_in_a_viewer_becomes_boxes(client: TestClient, tmp_path: Path) -> None:
    import nibabel as nib

    mask = np.zeros((60, 44, 1), np.uint8)
    mask[10:20, 5:15] = 1
    nib.save(nib.Nifti1Image(mask, np.diag([-1.0, -1, 1, 1])), tmp_path / "m.nii.gz")
    reply = send(
        client, "s02", "m.nii.gz", (tmp_path / "m.nii.gz").read_bytes(), label_info=[{"name": "block", "idx": 1}]
    )
    assert reply.status_code == 200, reply.text
    asked = {"label": "s02", "tag": "final", "recipe": "blocks"}
    label = client.get("/datastore/label/info", params=asked).json()["labels"][0]
    assert label["answer"] == [{"label": "block", "center": [14.5, 9.5, 0.0], "size": [10.0, 10.0, 1.0]}]
