"""What goes with a patient, and whose it must be to go."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from radloop.recipes.errors import NotFound
from radloop.studies import forget


def test_a_line_of_before_in_answers_takes_no_other_patients_study(house: Any) -> None:
    for study in ("s1", "s2"):
        house.arrive(study)
    (house.path / "answers.csv").write_text("image,patient\ns1,P\ns2,P\ns2,Q\n")
    house.label("s2")
    house.forget("P")
    assert house.folder.studies().keys() == {"s2"}
    assert house.ledger.current("one")["s2"].patient == "Q"
    assert (house.path / "answers.csv").read_text() == "image,patient\ns2,Q\n"


def test_a_label_from_when_the_study_was_named_wrongly_only_loses_the_name(house: Any) -> None:
    for study in ("s1", "s5"):
        house.arrive(study)
        house.name(study, "P")
        house.label(study)
    house.name("s5", "Q")
    house.forget("P")
    assert house.folder.studies().keys() == {"s5"}
    (row,) = house.ledger.history("s5")
    assert row.patient.startswith("forgotten-")
    assert house.ledger.current("one") == {"s5": row}
    assert house.ledger.content(row).is_file()


def test_the_label_of_a_study_that_is_another_patients_by_its_newest_label_stays(house: Any) -> None:
    house.arrive("s5")
    house.name("s5", "P")
    house.label("s5")
    house.name("s5", "Q")
    house.label("s5", "two")
    house.remove("s5")
    house.patients.clear()
    house.arrive("s1")
    house.name("s1", "P")
    house.forget("P")
    assert [row.patient for row in house.ledger.current("two").values()] == ["Q"]
    assert house.ledger.current("one").keys() == {"s5"}


def test_a_study_id_is_no_patient_where_the_study_is_named(house: Any) -> None:
    house.arrive("s1")
    house.label("s1")
    house.name("s1", "P")
    with pytest.raises(NotFound, match="no patient 's1'; study s1 is of patient 'P'"):
        house.forget("s1")
    assert house.ledger.current("one").keys() == {"s1"}
    assert house.ledger.content(house.ledger.row(1)).is_file()


def test_labels_from_before_the_patient_was_named_are_found_after_a_crash(house: Any) -> None:
    house.arrive("s1")
    house.label("s1")
    house.name("s1", "P")
    found = forget.find(house.folder, house.ledger, "P")
    forget.bury(house.ledger, found, (), "ann")
    forget.remove_files(house.folder, house.ledger, found)
    house.forget("P")
    assert not {"s1", "P"} & {word for row in house.ledger.history() for word in (row.study, row.patient)}
    assert (house.path / "answers.csv").read_text().split() == ["image,patient"]


def test_a_label_that_was_given_as_of_another_patient_still_says_so(house: Any) -> None:
    house.arrive("s1")
    house.name("s1", "R")
    house.label("s1")
    house.name("s1", "P")
    assert forget.find(house.folder, house.ledger, "P").former == {"R"}
    house.forget("P")
    assert {row.patient for row in house.ledger.history()} == {"R"}
    assert all(row.study.startswith("forgotten-") for row in house.ledger.history())
    house.forget("R")
    assert all(row.patient.startswith("forgotten-") for row in house.ledger.history())


def ended() -> int:
    """Id of a process that is gone."""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    return process.pid


def filled_with(house: Any, *studies: str) -> None:
    for study in studies:
        house.arrive(study)
        house.label(study)


def put(path: Path, source: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, path)
    return path


def test_what_killed_processes_left_goes_too(house: Any) -> None:
    filled_with(house, "erna", "otto")
    home, gone, image = house.home, ended(), house.path / "erna.nii.gz"
    left = [
        put(home.labels / f".tmp-{gone}-aa.nii.gz", house.mask),
        put(house.folder.final_dir / f".tmp-{gone}-aa.nii.gz", house.mask),
        put(house.path / f".tmp-{gone}-aa.nii.gz", image),
        put(home.versions / "one" / "1" / f".tmp-{gone}-aa.json", house.mask),
        put(home.snapshots / f".tmp-{gone}-aa", home.path / "ledger.db"),
        put(home.cache / "tmpabc" / "erna.nii.gz", house.mask),
        put(house.path / ".import-x" / "erna.nii.gz", image),
        put(home.path / "tmp" / "radloop-x" / "unpacked" / "00000-erna.nii.gz", image),
        put(home.sessions / "u" / "00000-erna.nii.gz", image),
        put(house.path / "erna.seg.nrrd", house.mask),
    ]
    old = put(house.path / ".radloop-restore-x" / "labels" / "y", house.mask)
    for path in (old, old.parent, old.parent.parent):
        os.utime(path, (1, 1))
    stay = [
        put(home.labels / f".tmp-{os.getpid()}-aa.nii.gz", house.mask),
        put(home.cache / "tmpdef" / "otto.nii.gz", house.mask),
        put(home.sessions / "v" / "00001-otto.nii.gz", image),
        put(house.path / "00000-erna.nii.gz", image),
    ]
    house.forget("erna")
    assert [path for path in (*left, old) if path.exists()] == []
    assert [path for path in stay if not path.exists()] == []
    assert house.ledger.whole(house.ledger.current("one")["otto"])


def test_a_restore_that_was_killed_keeps_no_content_of_theirs(house: Any) -> None:
    filled_with(house, "erna")
    content = house.ledger.content(house.ledger.row(1))
    left = put(house.home.path.parent / ".radloop-restore-x" / "labels" / content.name, content)
    house.forget("erna")
    assert not left.exists()


def test_boxes_go_and_other_tables_of_that_name_stay(house: Any) -> None:
    house.arrive("names")
    house.name("names", "P")
    final = house.path / "labels" / "final"
    final.mkdir(parents=True, exist_ok=True)
    for file in (final / "names.json", final.parent / "names.json"):
        file.write_text("{}")
    house.forget("P")
    assert not (final / "names.json").exists()
    assert (final.parent / "names.json").is_file()


def test_links_are_followed_to_masks_and_named_for_images(house: Any, tmp_path: Path) -> None:
    filled_with(house, "erna", "otto")
    disk = tmp_path / "disk"
    (disk / "final").mkdir(parents=True)
    house.folder.final_dir.parent.mkdir()
    house.folder.final_dir.symlink_to(disk / "final")
    shutil.copyfile(house.mask, disk / "final" / "erna.nii.gz")
    (house.path / "erna.nii.gz").rename(disk / "erna.nii.gz")
    (house.path / "erna.nii.gz").symlink_to(disk / "erna.nii.gz")
    found = forget.find(house.folder, house.ledger, "erna")
    assert found.elsewhere == (disk / "erna.nii.gz",)
    house.forget("erna")
    assert sorted(path.name for path in disk.rglob("*")) == ["erna.nii.gz", "final"]
    assert house.folder.studies().keys() == {"otto"}
