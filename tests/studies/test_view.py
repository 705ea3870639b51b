"""labels/final: rebuilt from the ledger, and nothing found there is lost."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from radloop.studies.accept import accept_label, sync_view
from radloop.studies.folder import StudiesFolder
from radloop.studies.home import Home
from radloop.studies.images import read_mask, write_mask
from radloop.studies.ledger import Ledger
from radloop.studies.view import unknown_masks


@pytest.fixture
def put(folder, draw):
    """Put a mask into labels/final behind radloop's back."""

    def write(study: str, *values: int, ending: str = ".nii.gz", **more) -> Path:
        target = folder.final_dir / f"{study}{ending}"
        target.parent.mkdir(parents=True, exist_ok=True)
        draw(*values, name=f"put{ending}", **more).replace(target)
        return target

    return write


def values(path: Path) -> set[int]:
    return set(np.unique(read_mask(path).array).tolist()) - {0}


def test_the_view_shows_the_newest_label(folder, ledger, organs, bones, draw):
    accept_label(folder, ledger, organs, "a", draw(1), author="Ada")
    row = accept_label(folder, ledger, bones, "a", draw(3), author="Ben")
    shown = folder.final_dir / "a.nii.gz"
    assert shown.read_bytes() == ledger.file(row).read_bytes()
    assert not shown.samefile(ledger.file(row))


def test_a_lost_view_is_rebuilt(folder, ledger, organs, draw):
    row = accept_label(folder, ledger, organs, "a", draw(1), author="Ada")
    shown = folder.final_dir / "a.nii.gz"
    shown.unlink()
    assert sync_view(folder, ledger, [organs]) == []
    assert shown.read_bytes() == ledger.file(row).read_bytes()
    assert ledger.history() == [row]


def test_a_file_found_there_is_imported_once(folder, ledger, organs, put):
    found = put("a", 1, 2)
    content = found.read_bytes()
    for _ in range(2):
        assert sync_view(folder, ledger, [organs]) == []
    (row,) = ledger.history()
    assert (row.author, row.author_kind, row.origin, row.state, row.names) == (
        "import",
        "import",
        "import",
        "final",
        ("liver", "spleen"),
    )
    assert "a.nii.gz" in row.note
    assert found.read_bytes() == content


def test_masks_that_wait_to_be_taken_in_are_counted(folder, ledger, organs, put, draw):
    accept_label(folder, ledger, organs, "c", draw(1), author="Ada")
    put("a", 1)
    put("zz", 1)
    assert unknown_masks(folder, ledger) == ["a.nii.gz", "zz.nii.gz"]
    assert len(ledger.history()) == 1
    sync_view(folder, ledger, [organs])
    assert unknown_masks(folder, ledger) == ["zz.nii.gz"]


def test_names_decide_which_recipes_a_file_is_for(folder, ledger, organs, bones, put):
    put("a", 1, 2, 3, 4, 5)
    numbers = {"spine": 1, "rib": 2, "hip": 3, "spleen": 4, "liver": 5}
    (folder.path / "labels" / "names.json").write_text(json.dumps(numbers))
    assert sync_view(folder, ledger, [organs, bones]) == []
    one, two = ledger.history()
    assert [row.recipe for row in (one, two)] == ["organs", "bones"]
    liver = read_mask(ledger.file(one)).array[0]
    assert {x: int(liver[x, 1, 2]) for x in range(1, 6)} == {1: 0, 2: 0, 3: 0, 4: 2, 5: 1}
    rib = read_mask(ledger.file(two)).array[0]
    assert {x: int(rib[x, 1, 2]) for x in range(1, 6)} == {1: 2, 2: 1, 3: 3, 4: 0, 5: 0}
    # The file stays as it came: it says more than any one recipe.
    assert values(folder.final_dir / "a.nii.gz") == {1, 2, 3, 4, 5}


def test_a_recipe_served_later_finds_its_labels_in_a_kept_file(folder, ledger, organs, bones, put, draw):
    put("a", 1, 4)
    numbers = {"rib": 1, "spine": 2, "hip": 3, "liver": 4, "spleen": 5}
    (folder.path / "labels" / "names.json").write_text(json.dumps(numbers))
    sync_view(folder, ledger, [organs])
    accept_label(folder, ledger, organs, "a", draw(2), author="Ada")
    assert values(folder.final_dir / "a.nii.gz") == {2}
    sync_view(folder, ledger, [organs, bones])
    row = ledger.latest("a", "bones")
    assert values(ledger.file(row)) == {1}
    assert ledger.latest("a", "organs").author == "Ada"
    sync_view(folder, ledger, [organs, bones])
    assert len(ledger.history()) == 3


def test_without_names_the_first_recipe_that_has_all_ids(folder, ledger, organs, bones, put):
    put("a", 1, 3)
    put("b", 1, 2)
    assert sync_view(folder, ledger, [organs, bones]) == []
    assert [(row.study, row.recipe) for row in ledger.history()] == [("a", "bones"), ("b", "organs")]


