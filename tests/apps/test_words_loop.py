"""Answers about whole studies, once around: cells of answers.csv, train, evaluate, predict, then asked over HTTP."""

from __future__ import annotations

import csv
import gzip
import json
import time
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
from radloop.engine.answer_data import input_of
from radloop.engine.weights import save_weights
from radloop.networks.registry import build
from radloop.recipes.errors import BadLabel
from radloop.recipes.load import load_recipe, parse_recipe
from radloop.recipes.volume import Volume
from radloop.registry.registry import Registry
from radloop.studies.home import Home
from radloop.studies.images import read_study
from radloop.studies.ledger import Ledger
from radloop.studies.split import Split

WORDS = """
name = "shade"
title = "Shade of the block"
kind = "classification"
labels = { dark = 1, bright = 2 }
[preprocess]
normalise = "ct"
window = [-10, 10]
mean = 0
deviation = 1
[network]
name = "cnn"
features = [4, 8]
[fit]
patch = [16, 16, 8]
batch = 4
steps = 10
epochs = 6
learning_rate = 5e-3
"""
REGION = WORDS.replace('"shade"', '"shade_there"').replace("[preprocess]", '[answer]\nregion = "tiny"\n[preprocess]')
EACH = REGION.replace("shade_there", "shade_each").replace("region =", 'per = "lesion"\nregion =')
STUDIES = 40


