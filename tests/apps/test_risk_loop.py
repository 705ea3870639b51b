"""Risks over time, once around: cells of answers.csv, train, evaluate, predict, then asked and told over HTTP."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
from monailabel.app import app as monai_label  # noqa: F401 (loads the host before its settings are looked at)
from monailabel.config import settings
from monailabel.interfaces.utils import app as host
from requests_toolbelt import MultipartDecoder
from starlette.testclient import TestClient

from radloop.apps.app import RadloopApp
from radloop.apps.asgi import app
from radloop.apps.cli import main
from radloop.registry.registry import Registry
from radloop.studies.answers import read_outcome
from radloop.studies.home import Home
from radloop.studies.ledger import Ledger
from radloop.studies.outcomes import Outcome
from radloop.studies.split import Split

RECIPE = """
name = "life"
title = "How long"
kind = "risk"
labels = { death = 1 }
[answer]
event = "dead"
time = "days"
times = [100, 300]
intervals = 4
covariates = ["age"]
[preprocess]
normalise = "ct"
window = [-10, 10]
mean = 0
deviation = 1
[network]
name = "slices_pool"
features = [4, 8]
[fit]
patch = [16, 16, 8]
batch = 4
steps = 10
epochs = 6
learning_rate = 5e-3
[gate]
blind = false
"""
STUDIES = 40


@pytest.fixture(scope="module")
def loop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty studies, those of odd number with a bright block and a bad outcome, and a version that serves."""
    studies = tmp_path_factory.mktemp("risk") / "studies"
    studies.mkdir()
    lines = ["image,dead,days,age"]
    for number in range(STUDIES):
        rng, bad = np.random.default_rng(number), number % 2
        image = rng.normal(0, 0.3, (20, 18, 10))
        image[6:12, 6:12, 3:7] += 4 if bad else -4
        nib.save(nib.Nifti1Image(image.astype(np.float32), np.eye(4)), studies / f"s{number:02d}.nii.gz")
        time = rng.uniform(20, 90) if bad else rng.uniform(200, 500)
        age = rng.integers(30, 80) if number > 3 else ""
        lines.append(f"s{number:02d},{int(bad or number % 4 == 0)},{time:.0f},{age}")
    lines[-1] = f"s{STUDIES - 1:02d},1,-5,44"
    lines[-2] = f"s{STUDIES - 2:02d},0,,44"
    (studies / "answers.csv").write_text("\n".join(lines) + "\n")
    home = Home.find(studies)
    (home.recipes / "life.toml").write_text(RECIPE)
    # the same sides in every run: a few held-out studies that all have one answer give few figures
    Split(Ledger(home), "words").assign(f"s{number:02d}" for number in range(STUDIES))
    assert main(["train", "life", "--studies", str(studies)]) == 0
    if Registry(home).champion("life") is None:
        assert main(["model", "rollback", "life", "1", "--studies", str(studies)]) == 0
    return studies


def run(loop: Path, *words: str) -> int:
    return main([*words, "--studies", str(loop)])


