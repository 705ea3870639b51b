"""Makes a studies folder of one of the public sets that radloop is measured on.

    python benchmarks/prepare.py SET OUT [--data DIR]

The sets lie in `--data` (or RADLOOP_DATA), one folder each; they are not part of radloop. This is the only code that
knows them: images, `labels/final`, `labels/names.json`, `answers.csv` with the patient of each study; boxes go to
`labels/final/<id>.json` (see docs/answers.md) and to `boxes.csv` (image, label, x, y, width, height in pixels).
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from tqdm import tqdm

from radloop.recipes.errors import NotFound, RadloopError
from radloop.studies.import_coco import from_pixels
from radloop.studies.incoming import CopiedFile, Incoming, Source
from radloop.studies.transfer import import_source

Row = dict[str, str]


@dataclass
class Prepared:
    """A set's studies, and its boxes where it has some."""

    studies: list[Incoming]
    boxes: list[Row] = field(default_factory=list)


def hippocampus(data: Path) -> Prepared:
    """MR crops of the hippocampus; one a patient (Medical Segmentation Decathlon, task 4)."""
    names = {"anterior": 1, "posterior": 2}
    return Prepared([_study(path, data, names, {"patient": _id(path)}) for path in _images(data)])


def lidc_nodules(data: Path) -> Prepared:
    """CT crops of lung nodules with the readers' grades and findings made of them; several a patient."""
    grades = ("Malignancy", "Spiculation", "Lobulation", "Margin", "Sphericity", "Subtlety", "Texture", "Calcification")

    def answers(row: Row) -> Row:
        told = {grade.lower(): _whole(row[f"{grade}_value"]) for grade in grades}
        found = {
            "spiculated": int(told["spiculation"]) >= 3,
            "lobulated": int(told["lobulation"]) >= 3,
            "calcified": int(told["calcification"]) < 6,
            "subsolid": int(told["texture"]) <= 3,
            "ill_defined": int(told["margin"]) <= 2,
        }
        return {
            "patient": row["patient_id"],
            "diagnosis": row["Diagnosis"].lower(),
            "diameter_mm": row["diameter_mm"],
            "modality": "CT",
            **told,
            **{name: str(int(yes)) for name, yes in found.items()},
        }

    table = {row["file"]: answers(row) for row in _table(data / "metadata.csv")}
    return Prepared([_study(path, data, {"nodule": 1}, table[path.name]) for path in _images(data)])


def lgg_flair3d(data: Path) -> Prepared:
    """FLAIR volumes of low-grade gliomas: tumour masks, grade, age, sex (0 male, 1 female), survival in days."""
    sexes = {"MALE": "0", "FEMALE": "1"}

    def answers(row: Row) -> Row:
        day = row["case"].rsplit("_", 1)[-1]
        graded = row["grade"] if row["grade"] in ("G2", "G3") else ""  # one is `[Discrepancy]`
        return {
            "patient": row["patient"],
            "date": f"{day[:4]}-{day[4:6]}-{day[6:]}",
            "site": row["site"],
            "modality": "MR",
            "age": _whole(row["age"]),
            "sex": sexes.get(row["gender"], ""),
            "grade": graded[1:],
            "who_grade": graded,
            "histology": row["histological_type"],
            "event": _whole(row["OS_event"]),
            "time": _whole(row["OS_days"]),
            "progression_event": _whole(row["PFI_event"]),
            "progression_time": _whole(row["PFI_days"]),
        }

    table = {row["case"]: answers(row) for row in _table(data / "clinical.csv")}
    return Prepared([_study(path, data, {"tumour": 1}, table[_id(path)]) for path in _images(data)])


def nih_cxr(data: Path) -> Prepared:
    """Chest X-rays, normal or pneumonia (text-mined)."""
    table = {row["file"]: {"patient": row["patient"], "finding": row["label"]} for row in _table(data / "labels.csv")}
    return Prepared([_study(path, data, None, {**table[path.name], "modality": "DX"}) for path in _images(data)])