@pytest.fixture(scope="module")
def loop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty studies with a bright or a dark block and a trained version that serves."""
    studies = tmp_path_factory.mktemp("words") / "studies"
    studies.mkdir()
    cells = []
    for number in range(STUDIES):
        image = np.random.default_rng(number).normal(0, 0.3, (20, 18, 10))
        image[6:12, 6:12, 3:7] += 4 if number % 2 else -4
        nib.save(nib.Nifti1Image(image.astype(np.float32), np.eye(4)), studies / f"s{number:02d}.nii.gz")
        cells.append(f"s{number:02d},{'bright' if number % 2 else 'Dark '}")
    cells[-1] = f"s{STUDIES - 1:02d},brihgt"
    (studies / "answers.csv").write_text("image,shade\n" + "\n".join(cells) + "\n")
    home = Home.find(studies)
    (home.recipes / "shade.toml").write_text(WORDS)
    # the same sides in every run: a few held-out studies that all have one answer give few figures
    Split(Ledger(home), "words").assign(f"s{number:02d}" for number in range(STUDIES))
    assert main(["train", "shade", "--studies", str(studies)]) == 0
    if Registry(home).champion("shade") is None:
        assert main(["model", "rollback", "shade", "1", "--studies", str(studies)]) == 0
    return studies


def run(loop: Path, *words: str) -> int:
    return main([*words, "--studies", str(loop)])


def test_training_is_judged_and_calibrated_on_patients_it_never_saw(
    loop: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(loop, "model", "list", "shade") == 0
    assert "1 - Brier score" in capsys.readouterr().out
    (version,) = Registry(Home.find(loop)).versions("shade")
    manifest = version.manifest
    assert len(manifest["labels"]) + len(manifest["held_out_labels"]) <= STUDIES - 1, "a cell that is no label is left"
    assert not set(manifest["patients"]["train"]) & set(manifest["held_out"])
    assert manifest["temperature"]["value"] > 0
    assert set(manifest["baseline"]) == set(manifest["held_out"])
    assert run(loop, "model", "show", "shade") == 0
    assert "shade" in capsys.readouterr().out


def test_evaluate_writes_figures_report_and_table(
    loop: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = {name: tmp_path / f"out.{name}" for name in ("json", "html", "csv")}
    words = ["--json", str(files["json"]), "--report", str(files["html"]), "--per-study", str(files["csv"])]
    assert run(loop, "evaluate", "shade", *words) == 0
    said = capsys.readouterr().out
    assert "trivial method (how often each answer was given)" in said
    assert "not for clinical use" in said
    figures = json.loads(files["json"].read_text())
    assert {"recipe", "version", "n", "patients", "metrics"} <= set(figures)
    assert figures["metrics"]["roc_auc"]["value"] > 0.9
    assert {"accuracy", "brier", "log_loss", "roc_auc.bright", "difference"} <= set(figures["metrics"])
    assert any(name.startswith("trivial_") for name in figures["metrics"])
    assert "Not for clinical use" in files["html"].read_text()
    with files["csv"].open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == figures["n"]
    assert {"truth", "answer", "p.dark", "p.bright"} <= set(rows[0])


def test_an_outside_set_is_measured_by_its_own_table_and_stays_as_it_is(
    loop: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outside, home, out = tmp_path / "elsewhere", loop / ".radloop", tmp_path / "outside.json"
    outside.mkdir()
    for number in range(6):
        (outside / f"s{number:02d}.nii.gz").write_bytes((loop / f"s{number:02d}.nii.gz").read_bytes())
    table = "image,patient,shade\n" + "".join(f"s{n:02d},q{n},{'bright' if n % 2 else 'dark'}\n" for n in range(5))
    (outside / "answers.csv").write_text(table)
    listed = tmp_path / "ids.txt"
    listed.write_text("".join(f"s{n:02d}\n" for n in range(5)))
    before, rows = {p: p.read_bytes() for p in outside.rglob("*") if p.is_file()}, Ledger(Home.find(loop)).last_row()
    words = ["evaluate", "shade", "--studies", str(outside), "--home", str(home), "--images", str(listed)]
    assert main([*words, "--json", str(out)]) == 0
    assert "an outside set: labels are in its answers.csv" in capsys.readouterr().out
    figures = json.loads(out.read_text())
    assert (figures["n"], figures["patients"]) == (5, 5)
    assert {p: p.read_bytes() for p in outside.rglob("*") if p.is_file()} == before
    assert Ledger(Home.find(loop)).last_row() == rows
    listed.write_text("s05\n")
    assert main(words) == 1
    assert "s05 has no answer in answers.csv" in capsys.readouterr().err


def test_a_fold_is_measured_on_patients_it_neither_learned_nor_scaled_by(loop: Path) -> None:
    assert run(loop, "train", "shade", "--epochs", "1", "--fold", "1/4") == 0
    version = Registry(Home.find(loop)).versions("shade")[-1]
    assert version.state == "fold"
    assert set(version.manifest["patients"]["fold"]) == set(version.manifest["held_out"])
    assert not set(version.manifest["patients"]["fold"]) & set(version.manifest["patients"]["train"])
    assert version.manifest["temperature"]["patients"] < len(version.manifest["patients"]["train"])
    assert run(loop, "evaluate", "shade", "--fold", "1/4") == 0


def test_predict_writes_probabilities_and_goes_on_where_it_was(
    loop: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert run(loop, "predict", "shade", "--out", str(out)) == 0
    with (out / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * STUDIES
    assert [row["label"] for row in rows[:2]] == ["dark", "bright"]
    assert sum(float(row["probability"]) for row in rows[:2]) == pytest.approx(1, abs=1e-3)
    right = sum(float(r["probability"]) > 0.5 for r in rows[1::2] if int(r["study"][1:]) % 2)
    assert right > 0.9 * STUDIES / 2
    assert [path.name for path in out.iterdir()] == ["results.csv"]
    capsys.readouterr()
    assert run(loop, "predict", "shade", "--out", str(out)) == 0
    assert f"{STUDIES} are there already" in capsys.readouterr().out
    alone = ["predict", "shade", "--image", str(loop / "s01.nii.gz"), "--home", str(Home.find(loop).path)]
    assert main([*alone, "--out", str(tmp_path / "one")]) == 0


@pytest.fixture(scope="module")
def client(loop: Path, kit: SimpleNamespace) -> Iterator[TestClient]:
    """The guarded server in this process, with a mask recipe, the one that was trained, and one that looks there."""
    home = Home.find(loop)
    (home.recipes / "tiny.toml").write_text(kit.tiny)
    (home.recipes / "shade_there.toml").write_text(REGION)
    (home.recipes / "shade_each.toml").write_text(EACH)
    conf = {"home": str(home.path), "recipes": "tiny,shade,shade_there,shade_each"}
    made = RadloopApp(str(home.app), str(loop), conf)
    key = f"{settings.MONAI_LABEL_APP_DIR}{settings.MONAI_LABEL_STUDIES}"
    before = host.apps.get(key)
    host.apps[key] = made
    yield TestClient(app, base_url="http://127.0.0.1:8000", client=("127.0.0.1", 1))
    host.apps.pop(key)
    if before is not None:
        host.apps[key] = before


def ask(client: TestClient, recipe: str, study: str) -> tuple[dict, np.ndarray]:
    form = {"params": json.dumps({"result_extension": ".nii.gz", "client_id": "r"})}
    reply = client.post(f"/infer/{recipe}", params={"image": study, "output": "all"}, data=form)
    assert reply.status_code == 200, reply.text
    parts = MultipartDecoder(reply.content, reply.headers["content-type"]).parts
    found = {}
    for part in parts:
        name = "params" if b'name="params"' in part.headers[b"Content-Disposition"] else "file"
        found[name] = part.content
    image = nib.Nifti1Image.from_bytes(gzip.decompress(found["file"]))
    return json.loads(found["params"]), np.asanyarray(image.dataobj)


def test_a_viewer_is_told_the_answer_as_the_name_of_a_segment(client: TestClient) -> None:
    params, mask = ask(client, "shade", "s01")
    assert params["answer"] == ["bright"]
    assert sum(params["probabilities"].values()) == pytest.approx(1, abs=1e-3)
    (name,) = params["label_names"]
    assert name.startswith("bright ")
    assert name.endswith(" %")
    assert mask.shape == (20, 18, 10)
    assert not mask.any()
    info = client.get("/info/").json()
    assert info["labels"] == ["lesion", "organ"], "no empty segment for each class"
    assert info["models"]["shade"]["type"] == "segmentation"
    assert "dark, bright" in info["models"]["shade"]["description"]
    assert client.get("/").status_code == 200


def test_a_label_after_the_answer_was_seen_is_anchored(client: TestClient, loop: Path) -> None:
    study = f"s{STUDIES - 1:02d}"
    ask(client, "shade", study)
    form = {"format": 1, "kind": "classification", "answer": "bright"}
    reply = client.put(
        "/datastore/label",
        params={"image": study},
        data={"params": json.dumps({"model": "shade", "client_id": "r"})},
        files={"label": ("a.json", json.dumps(form).encode())},
    )
    assert reply.status_code == 200, reply.text
    known = client.get("/datastore/label/info", params={"label": study, "tag": "final", "recipe": "shade"}).json()
    assert known["labels"][0]["shown_version"] == "1"


def untrained(home: Home, name: str) -> None:
    """Weights of a recipe that nobody trained serve."""
    recipe, registry = load_recipe(name, home.path), Registry(home)
    staged = registry.stage(recipe)
    save_weights(build(recipe), staged / "model.pt")
    registry.promote(registry.publish(recipe, staged, {"labels": []}))
    time.sleep(1.5)  # the server looks at most once a second which version serves


def draw(client: TestClient, studies: Path, study: str, mask: np.ndarray, folder: Path) -> None:
    image = nib.load(studies / f"{study}.nii.gz")
    nib.save(nib.Nifti1Image(mask, image.affine), folder / "m.nii.gz")
    with (folder / "m.nii.gz").open("rb") as file:
        sent = client.put(
            "/datastore/label",
            params={"image": study},
            data={"params": json.dumps({"model": "tiny"})},
            files={"label": ("m.nii.gz", file)},
        )
    assert sent.status_code == 200, sent.text


def test_each_lesion_of_a_region_has_its_own_answer(client: TestClient, loop: Path, tmp_path: Path) -> None:
    untrained(Home.find(loop), "shade_each")
    blocks = np.zeros(nib.load(loop / "s03.nii.gz").shape, np.uint8)
    blocks[2:5, 2:5, 2:5] = 1
    blocks[9:15, 9:15, 3:7] = 1
    draw(client, loop, "s03", blocks, tmp_path)
    params, mask = ask(client, "shade_each", "s03")
    np.testing.assert_array_equal(mask[9:15, 9:15, 3:7], 1)  # the largest first
    np.testing.assert_array_equal(mask[2:5, 2:5, 2:5], 2)
    assert sorted(params["label_names"].values()) == [1, 2]
    assert [name[:3] for name in params["label_names"]] == ["1: ", "2: "]
    assert [of["lesion"] for of in params["lesions"]] == [1, 2]
    assert params["lesions"][0]["volume_ml"] > params["lesions"][1]["volume_ml"]
    assert params["probabilities"] == params["lesions"][0]["probabilities"] != params["lesions"][1]["probabilities"]
    out = tmp_path / "out"
    assert main(["predict", "shade_each", "--studies", str(loop), "--out", str(out)]) == 1, "others have no region"
    with (out / "results.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    mine = [(row["label"], row["lesion"], row["lesions"]) for row in rows if row["study"] == "s03"]
    each = [(label, n, "") for n in "12" for label in ("dark", "bright")]
    assert mine == [("dark", "", "2"), ("bright", "", "2"), *each]


def test_one_answer_teaches_nothing_about_several_lesions(loop: Path) -> None:
    recipe = parse_recipe(EACH, "each.toml")
    volume = read_study((loop / "s03.nii.gz",))
    region = np.zeros(volume.array.shape, np.uint8)
    region[0, 2:5, 2:5, 2:5] = 1
    assert input_of(recipe, volume, Volume(region, volume.affine)).any()
    region[0, 9:15, 9:15, 3:7] = 1
    with pytest.raises(BadLabel, match="2 lesions"):
        input_of(recipe, volume, Volume(region, volume.affine))


def test_a_recipe_that_looks_at_a_region_needs_its_mask(
    client: TestClient, loop: Path, kit: SimpleNamespace, tmp_path: Path
) -> None:
    params, _ = ask(client, "shade_there", "s02")
    assert (params["version"], params["message"]) == (None, "no model yet: 0 of 5 labels")
    untrained(Home.find(loop), "shade_there")
    reply = client.post("/infer/shade_there", params={"image": "s02", "output": "json"})
    assert reply.status_code == 404
    assert "label that in this study first" in kit.error_of(reply)
    block = np.zeros(nib.load(loop / "s02.nii.gz").shape, np.uint8)
    block[6:12, 6:12, 3:7] = 1
    draw(client, loop, "s02", block, tmp_path)
    params, mask = ask(client, "shade_there", "s02")
    assert params["region"].startswith("label ")
    np.testing.assert_array_equal(mask, block)
