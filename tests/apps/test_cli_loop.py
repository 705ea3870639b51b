"""The commands on tiny studies with a tiny network: in, trained, measured, predicted, listed, taken back, out."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from radloop.apps.cli import main
from radloop.registry.registry import Registry
from radloop.studies.home import Home
from radloop.studies.ledger import Ledger

RECIPE = """
name = "bright"
labels = { blob = 1 }
[network]
features = [4, 8]
strides = [[1, 1, 1], [2, 2, 2]]
[fit]
patch = [16, 16, 8]
steps = 15
epochs = 2
[evaluate]
lesions = ["blob"]
"""
AFFINE = np.diag([2.0, 2.0, 3.0, 1.0])
PATIENTS = 14


def _write_study(folder: Path, number: int, mask: bool = True) -> None:
    rng = np.random.default_rng(number)
    image = rng.normal(0, 1, (20, 18, 10)).astype(np.float32)
    corner = rng.integers(3, 8, 3) * (1, 1, 0) + (0, 0, 3)
    blob = tuple(slice(c, c + 5) for c in corner)
    image[blob] += 8
    truth = np.zeros(image.shape, np.uint8)
    truth[blob] = 1
    nib.save(nib.Nifti1Image(image, AFFINE), folder / f"case{number:02d}.nii.gz")
    if mask:
        nib.save(nib.Nifti1Image(truth, AFFINE), folder / "labels" / "final" / f"case{number:02d}.nii.gz")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `studies` (trained once), `bright.toml`; tests read it and add to it."""
    top = tmp_path_factory.mktemp("loop")
    studies = top / "studies"
    (studies / "labels" / "final").mkdir(parents=True)
    for number in range(PATIENTS):
        _write_study(studies, number)
    _write_study(studies, PATIENTS, mask=False)
    (studies / "labels" / "names.json").write_text('{"blob": 1}')
    (top / "bright.toml").write_text(RECIPE)
    assert main(["train", str(top / "bright.toml"), "--studies", str(studies), "--epochs", "2"]) == 0
    # the trivial method is perfect on bright blobs, so the gate refuses; a person may overrule it
    assert main(["model", "rollback", "bright", "1", "--studies", str(studies)]) == 0
    return top


def _on(place: Path, *words: str) -> list[str]:
    return [*words, "--studies", str(place / "studies")]


