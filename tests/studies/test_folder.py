"""A folder of files as studies."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from radloop.recipes.errors import BadInput, NotFound
from radloop.studies.folder import StudiesFolder, split_ending, valid_id


def fill(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    return folder


def settle(folder: Path) -> None:
    """Make the folder look as if nobody had touched it for a minute."""
    past = time.time() - 60
    os.utime(folder, (past, past))


def test_ids_are_file_names_without_their_ending(tmp_path):
    fill(tmp_path, "a.nii.gz", "1.2.840.1.nrrd", "肺 01.png", "B.NII.GZ", "c.jpeg", "d.mha", "e.nii", "Å+b=(1)@x,y.jpg")
    assert list(StudiesFolder(tmp_path).studies()) == sorted(
        ["a", "1.2.840.1", "肺 01", "B", "c", "d", "e", "Å+b=(1)@x,y"]
    )


def test_what_is_no_study(tmp_path, caplog):
    fill(
        tmp_path,
        "a.nii.gz",
        ".hidden.nii.gz",
        "._a.nii.gz",
        "b.nii.gz.part",
        "datastore_v2.json",
        "answers.txt",
        "a.seg.nrrd",
        "labels/final/a.nii.gz",
        "labels/x.dcm",
        "notes/readme.md",
        "empty/deeper/1.dcm",
        ".radloop/1.dcm",
        "bad;name.nii.gz",
        "two..dots.nii.gz",
    )
    assert list(StudiesFolder(tmp_path).studies()) == ["a"]
    assert "bad;name.nii.gz" in caplog.text


def test_a_folder_of_dicom_files_is_a_study(tmp_path):
    fill(tmp_path, "p1/IM0001", "p2/1.dcm", "p3/1.2.840.7", "p4/DICOMDIR", "p4/README.md", "p5/a.ima")
    studies = StudiesFolder(tmp_path).studies()
    assert list(studies) == ["p1", "p2", "p3", "p5"]
    assert studies["p1"].channels == (tmp_path / "p1",)


def test_channels_are_one_study(tmp_path):
    fill(tmp_path, "x_0000.nii.gz", "x_0001.nii.gz", "y_0000.nii.gz", "y_0002.nii.gz", "z_0001.nii.gz", "w.nii.gz")
    studies = StudiesFolder(tmp_path).studies()
    assert [path.name for path in studies["x"].channels] == ["x_0000.nii.gz", "x_0001.nii.gz"]
    # What is missing is listed where it should be, so that reading it can name it.
    assert [path.name for path in studies["y"].channels] == ["y_0000.nii.gz", "y_0001.nii.gz", "y_0002.nii.gz"]
    assert [path.name for path in studies["z"].channels] == ["z_0000.nii.gz", "z_0001.nii.gz"]
    assert [path.name for path in studies["w"].channels] == ["w.nii.gz"]
    two = StudiesFolder(tmp_path, channels=2).studies()
    assert [path.name for path in two["w"].channels] == ["w.nii.gz", "w_0001.nii.gz"]
    assert [path.name for path in two["y"].first_channels(1)] == ["y_0000.nii.gz"]


def test_numbers_at_the_end_are_no_channels_without_a_channel_0(tmp_path):
    fill(tmp_path, "case_0001.nii.gz", "case_0002.nii.gz")
    assert list(StudiesFolder(tmp_path).studies()) == ["case_0001", "case_0002"]


def test_two_files_of_one_id(tmp_path, caplog):
    fill(tmp_path, "a.png", "a.nii.gz", "a.nrrd")
    assert StudiesFolder(tmp_path).study("a").channels == (tmp_path / "a.nii.gz",)
    assert "a.png is not used" in caplog.text


def test_answers_name_patients_dates_and_more(tmp_path, caplog):
    fill(tmp_path, "a.nii.gz", "b.nii.gz", "c.nii.gz")
    table = "image, patient ,date,grade\na,P1,2020-01-02,III\nb.nii.gz,P1,,\nzz,P9,,\n"
    (tmp_path / "answers.csv").write_text(table, encoding="utf-8-sig")
    studies = StudiesFolder(tmp_path).studies()
    assert (studies["a"].patient, studies["a"].date, studies["a"].answers) == ("P1", "2020-01-02", {"grade": "III"})
    assert (studies["b"].patient, studies["b"].answers) == ("P1", {"grade": ""})
    assert (studies["c"].patient, studies["c"].answers) == ("c", {})
    assert "1 rows are of no study here, the first 'zz'" in caplog.text


@pytest.mark.parametrize(
    ("table", "reason"),
    [(b"id,patient\na,b\n", "'image'"), ("image\n肺\n".encode("gbk"), "UTF-8"), (b"", "'image'")],
)
def test_answers_that_cannot_be_read(tmp_path, table, reason):
    fill(tmp_path, "a.nii.gz")
    (tmp_path / "answers.csv").write_bytes(table)
    with pytest.raises(BadInput, match=reason):
        StudiesFolder(tmp_path).studies()


def test_an_unknown_study_hints_at_the_closest(tmp_path):
    folder = StudiesFolder(fill(tmp_path, "liver_12.nii.gz"))
    with pytest.raises(NotFound, match="did you mean 'liver_12'"):
        folder.study("liver-12")


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(NotFound, match="--studies"):
        StudiesFolder(tmp_path / "no-such")


def test_new_and_changed_files_are_seen(tmp_path):
    folder = StudiesFolder(fill(tmp_path, "a.nii.gz"))
    assert list(folder.studies()) == ["a"]
    fill(tmp_path, "b.nii.gz")
    assert list(folder.studies()) == ["a", "b"]
    settle(tmp_path)
    assert list(folder.studies()) == ["a", "b"]
    (tmp_path / "answers.csv").write_text("image,patient\na,P1\n")
    settle(tmp_path)
    assert folder.study("a").patient == "P1"
    # An old time on a new file, as rsync leaves it.
    fill(tmp_path, "c.nii.gz")
    settle(tmp_path)
    assert list(folder.studies()) == ["a", "b", "c"]
    (tmp_path / "a.nii.gz").unlink()
    assert list(folder.studies()) == ["b", "c"]


def test_ten_thousand_studies_are_listed_fast(tmp_path):
    fill(tmp_path, *(f"study_{n:05d}.nii.gz" for n in range(10_000)))
    settle(tmp_path)
    folder = StudiesFolder(tmp_path)
    assert len(folder.studies()) == 10_000
    start = time.perf_counter()
    for _ in range(20):
        folder.studies()
    # Scanning takes ten times as long; a busy machine is slow at both.
    again = (time.perf_counter() - start) / 20
    start = time.perf_counter()
    StudiesFolder(tmp_path).studies()
    assert again < (time.perf_counter() - start) / 2


def test_a_proposal_is_found_by_its_study(tmp_path):
    folder = StudiesFolder(
        fill(tmp_path, "a.nii.gz", "b.nii.gz", "labels/original/a.seg.nrrd", "labels/final/b.nii.gz")
    )
    assert folder.proposal("a") == tmp_path / "labels" / "original" / "a.seg.nrrd"
    assert folder.proposal("b") is None


@given(st.text(max_size=30))
def test_a_valid_id_stays_inside_the_folder(study_id):
    if valid_id(study_id):
        assert Path("/x", study_id).resolve().parent == Path("/x")
        assert "\0" not in study_id


@pytest.mark.parametrize("study_id", ["a", "肺 01", "1.2.840", "José", "हिन्दी", "x" * 200, "a+b=(c)@d,e"])
def test_valid_ids(study_id):
    assert valid_id(study_id)


@pytest.mark.parametrize(
    "study_id", ["", ".a", "a/b", "a\\b", "..", "a..b", "a\nb", "a\x7fb", "x" * 201, "a:b", "a*", " a", "a\u202eb"]
)
def test_invalid_ids(study_id):
    assert not valid_id(study_id)


def test_endings():
    assert split_ending("a.b.nii.gz") == ("a.b", ".nii.gz")
    assert split_ending("a.NII") == ("a", ".NII")
    assert split_ending("a.gz") == ("a.gz", "")
