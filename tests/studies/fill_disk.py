"""Run inside a small file system by test_accept: fill it with labels until one is refused, then check the others."""

from __future__ import annotations

import sys
from pathlib import Path

import nibabel as nib
import numpy as np

from radloop.recipes.errors import NoSpace
from radloop.recipes.recipe import Recipe
from radloop.studies.accept import accept_label
from radloop.studies.folder import StudiesFolder
from radloop.studies.home import Home
from radloop.studies.images import read_mask, write_mask
from radloop.studies.ledger import Ledger, checksum


def main(disk: Path) -> None:
    """Print how many labels were accepted; exit 1 with the reason where one of them is not whole."""
    elsewhere = disk.parent / "elsewhere"
    (disk / "studies").mkdir()
    elsewhere.mkdir()
    nib.save(nib.Nifti1Image(np.zeros((32, 32, 32), np.int16), np.eye(4)), disk / "studies" / "a.nii.gz")
    folder, ledger = StudiesFolder(disk / "studies"), Ledger(Home.find(disk / "studies"))
    recipe = Recipe(name="organs", labels={"liver": 1, "spleen": 2})
    rng = np.random.default_rng(0)
    accepted = {}
    for _ in range(200):
        mask = rng.integers(0, 3, (32, 32, 32)).astype(np.uint8)
        write_mask(elsewhere / "mask.nii.gz", mask, np.eye(4))
        try:
            row = accept_label(folder, ledger, recipe, "a", elsewhere / "mask.nii.gz", author="Ada")
        except NoSpace:
            break
        accepted[row.id] = mask
    else:
        sys.exit("the disk never filled up")
    rows = {row.id: row for row in ledger.history()}
    if set(rows) != set(accepted):
        sys.exit(f"the ledger has rows {sorted(rows)}, accepted were {sorted(accepted)}")
    for row_id, mask in accepted.items():
        file = ledger.file(rows[row_id])
        if checksum(file) != rows[row_id].checksum or not np.array_equal(read_mask(file).array[0], mask):
            sys.exit(f"label {row_id} is not whole")
    hidden = [path for path in disk.rglob(".tmp-*") if path.is_file()]
    if hidden:
        sys.exit(f"left behind: {hidden}")
    sys.stdout.write(f"{len(accepted)} labels\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