def test_training_says_the_decision_and_is_written_down(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(_on(place, "train", "bright", "--epochs", "1", "--seed", "1")) == 0
    said = capsys.readouterr().out
    assert "held out  Dice" in said
    assert "gate      " in said
    assert "not for clinical use" in said
    training = Ledger(Home.find(place / "studies")).last_training("bright")
    assert training is not None
    assert training.state == "done"


def test_train_takes_only_the_images_of_a_list(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    listing = place / "some.txt"
    listing.write_text("# the first eight\n" + "".join(f"case{n:02d}\n" for n in range(8)))
    assert main(_on(place, "train", "bright", "--epochs", "1", "--images", str(listing))) == 0
    newest = _newest_manifest(place)
    assert {row.study for row in _rows(place) if row.id in newest["labels"]} <= {f"case{n:02d}" for n in range(8)}


def test_a_list_with_an_unknown_image_is_refused(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    listing = place / "typo.txt"
    listing.write_text("case0\n")
    assert main(_on(place, "train", "bright", "--images", str(listing))) == 1
    assert "'case0' is not in studies; did you mean 'case" in capsys.readouterr().err


def test_a_fold_never_serves_and_is_measured_on_what_it_left_out(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(_on(place, "train", "bright", "--epochs", "1", "--fold", "2/3")) == 0
    assert "never serves" in capsys.readouterr().out
    assert _newest_manifest(place)["fold"] == [2, 3]
    out = place / "fold.json"
    assert main(_on(place, "evaluate", "bright", "--fold", "2/3", "--json", str(out))) == 0
    figures = json.loads(out.read_text())
    assert figures["patients"] == len(_newest_manifest(place)["patients"]["fold"])
    assert main(_on(place, "evaluate", "bright", "--fold", "1/3")) == 1
    assert "--fold 1/3" in capsys.readouterr().err


def test_evaluate_writes_json_report_and_table(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = {kind: place / f"out.{kind}" for kind in ("json", "html", "csv")}
    words = ["--json", str(files["json"]), "--report", str(files["html"]), "--per-study", str(files["csv"])]
    assert main(_on(place, "evaluate", "bright", *words)) == 0
    said = capsys.readouterr().out
    figures = json.loads(files["json"].read_text())
    assert figures["recipe"] == "bright"
    assert {"dice", "dice.blob", "surface_dice", "hd95"} <= set(figures["metrics"]) | {"hd95"}
    assert set(figures["metrics"]["dice"]) == {"value", "low", "high"}
    assert set(figures) == {"recipe", "version", "n", "patients", "metrics", "readings", "froc"}
    assert {"lesion_recall", "lesion_precision", "froc", "sensitivity_at_1_fp", "ap50"} <= set(figures["metrics"])
    assert set(figures["froc"]["blob"]) == {"false_positives_a_study", "sensitivity"}
    assert {"trivial_dice", "difference"} <= set(figures["metrics"])
    assert all(set(figure) == {"value", "low", "high"} for figure in figures["metrics"].values())
    assert "the test side of the patient split" in said
    assert "trivial method on the same patients" in said
    rows = list(csv.DictReader(files["csv"].open()))
    assert len(rows) == figures["n"] >= 2
    test_side = {case.study for case in _cases(place, "test")}
    assert {row["study"] for row in rows} == test_side
    assert {row["lesions_true.blob"] for row in rows} == {"1"}
    assert "FROC curve" in files["html"].read_text()
    for text in (said, files["html"].read_text().lower()):
        assert "not for clinical use" in text


def test_evaluate_measures_an_outside_set_without_touching_it_or_the_ledger(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outside = tmp_path / "elsewhere"
    (outside / "labels" / "final").mkdir(parents=True)
    for number in (3, 77):  # case03 is there at home too, with another mask
        _write_study(outside, number + 100 if number == 3 else number)
    (outside / "case103.nii.gz").rename(outside / "case03.nii.gz")
    (outside / "labels" / "final" / "case103.nii.gz").rename(outside / "labels" / "final" / "case03.nii.gz")
    before = {path: path.read_bytes() for path in outside.rglob("*") if path.is_file()}
    labels = len(_rows(place))
    (tmp_path / "ids.txt").write_text("case03\ncase77\n")
    home = place / "studies" / ".radloop"
    out = tmp_path / "outside.json"
    words = ["evaluate", "bright", "--studies", str(outside), "--home", str(home), "--json", str(out)]
    assert main([*words, "--images", str(tmp_path / "ids.txt")]) == 0
    assert json.loads(out.read_text())["n"] == 2
    assert "outside set" in capsys.readouterr().out
    assert {path: path.read_bytes() for path in outside.rglob("*") if path.is_file()} == before
    assert len(_rows(place)) == labels


def test_evaluate_measures_against_its_own_labels_whatever_the_folder_shows(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The view holds another recipe's newer mask, and the studies are known under another path of their home."""
    other = (place / "bright.toml").read_text().replace("bright", "dark").replace("blob", "void")
    (tmp_path / "dark.toml").write_text(other)
    studies, home = place / "studies", place / "studies" / ".radloop"
    ledger = Ledger(Home(home))
    study = _cases(place, "test")[0].study
    truth = ledger.file(ledger.current("bright")[study])
    ledger.add(study, study, "dark", "me", ledger.file(_wrong(ledger, study)), ".nii.gz", ["void"])
    shown = studies / "labels" / "final" / f"{study}.nii.gz"
    kept = shown.read_bytes()
    (tmp_path / "ids.txt").write_text(f"{study}\n")
    out = tmp_path / "out.json"
    words = ["evaluate", "bright", "--studies", str(studies), "--images", str(tmp_path / "ids.txt")]
    figures = []
    try:
        for content, more in ((truth, []), (ledger.file(_wrong(ledger, study)), ["--home", str(tmp_path / "h")])):
            shown.write_bytes(content.read_bytes())
            if more:
                shutil.copytree(home, tmp_path / "h")
            assert main([*words, "--json", str(out), *more]) == 0
            figures.append(json.loads(out.read_text())["metrics"]["dice"]["value"])
            assert "outside" not in capsys.readouterr().out
    finally:
        shown.write_bytes(kept)
        ledger.revoke(author="me")
    assert figures[0] == figures[1]


def _wrong(ledger: Ledger, study: str) -> object:
    """Somebody else's mask."""
    return next(row for name, row in sorted(ledger.current("bright").items()) if name != study)


def test_evaluate_names_an_image_without_a_label(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    listing = place / "unlabelled.txt"
    listing.write_text(f"case{PATIENTS:02d}\n")
    assert main(_on(place, "evaluate", "bright", "--images", str(listing))) == 1
    assert f"case{PATIENTS:02d} has no label of recipe bright" in capsys.readouterr().err


def test_evaluate_says_when_it_flatters(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    listing = place / "learned.txt"
    listing.write_text("".join(f"{case.study}\n" for case in _cases(place, "train")))
    assert main(_on(place, "evaluate", "bright", "--images", str(listing))) == 0
    assert "flatters" in capsys.readouterr().out


def test_predict_names_what_failed_goes_on_and_resumes(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = place / "masks"
    broken = place / "studies" / "case99.nii.gz"
    broken.write_bytes(b"this is no image")
    try:
        assert main(_on(place, "predict", "bright", "--out", str(out))) == 1
        said = capsys.readouterr()
        assert "case99" in said.err
        assert "not for clinical use" in said.out
    finally:
        broken.unlink()
    rows = [row for row in csv.DictReader((out / "results.csv").open()) if not row["lesion"]]
    assert len(rows) == PATIENTS + 1
    assert set(rows[0]) >= {"study", "label", "volume_ml", "version", "seconds", "warnings", "notice"}
    for row in rows:
        mask = nib.load(out / f"{row['study']}.nii.gz")
        assert np.allclose(mask.affine, AFFINE)
        voxels = int((np.asarray(mask.dataobj) == 1).sum())
        assert float(row["volume_ml"]) == pytest.approx(voxels * 12 / 1000, abs=1e-3)
        assert (row["warnings"] == "nothing found") == (voxels == 0)
    times = {path: path.stat().st_mtime_ns for path in out.glob("*.nii.gz")}
    (out / "case05.nii.gz").unlink()
    assert main(_on(place, "predict", "bright", "--out", str(out))) == 0
    assert "14 are there already" in capsys.readouterr().out
    again = {path: path.stat().st_mtime_ns for path in out.glob("*.nii.gz")}
    assert [path.name for path in times if times[path] != again[path]] == ["case05.nii.gz"]
    table = csv.DictReader((out / "results.csv").open())
    assert sum(not row["lesion"] for row in table) == PATIENTS + 1


def test_predict_takes_one_image(place: Path, tmp_path: Path) -> None:
    home = place / "studies" / ".radloop"
    image = place / "studies" / "case02.nii.gz"
    words = ["predict", "bright", "--image", str(image), "--home", str(home), "--out", str(tmp_path / "o")]
    assert main(words) == 0
    assert (tmp_path / "o" / "case02.nii.gz").is_file()


def test_versions_are_listed_and_an_earlier_one_can_serve(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(_on(place, "model", "list", "bright")) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len([line for line in lines if line.startswith("*")]) == 1
    assert main(_on(place, "model", "rollback", "bright", "1")) == 0
    assert "bright version 1 serves now" in capsys.readouterr().out
    assert main(_on(place, "model", "rollback", "bright", "99")) == 1
    assert main(_on(place, "model", "list")) == 0


def test_status_counts_and_writes_json(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = place / "status.json"
    assert main(_on(place, "status", "--json", str(out))) == 0
    facts = json.loads(out.read_text())
    assert facts["studies"] == PATIENTS + 1
    assert facts["recipes"]["bright"]["labelled"] == PATIENTS
    assert sum(facts["sides"].values()) == PATIENTS + 1
    assert f"{PATIENTS} studies" in capsys.readouterr().out


def test_export_holds_out_what_was_held_out(place: Path, tmp_path: Path) -> None:
    assert main(_on(place, "export", "--recipe", "bright", "--out", str(tmp_path / "nn"), "--format", "nnunet")) == 0
    there = {path.name[:6] for path in (tmp_path / "nn" / "imagesTr").iterdir()}
    assert there
    assert there.isdisjoint(case.study for case in _cases(place, "test"))


def test_labels_are_taken_back_for_good(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    studies = tmp_path / "studies"
    (studies / "labels" / "final").mkdir(parents=True)
    for number in range(3):
        _write_study(studies, number)
    (studies / "labels" / "names.json").write_text('{"blob": 1}')
    home = Home.find(studies)
    (home.recipes / "bright.toml").write_text(RECIPE)
    on = ["--studies", str(studies)]
    assert main(["export", *on, "--out", str(tmp_path / "o")]) == 0  # takes the masks into the ledger
    assert main(["labels", "list", *on, "--author", "import"]) == 0
    assert "3 rows" in capsys.readouterr().out
    assert main(["labels", "revoke", *on, "--author", "nobody"]) == 0
    assert "took back 0 labels" in capsys.readouterr().out
    assert main(["labels", "revoke", *on, "--author", "import", "--since", "2020-01-01"]) == 0
    assert "took back 3 labels" in capsys.readouterr().out
    assert Ledger(home).current("bright") == {}
    assert main(["export", *on, "--recipe", "bright", "--out", str(tmp_path / "p")]) == 1
    assert Ledger(home).current("bright") == {}, "a mask that was taken back came in again"


def test_no_mask_becomes_a_label_of_a_recipe_nobody_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    studies = tmp_path / "studies"
    (studies / "labels" / "final").mkdir(parents=True)
    for number in range(2):
        _write_study(studies, number)
    on = ["--studies", str(studies)]
    assert main(["status", *on, "--json", str(tmp_path / "status.json")]) == 0
    assert "2 masks in labels/final are no labels yet" in capsys.readouterr().out
    assert json.loads((tmp_path / "status.json").read_text())["unknown_masks"] == 2
    assert main(["labels", "revoke", *on, "--author", "nobody"]) == 0
    assert main(["export", *on, "--out", str(tmp_path / "o")]) == 2
    assert Ledger(Home.find(studies)).history() == []
    (tmp_path / "my.toml").write_text(RECIPE.replace("bright", "zz_mine"))
    assert main(["export", *on, "--out", str(tmp_path / "o"), "--recipe", str(tmp_path / "my.toml")]) == 0
    assert {row.recipe for row in Ledger(Home.find(studies)).history()} == {"zz_mine"}
    capsys.readouterr()
    assert main(["status", *on]) == 0
    assert "masks in labels/final" not in capsys.readouterr().out


def test_a_held_label_is_listed_with_its_reason_and_confirmed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    studies = tmp_path / "studies"
    (studies / "labels" / "final").mkdir(parents=True)
    _write_study(studies, 1)
    mask = studies / "labels" / "final" / "case01.nii.gz"
    home = Home.find(studies)
    (home.recipes / "bright.toml").write_text(RECIPE)
    ledger = Ledger(home)
    held = ledger.add(
        "case01", "case01", "bright", "me", mask, ".nii.gz", ["blob"], state="held", note="nothing marked"
    )
    mask.unlink()
    on = ["--studies", str(studies)]
    assert main(["labels", "list", *on]) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if "case01" in line)
    assert line.split()[0] == str(held.id)
    assert "held" in line
    assert line.endswith("nothing marked")
    assert main(["status", *on]) == 0
    assert "1 held for a second look" in capsys.readouterr().out
    assert main(["labels", "confirm", str(held.id), "99", *on]) == 1
    said = capsys.readouterr()
    assert "label 99 is not in the ledger" in said.err
    assert "confirmed 1 label" in said.out
    assert list(ledger.current("bright")) == ["case01"]
    assert mask.is_file()
    assert main(["labels", "confirm", str(held.id), *on]) == 1
    assert "only a held label can be confirmed" in capsys.readouterr().err
    for state in ("held", "final"):  # a newer label stands: the held one waits for nobody
        ledger.add("case01", "case01", "bright", "me", mask, ".nii.gz", ["blob"], state=state)
    assert main(["status", *on]) == 0
    assert "held for" not in capsys.readouterr().out


def test_import_names_what_it_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "source"
    (source / "labels" / "final").mkdir(parents=True)
    _write_study(source, 1, mask=False)
    (source / "broken.nii.gz").write_bytes(b"no image")
    assert main(["import", str(source), "--studies", str(tmp_path / "studies")]) == 0
    said = capsys.readouterr()
    assert "1 study" in said.out
    assert "broken.nii.gz" in said.err
    assert (tmp_path / "studies" / "case01.nii.gz").is_file()


def test_a_recipe_is_planned_and_checked(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "My Blobs.toml"
    assert main(_on(place, "recipe", "new", "--out", str(out), "--answer-seconds", "30")) == 0
    assert main(["recipe", "check", str(out)]) == 0
    assert "my_blobs" in capsys.readouterr().out
    out.write_text(out.read_text().replace("[fit]", "[fit]\npach = [1, 2, 3]"))
    assert main(["recipe", "check", str(out)]) == 1
    said = capsys.readouterr().err
    assert "pach" in said
    assert "patch" in said


def _rows(place: Path) -> list:
    return Ledger(Home.find(place / "studies")).history()


def _cases(place: Path, side: str) -> list:
    from radloop.recipes.load import parse_recipe
    from radloop.studies.cases import labelled_cases
    from radloop.studies.folder import StudiesFolder

    folder = StudiesFolder(place / "studies")
    return labelled_cases(folder, Ledger(Home.find(folder.path)), parse_recipe(RECIPE), sides=(side,))


def _newest_manifest(place: Path) -> dict:
    from radloop.registry.registry import Registry

    return Registry(Home.find(place / "studies")).versions("bright")[-1].manifest


def test_from_a_version_to_its_labels_and_back(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "version.json"
    assert main(_on(place, "model", "show", "bright", "1", "--json", str(out))) == 0
    said = capsys.readouterr().out
    facts = json.loads(out.read_text())
    manifest = Registry(Home.find(place / "studies")).version("bright", 1).manifest
    assert {label["id"] for label in facts["labels"] if label["use"] == "learned"} == set(manifest["labels"])
    assert {label["id"] for label in facts["labels"] if label["use"] == "judged on"} == set(manifest["held_out_labels"])
    assert facts["recipe_hash"] == manifest["recipe_hash"]
    assert facts["seed"] == manifest["seed"]
    assert "not for clinical use" in said
    row = facts["labels"][0]
    assert row["author"] in said
    assert main(_on(place, "labels", "show", str(manifest["labels"][0]), row["study"])) == 0
    assert "trained version 1" in capsys.readouterr().out
    for bad in (["model", "show", "bright", "99"], ["labels", "show", "nothing-of-the-kind"]):
        assert main(_on(place, *bad)) == 1
        assert len(capsys.readouterr().err.splitlines()) == 1