def test_a_file_with_names_inside(folder, ledger, organs, put):
    put("a", 3, 4, ending=".seg.nrrd", names={"spleen": 3, "tumour": 4})
    assert sync_view(folder, ledger, [organs]) == []
    (row,) = ledger.history()
    assert row.names == ("spleen",)
    assert values(ledger.file(row)) == {2}
    assert "tumour" in row.note
    sync_view(folder, ledger, [organs])
    assert len(ledger.history()) == 1


def test_a_known_file_that_was_edited_is_imported_as_a_correction(folder, ledger, organs, bones, put, draw):
    first = accept_label(folder, ledger, bones, "a", draw(3), author="Ada", shown_version="2")
    put("a", 1)
    assert sync_view(folder, ledger, [organs, bones]) == []
    row = ledger.latest("a", "bones")
    # Recipe and what was shown before are those of the label that was edited.
    assert (row.author, row.parent, row.shown_version) == ("import", first.id, "2")
    assert values(ledger.file(row)) == {1}
    assert values(ledger.file(first)) == {3}


def test_an_edit_behind_our_back_is_kept_when_a_reader_saves(folder, ledger, organs, put, draw):
    accept_label(folder, ledger, organs, "a", draw(1), author="Ada")
    put("a", 2)
    last = accept_label(folder, ledger, organs, "a", draw(1, 2), author="Ada")
    assert [row.author for row in ledger.history()] == ["Ada", "import", "Ada"]
    assert values(ledger.file(ledger.history()[1])) == {2}
    assert (folder.final_dir / "a.nii.gz").read_bytes() == ledger.file(last).read_bytes()


def test_what_cannot_be_taken_in_stays_and_is_reported(folder, ledger, organs, put, draw, affine):
    accept_label(folder, ledger, organs, "c", draw(1), author="Ada")
    moved = affine.copy()
    moved[0, 3] += 5
    files = [put("a", 1, affine=moved), put("b", 3), put("zz", 1), put("c", 1, affine=moved)]
    junk = folder.final_dir / "b.nrrd"
    junk.write_text("junk")
    before = {file: file.read_bytes() for file in [*files, junk]}
    problems = {problem.file: problem.reason for problem in sync_view(folder, ledger, [organs])}
    for file, reason in zip(
        files, ["mm at", "ids [3] fit no recipe", "no study has the id 'zz'", "mm at"], strict=True
    ):
        assert reason in problems[file]
    assert "b.nrrd" in problems[junk]
    assert {file: file.read_bytes() for file in before} == before
    assert [row.author for row in ledger.history()] == ["Ada"]
    # A reader's next label is safe, though the file in the way still is not shown over.
    row = accept_label(folder, ledger, organs, "c", draw(2), author="Ada")
    assert ledger.latest("c", "organs") == row
    assert (folder.final_dir / "c.nii.gz").read_bytes() == before[folder.final_dir / "c.nii.gz"]


def test_retracted_labels_leave_the_view_but_not_the_ledger(folder, ledger, organs, draw):
    one = accept_label(folder, ledger, organs, "a", draw(1), author="Ada")
    two = accept_label(folder, ledger, organs, "a", draw(2), author="Ben")
    ledger.revoke(author="Ben")
    sync_view(folder, ledger, [organs])
    assert (folder.final_dir / "a.nii.gz").read_bytes() == ledger.file(one).read_bytes()
    ledger.revoke(author="Ada")
    sync_view(folder, ledger, [organs])
    assert not (folder.final_dir / "a.nii.gz").exists()
    assert ledger.file(two).is_file()
    # And they do not come back at the next start.
    assert sync_view(folder, ledger, [organs]) == []
    assert ledger.current("organs") == {}


def test_a_retracted_import_gives_way_to_the_one_before(folder, ledger, organs, put):
    first = put("a", 1).read_bytes()
    sync_view(folder, ledger, [organs])
    put("a", 2)
    sync_view(folder, ledger, [organs])
    ledger.revoke(ids=[2])
    assert sync_view(folder, ledger, [organs]) == []
    assert (folder.final_dir / "a.nii.gz").read_bytes() == first


def test_an_import_is_shown_as_it_came_and_an_edit_means_its_names(folder, ledger, organs, bones, put):
    put("a", 4)
    numbers = {"rib": 1, "spine": 2, "hip": 3, "spleen": 4, "liver": 5}
    (folder.path / "labels" / "names.json").write_text(json.dumps(numbers))
    sync_view(folder, ledger, [organs])
    sync_view(folder, ledger, [organs, bones])
    (folder.final_dir / "a.nii.gz").unlink()
    assert sync_view(folder, ledger, [organs, bones]) == []
    assert values(folder.final_dir / "a.nii.gz") == {4}
    put("a", 4, 5)
    assert sync_view(folder, ledger, [organs, bones]) == []
    assert values(ledger.file(ledger.latest("a", "organs"))) == {1, 2}