def covid_cxr(data: Path) -> Prepared:
    """Chest X-rays of many sources: finding, outcomes (many missing), lung boxes."""
    kept = ("finding", "survival", "intubated", "went_icu", "in_icu", "sex", "age", "view", "offset", "license")
    table = {
        row["file"]: {"patient": f"p{row['patientid']}", **{name: _whole(row[name]) for name in kept}, "modality": "DX"}
        for row in _table(data / "metadata.csv")
    }
    studies = [_study(path, data, None, table[path.name]) for path in _images(data)]
    boxes = _coco(data / "lungs_coco.json")
    return Prepared(studies, [{**box, "label": "lung"} for box in boxes])  # of the recipe chest_lungs: both are lungs


def cxr_mass_boxes(data: Path) -> Prepared:
    """Chest X-rays with boxes of masses and nodules; the patient is the first part of the name."""
    studies = [
        _study(path, data, None, {"patient": _id(path).split("_")[0], "modality": "DX"}) for path in _images(data)
    ]
    return Prepared(studies, _coco(data / "boxes_coco.json"))


def head_ct_hemorrhage(data: Path) -> Prepared:
    """CT slices, haemorrhage or not; exact duplicates count as one patient."""
    table = {row["file"]: row for row in _table(data / "labels.csv")}

    def answers(path: Path) -> Row:
        row = table[path.name]
        first = row["exact_duplicate_of"] or path.name
        return {"patient": Path(first).stem, "hemorrhage": row["hemorrhage"], "modality": "CT"}

    return Prepared([_study(path, data, None, answers(path)) for path in _images(data)])


def brats15_6(data: Path) -> Prepared:
    """FLAIR and contrast-enhanced T1, registered; four tumour classes."""
    names = {"necrosis": 1, "oedema": 2, "non_enhancing": 3, "enhancing": 4}
    studies = []
    for mask in _files(data / "labels"):
        study = _id(mask)
        patient = study.rsplit("_", 1)[0]
        channels = tuple(CopiedFile(data / "images" / f"{study}_{name}.nii.gz") for name in ("flair", "t1c"))
        studies.append(Incoming(study, study, channels, mask, names, {"patient": patient, "modality": "MR"}))
    return Prepared(studies)


def nifti_misc(data: Path) -> Prepared:
    """A CT with its organs under the numbers of TotalSegmentator, other crops of CT and MR, a spleen."""
    parts = (
        ("totalseg/ct_cropped", "", "CT", "ct_cropped"),
        ("totalseg/example_ct", "", "CT", "example_ct"),
        ("totalseg/example_ct_sm", "totalseg/example_seg", "CT", "example_ct"),
        ("totalseg/example_mr_sm", "", "MR", "example_mr"),
        ("ivadomed/sub-spleen2_ct", "ivadomed/sub-spleen2_ct_seg-manual", "CT", "sub-spleen2"),
    )
    studies = []
    for image, mask, modality, patient in parts:
        path = data / f"{image}.nii.gz"
        label = data / f"{mask}.nii.gz" if mask else None
        names = {"spleen": 1} if "spleen" in image else _organs(label)
        answers = {"patient": patient, "modality": modality}
        studies.append(Incoming(_id(path), path.name, (CopiedFile(path),), label, names, answers))
    return Prepared(studies)


SETS: dict[str, Callable[[Path], Prepared]] = {
    make.__name__: make
    for make in (
        hippocampus,
        lidc_nodules,
        lgg_flair3d,
        nih_cxr,
        covid_cxr,
        brats15_6,
        cxr_mass_boxes,
        head_ct_hemorrhage,
        nifti_misc,
    )
}


