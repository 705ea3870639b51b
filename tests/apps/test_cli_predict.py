"""`radloop predict` keeps its hands off images and labels, and takes no answer to another question for its own."""

from __future__ import annotations

import csv
import errno
import shutil
from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest

from radloop.apps.cli import main
from radloop.studies.home import Home

RECIPE = """
name = "{name}"
labels = {{ blob = 1 }}
channels = {channels}
[network]
features = [4, 8]
strides = [[1, 1, 1], [2, 2, 2]]
[fit]
patch = [16, 16, 8]
"""


@pytest.fixture
def home(tmp_path: Path, kit: SimpleNamespace) -> Path:
    """A home whose recipes `tiny`, `other` and `two` (two channels) serve; each marks every voxel."""
    path = tmp_path / "home"
    for name, channels in (("tiny", '["image"]'), ("other", '["image"]'), ("two", '["a", "b"]')):
        (Home(path).recipes / f"{name}.toml").write_text(RECIPE.format(name=name, channels=channels))
        kit.publish(path, name)
    return path


def _predict(recipe: str, home: Path, out: Path, *source: object) -> int:
    return main(["predict", recipe, *map(str, source), "--home", str(home), "--out", str(out)])


def _rows(out: Path) -> dict[str, dict[str, str]]:
    return {row["study"]: row for row in csv.DictReader((out / "results.csv").open())}


@pytest.mark.parametrize("out", [".", "labels", "labels/final", "labels/original/x", "case"])
def test_no_image_and_no_label_is_overwritten(out: str, home: Path, tmp_path: Path, kit: SimpleNamespace) -> None:
    studies = tmp_path / "d"
    (studies / "labels" / "final").mkdir(parents=True)
    image = kit.make_study(studies, "scan")
    kit.mask_file(studies / "labels" / "final" / "scan.nii.gz")
    if out == "case":  # another folder, where the image's name leads back to the image
        (studies / out).mkdir()
        (studies / out / "scan.nii.gz").symlink_to(image)
    before = {path: path.read_bytes() for path in studies.rglob("*") if path.is_file()}
    assert _predict("tiny", home, studies / out, "--image", image) == 2
    assert _predict("tiny", home, studies / out, "--studies", studies) == 2
    assert {path: path.read_bytes() for path in studies.rglob("*") if path.is_file()} == before


def test_a_file_that_is_no_answer_stays(
    home: Path, tmp_path: Path, kit: SimpleNamespace, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("d", "elsewhere"):
        (tmp_path / name).mkdir()
    image, other = kit.make_study(tmp_path / "d", "scan"), kit.make_study(tmp_path / "elsewhere", "scan", 1)
    before = other.read_bytes()
    assert _predict("tiny", home, tmp_path / "elsewhere", "--image", image) == 1
    assert "scan.nii.gz is there" in capsys.readouterr().err
    assert other.read_bytes() == before


def test_only_the_same_question_to_the_same_image_is_answered_already(
    home: Path, tmp_path: Path, kit: SimpleNamespace, capsys: pytest.CaptureFixture[str]
) -> None:
    studies, out = tmp_path / "d", tmp_path / "out"
    studies.mkdir()
    for number in range(3):
        kit.make_study(studies, f"s{number}", number)

    def answered(recipe: str = "tiny", home: Path = home) -> int:
        assert _predict(recipe, home, out, "--studies", studies) == 0
        return int(capsys.readouterr().out.split(": ")[1].split()[0])

    assert answered() == 3
    assert answered() == 0
    kit.make_study(studies, "s1", 50)
    assert answered() == 1
    assert answered("other") == 3
    assert {row["recipe"] for row in _rows(out).values()} == {"other"}
    text = (home / "recipes" / "other.toml").read_text()
    (home / "recipes" / "other.toml").write_text(text.replace("[fit]", "[preprocess]\nnormalise = 'rescale'\n[fit]"))
    assert answered("other") == 0  # the version's own recipe counts, not what was written since
    assert kit.publish(home, "other") == 2
    assert answered("other") == 3
    shutil.copytree(home / "recipes", tmp_path / "home2" / "recipes")
    kit.publish(tmp_path / "home2", "other")
    assert answered("other", tmp_path / "home2") == 3


def test_one_image_is_always_answered_again_and_leaves_the_others_in_the_table(
    home: Path, tmp_path: Path, kit: SimpleNamespace
) -> None:
    (tmp_path / "d").mkdir()
    one, two = (kit.make_study(tmp_path / "d", name) for name in ("one", "two"))
    out = tmp_path / "out"
    for image in (one, two, one):
        (out / f"{image.name}").unlink(missing_ok=True)
        assert _predict("tiny", home, out, "--image", image) == 0
        assert (out / image.name).is_file()
    assert sorted(_rows(out)) == ["one", "two"]


def test_channels_of_one_image_are_found_beside_it(
    home: Path, tmp_path: Path, kit: SimpleNamespace, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "d").mkdir()
    first = kit.make_study(tmp_path / "d", "q_0000")
    assert _predict("two", home, tmp_path / "out", "--image", first) == 1
    assert "q_0001.nii.gz" in capsys.readouterr().err
    second = kit.make_study(tmp_path / "d", "q_0001", 1)
    assert _predict("two", home, tmp_path / "out", "--image", first) == 0
    assert np.asarray(nib.load(tmp_path / "out" / "q.nii.gz").dataobj).all()
    assert _predict("two", home, tmp_path / "out", "--image", second) == 2
    assert "q_0000" not in _rows(tmp_path / "out")


def test_the_home_beside_an_image_is_the_default(home: Path, tmp_path: Path, kit: SimpleNamespace) -> None:
    (tmp_path / "d").mkdir()
    image = kit.make_study(tmp_path / "d", "scan")
    words = ["predict", "tiny", "--image", str(image), "--out", str(tmp_path / "out")]
    assert main(words) == 2
    home.rename(tmp_path / "d" / ".radloop")
    assert main(words) == 0


@pytest.mark.parametrize("failure", [RuntimeError("CUDA out of memory"), MemoryError()])
def test_a_study_that_is_too_large_does_not_stop_the_others(
    failure: Exception, home: Path, tmp_path: Path, kit: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    from radloop.engine.predictor import Predictor

    real, calls = Predictor.predict, []

    def predict(self: Predictor, *given: object, **more: object) -> object:
        calls.append(1)
        if len(calls) == 1:
            raise failure
        return real(self, *given, **more)

    monkeypatch.setattr(Predictor, "predict", predict)
    (tmp_path / "d").mkdir()
    for number in range(2):
        kit.make_study(tmp_path / "d", f"s{number}")
    assert _predict("tiny", home, tmp_path / "out", "--studies", tmp_path / "d") == 1
    assert sorted(_rows(tmp_path / "out")) == ["s1"]


def test_a_full_disk_stops_at_once(
    home: Path,
    tmp_path: Path,
    kit: SimpleNamespace,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    import radloop.studies.images

    def full(path: Path, *_: object) -> None:
        from radloop.studies.files import no_space

        raise no_space(OSError(errno.ENOSPC, "No space left on device"), path.name) or AssertionError

    monkeypatch.setattr(radloop.studies.images, "write_mask", full)
    (tmp_path / "d").mkdir()
    for number in range(2):
        kit.make_study(tmp_path / "d", f"s{number}")
    assert _predict("tiny", home, tmp_path / "out", "--studies", tmp_path / "d") == 1
    assert len(capsys.readouterr().err.splitlines()) == 1
