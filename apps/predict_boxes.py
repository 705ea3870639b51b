"""`radloop predict` for boxes: a file of boxes and one of Slicer's markups a study, and one line a box."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from radloop.apps.results_table import Job, Row, source_of

if TYPE_CHECKING:
    import numpy as np

    from radloop.recipes.boxes import Box
    from radloop.registry.version import Version

_TURN = (-1.0, -1.0, 1.0)  # RAS to LPS
_SCHEMA = (
    "https://raw.githubusercontent.com/slicer/slicer/master/Modules/Loadable/Markups/Resources/Schema/"
    "markups-schema-v1.0.3.json#"
)


class BoxAnswers:
    """Boxes of studies, and the files they go to.

    Args:
        version: what answers.
        out: the folder.
    """

    def __init__(self, version: Version, out: Path) -> None:
        from radloop.engine.predictor import PredictorCache

        self._version, self._out = version, out
        self._predictor = PredictorCache().get(version)

    def files(self, job: Job) -> tuple[Path, Path]:
        """Where the boxes of a study go, and the markups that Slicer loads."""
        return self._out / f"{job.study}.json", self._out / f"{job.study}.mrk.json"

    def done(self, job: Job, rows: Sequence[Row]) -> bool:
        """Whether these lines and files are the whole answer of this very version to this very image."""
        from radloop.recipes.errors import RadloopError
        from radloop.studies.box_files import read_boxes

        boxes, markups = self.files(job)
        source = source_of(job, self._version)
        if not rows or not markups.is_file() or any(row.source != source for row in rows):
            return False
        try:
            return len(rows) == max(1, len(read_boxes(boxes)))
        except RadloopError:
            return False

    def rows(self, job: Job, out: Path) -> Iterator[Row]:
        """The lines of one study, whose files are written into `out` first.

        Raises:
            BadInput: the study cannot be used.
            NoSpace: the files cannot be written.
        """
        from radloop.studies.box_files import content
        from radloop.studies.files import write_whole
        from radloop.studies.images import read_study

        volume = read_study(job.channels, self._predictor.recipe.may_lack)
        found = self._predictor.predict(volume)
        boxes, markups = self.files(job)
        write_whole(boxes, lambda file: _write(file, content(found.shown)))
        shown = json.dumps(slicer_markups(found.shown, volume.affine), indent=1, ensure_ascii=False) + "\n"
        write_whole(markups, lambda file: _write(file, shown.encode()))
        return self._lines(job, found.shown, found.seconds, found.lacking)

    def _lines(self, job: Job, boxes: Sequence[Box], seconds: float, lacking: Sequence[str]) -> Iterator[Row]:
        from radloop.engine.channels import lacking_words

        source, time = asdict(source_of(job, self._version)), f"{seconds:.2f}"
        if not boxes:
            warnings = "; ".join(["nothing found", *lacking_words(lacking)])
            yield Row(job.study, "", seconds=time, warnings=warnings, **source)
        for box in boxes:
            size, centre = (" ".join(f"{v:.1f}" for v in of) for of in (box.size, _lps(box)))
            yield Row(
                job.study,
                box.label,
                probability=f"{box.score:.4f}",
                seconds=time,
                warnings="; ".join(lacking_words(lacking)),
                size_mm=size,
                centre_lps_mm=centre,
                **source,
            )


def slicer_markups(boxes: Sequence[Box], affine: np.ndarray) -> dict[str, Any]:
    """Boxes as 3D Slicer's ROI markups, one a box, named by its label and score."""
    from radloop.recipes.boxes import directions

    turned = directions(affine) * [[sign] for sign in _TURN]
    return {"@schema": _SCHEMA, "markups": [_markup(box, turned.ravel().tolist()) for box in boxes]}


def _markup(box: Box, orientation: list[float]) -> dict[str, Any]:
    name = box.label if box.score is None else f"{box.label} {100 * box.score:.0f} %"
    centre = _lps(box)
    point = {"id": "1", "label": name, "description": "", "position": centre, "selected": True, "locked": False}
    return {
        "type": "ROI",
        "coordinateSystem": "LPS",
        "coordinateUnits": "mm",
        "locked": False,
        "labelFormat": "%N-%d",
        "roiType": "Box",
        "center": centre,
        "orientation": orientation,
        "size": [round(value, 4) for value in box.size],
        "insideOut": False,
        "name": name,
        "controlPoints": [point | {"visibility": True, "positionStatus": "defined"}],
    }


def _lps(box: Box) -> list[float]:
    return [round(value * sign, 4) + 0.0 for value, sign in zip(box.centre, _TURN, strict=True)]


def _write(file: Path, text: bytes) -> None:
    file.write_bytes(text)