def prepare(name: str, out: Path, data: Path, *, quiet: bool = False) -> int:
    """Makes the folder and returns how many studies it has.

    Raises:
        NotFound: the set, or a file of it, is not there.
        RadloopError: a study of the set cannot be used, or the folder cannot be written.
    """
    folder = data / name
    if not folder.is_dir():
        msg = f"{folder} does not exist; say with --data or RADLOOP_DATA where the sets are"
        raise NotFound(msg)
    prepared = _with_boxes(SETS[name](folder))
    with tqdm(total=len(prepared.studies), unit="study", disable=quiet or None) as bar:
        report = import_source(Source(prepared.studies), out, progress=lambda done, _, __: bar.update(done - bar.n))
    if report.excluded:
        what, reason = report.excluded[0]
        msg = f"{len(report.excluded)} of {name} cannot be used, the first {what}: {reason}"
        raise RadloopError(msg)
    if prepared.boxes:
        _write_boxes(out / "boxes.csv", prepared.boxes)
    return len(report.imported)


def _study(path: Path, data: Path, names: dict[str, int] | None, answers: Row) -> Incoming:
    mask = data / "labels" / path.name
    return Incoming(_id(path), path.name, (CopiedFile(path),), mask if names else None, names, answers)


def _images(data: Path) -> list[Path]:
    return _files(data / "images")


def _files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        msg = f"{folder} does not exist; the set is not complete"
        raise NotFound(msg)
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def _id(path: Path) -> str:
    return path.name.split(".")[0]


def _table(path: Path) -> list[Row]:
    with path.open(encoding="utf-8", newline="") as handle:
        return [row for row in csv.DictReader(handle) if row]


def _whole(text: str) -> str:
    """A number without its `.0`; empty stays empty."""
    return text.removesuffix(".0")


def _coco(path: Path) -> list[Row]:
    """Boxes of a COCO file: x, y (top left), width, height in pixels."""
    told = json.loads(path.read_text(encoding="utf-8"))
    images = {image["id"]: Path(image["file_name"]).stem for image in told["images"]}
    names = {category["id"]: str(category["name"]).lower() for category in told["categories"]}
    return [
        {
            "image": images[box["image_id"]],
            "label": names[box["category_id"]],
            **dict(zip(("x", "y", "width", "height"), (f"{v:g}" for v in box["bbox"]), strict=True)),
        }
        for box in told["annotations"]
    ]


def _with_boxes(prepared: Prepared) -> Prepared:
    """Each study with its boxes as a label, of sets that have boxes."""
    by_study: dict[str, list[tuple[str, tuple[float, ...]]]] = {}
    for row in prepared.boxes:
        place = tuple(float(row[key]) for key in ("x", "y", "width", "height"))
        by_study.setdefault(row["image"], []).append((row["label"], place))
    studies = [replace(s, boxes=from_pixels(by_study[s.id])) if s.id in by_study else s for s in prepared.studies]
    return Prepared(studies, prepared.boxes)


def _write_boxes(path: Path, boxes: Iterable[Row]) -> None:
    with path.open("w", encoding="utf-8", newline="") as handle:
        table = csv.DictWriter(handle, ("image", "label", "x", "y", "width", "height"), lineterminator="\n")
        table.writeheader()
        table.writerows(boxes)


def _organs(mask: Path | None) -> dict[str, int] | None:
    if mask is None:
        return None
    import numpy as np

    from radloop.studies.images import read_mask

    return {f"organ_{value}": int(value) for value in np.unique(read_mask(mask).array) if value}


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="prepare.py", description=__doc__.split("\n")[0])
    parser.add_argument("set", choices=sorted(SETS), metavar="SET", help=", ".join(sorted(SETS)))
    parser.add_argument("out", type=Path, metavar="OUT", help="the studies folder to make")
    parser.add_argument("--data", type=Path, default=os.environ.get("RADLOOP_DATA"), help="default: RADLOOP_DATA")
    options = parser.parse_args(argv)
    if options.data is None:
        parser.error("say with --data or RADLOOP_DATA where the sets are")
    try:
        count = prepare(options.set, options.out, Path(options.data))
    except (RadloopError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyError as error:
        print(f"{options.set}: {error} is missing in its table", file=sys.stderr)
        return 1
    print(f"{count} studies in {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
