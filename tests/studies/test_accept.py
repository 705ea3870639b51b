"""A reader's mask becomes a label, or is refused with the reason."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from radloop.recipes.errors import BadLabel, NotFound
from radloop.recipes.recipe import Recipe
from radloop.studies.accept import accept_label
from radloop.studies.folder import StudiesFolder
from radloop.studies.home import Home
from radloop.studies.images import read_mask, write_mask
from radloop.studies.ledger import Ledger


def segments(*pairs: tuple[str, int | None]) -> list[dict]:
    return [{"name": name} if idx is None else {"name": name, "idx": idx} for name, idx in pairs]


def kept(ledger: Ledger, row) -> dict[int, tuple[int, ...]]:
    """Id of each voxel that is not 0, by the value it was drawn with (see `draw`)."""
    mask = read_mask(ledger.file(row)).array[0]
    return {int(x): int(mask[x, 1, 2]) for x in np.nonzero(mask[:, 1, 2])[0]}


def test_without_names_the_values_are_the_recipes_ids(folder, ledger, organs, draw, affine):
    row = accept_label(folder, ledger, organs, "a", draw(1, 2), author="Ada")
    assert kept(ledger, row) == {1: 1, 2: 2}
    assert row.names == ("liver", "spleen")
    assert (row.author, row.author_kind, row.state, row.origin, row.parent) == (
        "Ada",
        "self-declared",
        "final",
        "reader",
        None,
    )
    stored = nib.load(ledger.file(row))
    assert stored.get_data_dtype() == np.uint8
    np.testing.assert_allclose(stored.affine, affine, atol=1e-6)


def test_a_value_without_a_name_or_id_is_refused(folder, ledger, organs, draw):
    with pytest.raises(BadLabel, match=r"value \[3\].*1 liver, 2 spleen"):
        accept_label(folder, ledger, organs, "a", draw(1, 3), author="Ada")
    assert ledger.history() == []


@pytest.mark.parametrize(
    ("values", "info", "expected"),
    [
        # Slicer, nothing left out: idx and position agree.
        ((1, 2), [("spleen", 1), ("liver", 2)], {1: 2, 2: 1}),
        # Slicer with a background segment first: idx is one ahead of the voxels.
        ((1, 2), [("spleen", 2), ("liver", 3)], {1: 2, 2: 1}),
        # Slicer with scribbles between: voxel 2 is the second exported segment.
        ((1, 2), [("spleen", 1), ("liver", 4)], {1: 2, 2: 1}),
        # Other clients: idx is the voxel value, in any order, or with gaps.
        ((1, 2), [("liver", 2), ("spleen", 1)], {1: 2, 2: 1}),
        ((5, 7), [("liver", 5), ("spleen", 7)], {5: 1, 7: 2}),
        ((1, 2), [("spleen", None), ("liver", None)], {1: 2, 2: 1}),
        # Segments that are no answer say nothing, their voxels go.
        ((1, 3), [("background", 0), ("spleen", 1), ("background_scribbles", 3)], {1: 2}),
    ],
)
def test_values_are_named_as_the_viewer_means_them(folder, ledger, organs, draw, values, info, expected):
    row = accept_label(folder, ledger, organs, "a", draw(*values), author="Ada", label_info=segments(*info))
    assert kept(ledger, row) == expected


def test_a_list_that_can_be_read_in_two_ways_is_refused(folder, ledger, organs, draw):
    info = segments(("liver", 2), ("spleen", 3))
    with pytest.raises(BadLabel, match=r"value 2 is 'liver' by its idx but 'spleen' by its place.*seg\.nrrd"):
        accept_label(folder, ledger, organs, "a", draw(2), author="Ada", label_info=info)


@pytest.mark.parametrize(
    ("values", "info", "reason"),
    [
        ((1, 2), [("livre", 1), ("spleen", 2)], "'livre' is not of recipe organs.*did you mean 'liver'"),
        ((1, 2), [("liver", 1)], r"value \[1, 2\], but names only 1 liver"),
        ((1,), [("liver", 1), ("liver", 2)], "names 'liver' twice"),
        ((1,), [("", 1)], "each must be"),
        ((1,), [("background", 1)], "none of recipe organs's labels"),
        ((), [], "none of recipe organs's labels"),
    ],
)
def test_a_list_that_cannot_be_used_is_refused(folder, ledger, organs, draw, values, info, reason):
    with pytest.raises(BadLabel, match=reason):
        accept_label(folder, ledger, organs, "a", draw(*values), author="Ada", label_info=segments(*info))
    assert ledger.history() == []


def test_only_the_names_listed_were_looked_at(folder, ledger, organs, draw):
    row = accept_label(folder, ledger, organs, "a", draw(1), author="Ada", label_info=segments(("spleen", 1)))
    assert row.names == ("spleen",)
    empty = accept_label(folder, ledger, organs, "a", draw(), author="Ada", label_info=segments(("liver", 1)))
    assert (empty.names, empty.state, kept(ledger, empty)) == (("liver",), "final", {})


def test_names_in_the_file_go_before_the_list(folder, ledger, organs, draw):
    file = draw(4, 6, name="mask.seg.nrrd", names={"spleen": 4, "liver": 6})
    row = accept_label(
        folder, ledger, organs, "a", file, author="Ada", label_info=segments(("spleen", 1), ("liver", 2))
    )
    assert kept(ledger, row) == {4: 2, 6: 1}


def test_other_recipes_names_are_left_out_with_a_note(folder, ledger, organs, bones, draw):
    info = segments(("rib", 1), ("liver", 2), ("hip", 3))
    row = accept_label(
        folder, ledger, organs, "a", draw(1, 2, 3), author="Ada", label_info=info, others=[organs, bones]
    )
    assert kept(ledger, row) == {2: 1}
    assert "hip, rib" in row.note
    assert ledger.current("bones") == {}
    with pytest.raises(BadLabel, match="'hip'"):
        accept_label(folder, ledger, organs, "a", draw(1, 2, 3), author="Ada", label_info=info)


def test_two_recipes_on_a_study_leave_each_other_alone(folder, ledger, organs, bones, draw):
    one = accept_label(folder, ledger, organs, "a", draw(1), author="Ada")
    two = accept_label(folder, ledger, bones, "a", draw(3), author="Ben")
    three = accept_label(folder, ledger, organs, "a", draw(2), author="Ben", shown_version="4")
    assert (two.parent, three.parent, three.shown_version) == (None, one.id, "4")
    assert ledger.latest("a", "bones") == two
    assert ledger.latest("a", "organs") == three
    assert kept(ledger, one) == {1: 1}


def test_another_grid_is_refused_with_both_grids(folder, ledger, organs, draw, affine):
    wide = affine.copy()
    wide[:3, 2] *= 2
    with pytest.raises(
        BadLabel, match=r"9x8x7 voxels of 1\.5x0\.7071x6\.003 mm.*study 'a' 9x8x7 voxels of 1\.5x0\.7071x3\.002"
    ):
        accept_label(folder, ledger, organs, "a", draw(1, affine=wide), author="Ada")
    moved = affine.copy()
    moved[0, 3] += 0.02
    with pytest.raises(BadLabel, match="mm at"):
        accept_label(folder, ledger, organs, "a", draw(1, affine=moved), author="Ada")
    moved[0, 3] -= 0.015
    row = accept_label(folder, ledger, organs, "a", draw(1, affine=moved), author="Ada")
    # The label that is kept lies exactly on its study.
    np.testing.assert_array_equal(nib.load(ledger.file(row)).affine, nib.load(folder.study("a").channels[0]).affine)


def test_another_shape_is_refused(folder, ledger, organs, tmp_path, affine):
    write_mask(tmp_path / "small.nii.gz", np.ones((3, 4, 5), np.uint8), affine)
    with pytest.raises(BadLabel, match=r"3x4x5 voxels.*9x8x7 voxels"):
        accept_label(folder, ledger, organs, "a", tmp_path / "small.nii.gz", author="Ada")


@pytest.mark.parametrize("name", ["mask.nii.gz", "mask.nrrd", "mask.seg.nrrd", "mask.png"])
def test_a_file_that_is_no_mask_is_refused(folder, ledger, organs, tmp_path, name):
    (tmp_path / name).write_text("not a mask")
    with pytest.raises(BadLabel, match=name):
        accept_label(folder, ledger, organs, "a", tmp_path / name, author="Ada")


def test_an_unknown_study_is_not_found(folder, ledger, organs, draw):
    with pytest.raises(NotFound, match="study 'zz'"):
        accept_label(folder, ledger, organs, "zz", draw(1), author="Ada")


def test_an_empty_mask_against_the_model_is_held_until_confirmed(folder, ledger, organs, draw):
    row = accept_label(folder, ledger, organs, "a", draw(), author="Ada", champion_found=lambda: True)
    assert row.state == "held"
    assert ledger.current("organs") == {}
    ledger.confirm(row.id)
    assert ledger.latest("a", "organs").checksum == row.checksum
    agreed = accept_label(folder, ledger, organs, "b", draw(), author="Ada", champion_found=lambda: False)
    assert agreed.state == "final"


def test_only_an_empty_mask_asks_the_model(folder, ledger, organs, draw):
    def fail() -> bool:
        raise AssertionError("a mask with voxels needs no second opinion")

    assert accept_label(folder, ledger, organs, "a", draw(1), author="Ada", champion_found=fail).state == "final"


def test_a_picture_keeps_a_picture(tmp_path):
    folder_path = tmp_path / "xrays"
    folder_path.mkdir()
    write_mask(folder_path / "肺 01.png", np.full((12, 10, 1), 90, np.uint8), np.eye(4))
    folder = StudiesFolder(folder_path)
    ledger = Ledger(Home.find(folder_path))
    recipe = Recipe(name="lungs", modality="XR", dimension=2, labels={"lung": 1}, fit={"patch": (32, 32)})
    mask = np.zeros((12, 10, 1), np.uint8)
    mask[7, 2] = 1
    # A viewer may send a NIfTI file that says nothing true about the place of a picture.
    write_mask(tmp_path / "drawn.nii.gz", mask, np.diag([0.2, 0.2, 1, 1]))
    row = accept_label(folder, ledger, recipe, "肺 01", tmp_path / "drawn.nii.gz", author="李")
    assert row.ext == ".png"
    np.testing.assert_array_equal(read_mask(folder.final_dir / "肺 01.png").array[0], mask)
    write_mask(tmp_path / "turned.png", mask.transpose(1, 0, 2), np.eye(4))
    with pytest.raises(BadLabel, match="10x12x1"):
        accept_label(folder, ledger, recipe, "肺 01", tmp_path / "turned.png", author="李")


FULL = """
import resource, sys
from pathlib import Path
from radloop.recipes.errors import NoSpace
from radloop.recipes.recipe import Recipe
from radloop.studies.accept import accept_label
from radloop.studies.folder import StudiesFolder
from radloop.studies.home import Home
from radloop.studies.ledger import Ledger
studies, mask, limit = sys.argv[1:]
folder = StudiesFolder(studies)
ledger = Ledger(Home.find(studies))
# No file may grow beyond the limit: what a full disk does, without filling one.
resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), int(limit)))
try:
    accept_label(folder, ledger, Recipe(name="organs", labels={"liver": 1, "spleen": 2}), "a", Path(mask), author="Ada")