def test_cells_that_are_no_outcome_are_said_and_are_no_label(loop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(loop, "evaluate", "life") == 0
    said = capsys.readouterr().err
    assert "'-5' in column 'days' is no time; write a number of days above 0" in said
    assert "column 'dead' is filled and 'days' is empty" in said
    ledger = Ledger(Home.find(loop))
    assert len(ledger.current("life")) == STUDIES - 2
    (version,) = Registry(Home.find(loop)).versions("life")
    assert version.manifest["temperature"]["value"] > 0
    assert set(version.manifest["baseline"]) == set(version.manifest["held_out"])


def test_evaluate_writes_figures_report_and_table(
    loop: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = {name: tmp_path / f"out.{name}" for name in ("json", "html", "csv")}
    words = ["--json", str(files["json"]), "--report", str(files["html"]), "--per-study", str(files["csv"])]
    assert run(loop, "evaluate", "life", "--by", "dead", *words) == 0
    said = capsys.readouterr().out
    assert "covariates alone (age): Harrell's C" in said
    figures = json.loads(files["json"].read_text())
    assert {"recipe", "version", "n", "patients", "events", "metrics"} <= set(figures)
    assert 0.4 < figures["metrics"]["c_index"]["value"] <= 1
    assert {"uno_c", "auc", "auc.100", "integrated_brier", "brier.300"} <= set(figures["metrics"])
    assert sum(part["n"] for part in figures["groups"]["dead"].values()) == figures["n"]
    assert {"clinical_c_index", "clinical_integrated_brier", "difference"} <= set(figures["metrics"])
    page = files["html"].read_text()
    assert "Not for clinical use" in page
    assert page.count("<img") == 2
    with files["csv"].open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == figures["n"]
    assert {"event", "time", "risk.100", "risk.300", "clinical.100"} <= set(rows[0])


def test_predict_writes_risks_and_curves_and_goes_on_where_it_was(
    loop: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert run(loop, "predict", "life", "--out", str(out)) == 0
    with (out / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 4 * STUDIES
    assert [row["label"] for row in rows[:3]] == [
        "death by 100 days", "death by 300 days", "death by 100 days, covariates alone",
    ]  # fmt: skip
    assert "age is not known" in rows[0]["warnings"]
    curve = json.loads((out / "s05.json").read_text())
    assert (curve["curve"]["survival"][0], curve["curve"]["time"][0]) == (1, 0)
    assert curve["risks"] == sorted(curve["risks"])
    assert len(curve["clinical"]) == 2
    first = {row["study"]: float(row["probability"]) for row in rows[::4]}
    bad, good = ([first[f"s{n:02d}"] for n in range(side, STUDIES, 2)] for side in (1, 0))
    assert np.median(bad) > np.median(good)
    capsys.readouterr()
    (out / "s07.json").unlink()
    assert run(loop, "predict", "life", "--out", str(out)) == 0
    assert f"{STUDIES - 1} are there already" in capsys.readouterr().out
    assert (out / "s07.json").is_file()


@pytest.fixture(scope="module")
def client(loop: Path, kit: SimpleNamespace) -> Iterator[TestClient]:
    """The guarded server in this process."""
    home = Home.find(loop)
    made = RadloopApp(str(home.app), str(loop), {"home": str(home.path), "recipes": "life"})
    key = f"{settings.MONAI_LABEL_APP_DIR}{settings.MONAI_LABEL_STUDIES}"
    before = host.apps.get(key)
    host.apps[key] = made
    yield TestClient(app, base_url="http://127.0.0.1:8000", client=("127.0.0.1", 1))
    host.apps.pop(key)
    if before is not None:
        host.apps[key] = before


def test_a_viewer_is_told_the_risk_beside_what_covariates_alone_say(client: TestClient) -> None:
    form = {"params": json.dumps({"result_extension": ".nii.gz", "client_id": "r"})}
    reply = client.post("/infer/life", params={"image": "s01", "output": "all"}, data=form)
    assert reply.status_code == 200, reply.text
    found = {}
    for part in MultipartDecoder(reply.content, reply.headers["content-type"]).parts:
        found["params" if b'name="params"' in part.headers[b"Content-Disposition"] else "file"] = part.content
    params = json.loads(found["params"])
    assert set(params["answer"]) == set(params["clinical"]) == {"death by 100 days", "death by 300 days"}
    (name,) = params["label_names"]
    assert name.startswith("death by 100 days ")
    assert "% (covariates alone " in name
    assert params["missing"] == ["age"]
    assert any("age is not known" in warning for warning in params["warnings"])
    assert params["curve"]["survival"][0] == 1
    assert len(params["curve"]["time"]) == len(params["curve"]["clinical_survival"]) == 5
    assert params["version"] == 1
    mask = nib.Nifti1Image.from_bytes(gzip.decompress(found["file"]))
    assert (mask.shape, np.asanyarray(mask.dataobj).any()) == ((20, 18, 10), False)
    assert client.get("/info/").json()["labels"] == []


def test_an_outcome_that_a_reader_sends_is_a_label(client: TestClient, loop: Path) -> None:
    study = f"s{STUDIES - 1:02d}"

    def send(**told: object):
        return client.put(
            "/datastore/label",
            params={"image": study},
            data={"params": json.dumps({"model": "life", "client_id": "r"})},
            files={"label": ("a.json", json.dumps({"format": 1, "kind": "risk", **told}).encode())},
        )

    assert send(event=True, time=0).status_code == 400
    assert "write a number above 0" in send(event=True, time=-1).text
    assert send(event=True, time=2, unit="years").status_code == 200
    home = Home.find(loop)
    ledger, recipe = Ledger(home), Registry(home).versions("life")[0].load_recipe()
    row = ledger.latest(study, "life")
    assert (row.names, row.ext) == (("death",), ".json")
    assert read_outcome(ledger.content(row), recipe) == Outcome(True, 730.5, "days")
    told = client.get("/datastore/label", params={"label": study, "tag": "final", "recipe": "life"})
    assert told.json() == {"format": 1, "kind": "risk", "event": True, "time": 2, "unit": "years"}
    known = client.get("/datastore/label/info", params={"label": study, "tag": "final", "recipe": "life"}).json()
    assert known["labels"][0]["answer"] == {"event": True, "time": 2, "unit": "years"}