@pytest.mark.parametrize("another", [False, True])
def test_a_mask_put_back_after_it_was_taken_back_is_reported(folder, ledger, organs, put, draw, another):
    if another:
        accept_label(folder, ledger, organs, "a", draw(1), author="Ada")
    put("a", 2)
    sync_view(folder, ledger, [organs])
    (gone,) = ledger.revoke(author="import")
    sync_view(folder, ledger, [organs])
    there = put("a", 2)
    (problem,) = sync_view(folder, ledger, [organs])
    assert problem.file.name in (there.name, ledger.file(ledger.history()[0]).name)
    assert f"taken back as row {gone.id}" in problem.reason
    assert values(there) == {2}
    there.unlink()
    assert sync_view(folder, ledger, [organs]) == []
    assert there.exists() == another


def test_a_file_with_a_large_ending_gives_way_to_the_newer_label(folder, ledger, organs, put, draw):
    put("a", 1).rename(folder.final_dir / "a.NII.GZ")
    sync_view(folder, ledger, [organs])
    accept_label(folder, ledger, organs, "a", draw(2), author="Ada")
    assert [(path.name, values(path)) for path in folder.final_dir.iterdir()] == [("a.nii.gz", {2})]


def test_a_recipe_that_is_not_served_keeps_its_file(folder, ledger, organs, bones, draw):
    accept_label(folder, ledger, bones, "a", draw(3), author="Ada")
    assert sync_view(folder, ledger, [organs]) == []
    assert values(folder.final_dir / "a.nii.gz") == {3}
    assert ledger.current("organs") == {}


def test_proposals_are_never_labels(folder, ledger, organs, draw):
    folder.proposal_dir.mkdir(parents=True)
    draw(1).replace(folder.proposal_dir / "a.nii.gz")
    assert sync_view(folder, ledger, [organs]) == []
    assert ledger.history() == []


SYNC = """
import sys
from radloop.recipes.recipe import Recipe
from radloop.studies.accept import sync_view
from radloop.studies.folder import StudiesFolder
from radloop.studies.home import Home
from radloop.studies.ledger import Ledger
folder = StudiesFolder(sys.argv[1])
print(sync_view(folder, Ledger(Home.find(sys.argv[1])), [Recipe(name="organs", labels={"liver": 1, "spleen": 2})]))
"""


def test_two_processes_that_start_together_import_a_file_once(folder, ledger, put):
    for study in "abc":
        put(study, 1)
    command = [sys.executable, "-c", SYNC, str(folder.path)]
    crowd = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [process.communicate(timeout=120)[0].strip() for process in crowd] == ["[]", "[]"]
    assert sorted(row.study for row in ledger.history()) == ["a", "b", "c"]


READ_ONLY = """
mount --bind {studies} {studies} && mount -o remount,bind,ro {studies} && exec {python} -c '
import sys
from pathlib import Path
from radloop.recipes.errors import NoSpace
from radloop.recipes.recipe import Recipe
from radloop.studies.accept import accept_label, sync_view
from radloop.studies.folder import StudiesFolder
from radloop.studies.home import Home
from radloop.studies.ledger import Ledger
studies, home, mask = sys.argv[1:]
try:
    Home.find(studies)
    sys.exit("a read-only folder was taken for a home")
except NoSpace as error:
    assert "--home" in str(error), error
folder, ledger = StudiesFolder(studies), Ledger(Home.find(studies, home))
recipe = Recipe(name="organs", labels={{"liver": 1, "spleen": 2}})
assert sync_view(folder, ledger, [recipe]) == []
assert [(r.study, r.author) for r in ledger.history()] == [("b", "import")], ledger.history()
accept_label(folder, ledger, recipe, "a", Path(mask), author="Ada")
print(sorted(p.name for p in (Path(home) / "view" / "final").iterdir()))
' {studies} {home} {mask}
"""


def test_read_only_studies_have_their_view_in_the_home(require, missing, studies, folder, put, draw, tmp_path):
    put("b", 2)
    script = READ_ONLY.format(studies=studies, home=tmp_path / "home", mask=draw(1), python=sys.executable)
    told = subprocess.run([require("unshare"), "-rm", "sh", "-c", script], capture_output=True, text=True, check=False)
    if "mount:" in told.stderr or "unshare:" in told.stderr:
        missing("unshare", f"no mount is allowed here: {told.stderr.strip()}")
    assert told.returncode == 0, told.stderr
    assert "a.nii.gz" in told.stdout


def test_a_picture_is_shown_as_a_picture(tmp_path):
    from radloop.recipes.recipe import Recipe

    path = tmp_path / "xrays"
    path.mkdir()
    write_mask(path / "x.png", np.full((12, 10, 1), 90, np.uint8), np.eye(4))
    folder, ledger = StudiesFolder(path), Ledger(Home.find(path))
    mask = np.zeros((12, 10, 1), np.uint8)
    mask[7, 2] = 1
    folder.final_dir.mkdir(parents=True)
    write_mask(folder.final_dir / "x.png", mask, np.eye(4))
    recipe = Recipe(name="lungs", modality="XR", dimension=2, labels={"lung": 1}, fit={"patch": (32, 32)})
    assert sync_view(folder, ledger, [recipe]) == []
    np.testing.assert_array_equal(read_mask(ledger.file(ledger.latest("x", "lungs"))).array[0], mask)