except NoSpace as error:
    print(error)
    sys.exit(7)
"""


@pytest.mark.parametrize("limit", [10, 1000])
def test_a_full_disk_changes_nothing(studies, folder, ledger, organs, draw, limit):
    """10 bytes stop the content; 1000 let it through and stop the row."""
    first = accept_label(folder, ledger, organs, "a", draw(1), author="Ada")
    before = {path: path.read_bytes() for path in studies.rglob("*.nii.gz")}
    told = subprocess.run(
        [sys.executable, "-c", FULL, str(studies), str(draw(1, 2)), str(limit)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert told.returncode == 7, told.stderr
    assert "cannot write" in told.stdout
    assert "free some space" in told.stdout
    assert ledger.history() == [first]
    for path, content in before.items():
        assert path.read_bytes() == content
    leftovers = [p for p in studies.rglob("*") if p.is_file() and (p.name.startswith(".tmp") or p.suffix == ".tmp")]
    assert leftovers == []
    # And the next one goes through.
    assert accept_label(folder, ledger, organs, "a", draw(1, 2), author="Ada").parent == first.id


def test_a_small_disk_fills_up_and_keeps_what_it_said_it_kept(require, missing, tmp_path, draw):
    """A disk of 600 kB, filled with labels until one is refused; every label that was accepted is still whole."""
    script = Path(__file__).with_name("fill_disk.py")
    inside = f"mount -t tmpfs -o size=600k none {tmp_path / 'disk'} && {sys.executable} {script} {tmp_path / 'disk'}"
    (tmp_path / "disk").mkdir()
    told = subprocess.run([require("unshare"), "-rm", "sh", "-c", inside], capture_output=True, text=True, check=False)
    if "mount:" in told.stderr or "unshare:" in told.stderr:
        missing("unshare", f"no mount is allowed here: {told.stderr.strip()}")
    assert told.returncode == 0, told.stderr
    assert int(told.stdout.split()[0]) >= 1
