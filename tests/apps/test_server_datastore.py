"""The datastore by itself: full disks, read-only folders, several recipes, two writers at once."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest

from radloop.recipes.errors import BadLabel, Conflict, NoSpace, NotFound
from radloop.recipes.load import load_recipe, parse_recipe
from radloop.studies.datastore_folder import FolderDatastore
from radloop.studies.folder import StudiesFolder
from radloop.studies.home import Home
from radloop.studies.ledger import Ledger

BIG = (64, 64, 40)


def recipe(name: str, labels: str):
    """Without blind reading, so that a proposal shows on whichever side its study is."""
    return parse_recipe(f'name = "{name}"\nlabels = {{ {labels} }}\n[gate]\nblind = false\n')


TWO = (recipe("tiny", "lesion = 1, organ = 2"), recipe("second", "vessel = 1"))


def open_store(studies: Path, home: Path, found=None) -> FolderDatastore:
    at = Home(home)
    return FolderDatastore(StudiesFolder(studies), at, Ledger(at), TWO, found)


def not_mounted(what: str) -> None:
    """Skips without root; where a root that may make namespaces is promised, as in CI, it fails."""
    promised = os.geteuid() == 0 and "unshare" in os.environ.get("RADLOOP_REQUIRE", "").split(",")
    (pytest.fail if promised else pytest.skip)(f"{what} needs root that may mount")


@pytest.fixture
def studies(tmp_path: Path, kit: SimpleNamespace) -> Path:
    folder = tmp_path / "studies"
    folder.mkdir()
    for name in ("a", "b"):
        kit.make_study(folder, name)
    return folder


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = os.geteuid() == 0 and subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)], capture_output=True, check=False
    ).returncode == 0  # fmt: skip
    if not mounted:
        not_mounted("mounting a small disk")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def noise(path: Path, seed: int) -> Path:
    """A mask that does not compress."""
    array = np.random.default_rng(seed).integers(0, 3, BIG).astype(np.uint8)
    nib.save(nib.Nifti1Image(array, np.eye(4)), path)
    return path


def test_full_disk_loses_no_label_and_says_so(tmp_path: Path, small_disk: Path) -> None:
    folder = tmp_path / "studies"
    folder.mkdir()
    nib.save(nib.Nifti1Image(np.zeros(BIG, np.float32), np.eye(4)), folder / "a.nii.gz")
    store = open_store(folder, small_disk / "home")
    kept: list[int] = []

    def save_until_full() -> None:
        for seed in range(200):
            rows = store.save_rows("a", str(noise(tmp_path / "m.nii.gz", seed)), "final", {"model": "tiny"})
            kept.extend(row.id for row in rows)

    with pytest.raises(NoSpace):
        save_until_full()
    assert kept
    assert [row.id for row in store.ledger.history()] == kept
    for row in store.ledger.history():
        nib.load(store.ledger.file(row)).get_fdata()
    assert not list((small_disk / "home").rglob(".tmp-*"))


def test_read_only_studies_with_a_home(studies: Path, tmp_path: Path, kit: SimpleNamespace) -> None:
    if os.geteuid() != 0 or subprocess.run(["mount", "--bind", str(studies), str(studies)], check=False).returncode:
        not_mounted("mounting read-only")
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", str(studies)], check=True)
        store = open_store(studies, tmp_path / "home")
        mask = str(kit.mask_file(tmp_path / "m.nii.gz"))
        store.save_label("a", mask, "final", {"model": "tiny"})
        store.save_label("b", mask, "original", {"model": "tiny"})
        assert store.get_labeled_images() == ["a"]
        assert Path(store.get_label_uri("a", "final")).is_file()
        assert Path(store.get_label_uri("b", "original")).is_file()
        assert store.status()["label_tags"] == {"final": 1, "original": 1}
        with pytest.raises(NoSpace):
            store.add_image("c", str(studies / "a.nii.gz"), {})
    finally:
        subprocess.run(["umount", "-l", str(studies)], check=True)


def test_a_mask_speaks_for_every_recipe_whose_voxels_it_has(
    studies: Path, tmp_path: Path, kit: SimpleNamespace
) -> None:
    store = open_store(studies, tmp_path / "home")
    array = np.zeros(kit.shape, np.uint8)
    array[2:4], array[6:8] = 1, 3
    nib.save(nib.Nifti1Image(array, kit.affine), tmp_path / "m.nii.gz")
    info = [{"name": "vessel", "idx": 1}, {"name": "organ", "idx": 2}, {"name": "lesion", "idx": 3}]
    rows = store.save_rows("a", str(tmp_path / "m.nii.gz"), "final", {"label_info": info, "client_id": "r"})
    assert [(row.recipe, set(row.names)) for row in rows] == [("tiny", {"lesion"}), ("second", {"vessel"})]
    found = [np.asarray(nib.load(store.ledger.file(row)).dataobj) for row in rows]
    np.testing.assert_array_equal(found[0], array == 3)
    np.testing.assert_array_equal(found[1], array == 1)


def test_an_empty_mask_speaks_for_the_recipe_that_was_shown(
    studies: Path, tmp_path: Path, kit: SimpleNamespace
) -> None:
    store = open_store(studies, tmp_path / "home", found=lambda _recipe, _study: True)
    store.ledger.record_shown("a", "second", "r", "4")
    info = [{"name": n, "idx": i} for i, n in enumerate(("lesion", "organ", "vessel"), start=1)]
    empty = str(kit.mask_file(tmp_path / "m.nii.gz", value=0))
    (row,) = store.save_rows("a", empty, "final", {"label_info": info, "client_id": "r"})
    assert (row.recipe, row.shown_version, row.state) == ("second", "4", "held")
    with pytest.raises(BadLabel, match="no recipe has"):
        store.save_rows("a", empty, "final", {"label_info": [{"name": "bone", "idx": 1}]})


def test_a_label_after_a_proposal_is_not_blind(studies: Path, tmp_path: Path, kit: SimpleNamespace) -> None:
    store = open_store(studies, tmp_path / "home")
    mask = str(kit.mask_file(tmp_path / "m.nii.gz"))
    store.save_label("a", mask, "original", {"model": "tiny", "params": {"version": 3}})
    assert store.save_rows("a", mask, "final", {"model": "tiny"})[0].shown_version == "3"
    assert store.save_rows("b", mask, "final", {"model": "tiny"})[0].shown_version == ""
    store.remove_label("a", "original")
    assert store.get_labels_by_image_id("a") == {"final": "a"}
    assert list((tmp_path / "home" / "removed").iterdir())


def test_retracting_appends_and_keeps_content(studies: Path, tmp_path: Path, kit: SimpleNamespace) -> None:
    store = open_store(studies, tmp_path / "home")
    for value in (1, 2):
        store.save_label("a", str(kit.mask_file(tmp_path / "m.nii.gz", value=value)), "final", {"model": "tiny"})
    store.remove_label("a", "final")
    history = store.ledger.history()
    assert [row.state for row in history] == ["final", "final", "revoked", "revoked"]
    assert all(store.ledger.file(row).is_file() for row in history)
    assert store.get_labeled_images() == []
    with pytest.raises(NotFound):
        store.get_label_uri("a", "final")
    with pytest.raises(Conflict):
        store.remove_image("a")


def test_two_writers_lose_no_fact(studies: Path, tmp_path: Path) -> None:
    stores = [open_store(studies, tmp_path / "home") for _ in range(2)]

    def write(store: FolderDatastore, who: str) -> None:
        for number in range(40):
            store.update_image_info("a", {f"{who}{number}": number})

    threads = [threading.Thread(target=write, args=(s, w)) for s, w in zip(stores, "xy", strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(stores[0].get_image_info("a")) == 81


def test_an_answer_reaches_its_reader_though_the_disk_is_full(
    studies: Path, tmp_path: Path, small_disk: Path, kit: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    from radloop.apps.champions import Champions
    from radloop.infers.segmentation import SegmentationInfer

    with_model = Home(tmp_path / "home")
    kit_recipe = with_model.recipes / "tiny.toml"
    kit_recipe.write_text(kit.tiny)
    kit.publish(with_model.path)
    ledger = Ledger(Home(small_disk))
    task = SegmentationInfer(
        load_recipe("tiny", with_model.path), StudiesFolder(studies), ledger, Champions(with_model)
    )
    (small_disk / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(small_disk / "tmp"))
    request = {"study": "a", "client_id": "r", "result_extension": ".nii.gz"}
    Path(task(request)[0]).unlink()
    assert ledger.shown("a", "tiny", "r") == "1"
    with (small_disk / "rest").open("wb", buffering=0) as rest, suppress(OSError):
        while rest.write(b"x" * 512):
            pass
    file, params = task({**request, "client_id": "s"})
    assert nib.load(file).shape == kit.shape
    Path(file).unlink()
    assert "count as blind" in params["warnings"][0]


def fill(disk: Path) -> None:
    """Until not a byte more goes onto it."""
    with (disk / "rest").open("wb", buffering=0) as rest, suppress(OSError):
        while rest.write(b"x" * 512):
            pass


def test_a_full_disk_when_the_ledger_is_made_or_written(small_disk: Path, tmp_path: Path) -> None:
    """The home and the ledger cannot be made; a row does not fit, though its content was there; then there is space."""
    (tmp_path / "mask").write_bytes(b"mask")
    fill(small_disk)
    with pytest.raises(NoSpace):
        Ledger(Home(small_disk / "home"))
    (small_disk / "rest").unlink()
    ledger = Ledger(Home(small_disk / "home"))
    ledger.add("a", "a", "tiny", "me", tmp_path / "mask", ".nii.gz", ())
    fill(small_disk)
    kept = [1]

    def add_until_full() -> None:
        for _ in range(5000):  # the same content: only the row needs space
            kept.append(ledger.add("a", "a", "tiny", "me", tmp_path / "mask", ".nii.gz", (), note="x" * 2000).id)

    with pytest.raises(NoSpace, match="cannot write the ledger"):
        add_until_full()
    assert [row.id for row in ledger.history()] == kept
    ledger.database.close()
    assert [row.id for row in Ledger(Home(small_disk / "home")).history()] == kept
    (small_disk / "rest").unlink()
    assert ledger.add("a", "a", "tiny", "me", tmp_path / "mask", ".nii.gz", ()).id == kept[-1] + 1


@pytest.mark.parametrize("command", ["status", "labels list", "train sample_lesions", "serve"])
def test_a_read_only_home_is_one_clear_line(studies: Path, tmp_path: Path, kit: SimpleNamespace, command: str) -> None:
    home = tmp_path / "home"
    store = open_store(studies, home)
    store.save_label("a", str(kit.mask_file(tmp_path / "m.nii.gz")), "final", {"model": "tiny"})
    store.ledger.database.close()
    if os.geteuid() != 0 or subprocess.run(["mount", "--bind", str(home), str(home)], check=False).returncode:
        not_mounted("mounting read-only")
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", str(home)], check=True)
        line = [*command.split(), "--studies", str(studies), "--home", str(home)]
        told = subprocess.run(
            [sys.executable, "-m", "radloop.apps.cli", *line], capture_output=True, text=True, check=False
        )
    finally:
        subprocess.run(["umount", "-l", str(home)], check=True)
    assert told.returncode == 1, told.stdout + told.stderr
    assert "Traceback" not in told.stderr
    (said,) = told.stderr.splitlines()
    assert "allow writing" in said
