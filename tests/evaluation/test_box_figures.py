"""Figures of boxes: average precision against COCO's own code, FROC and F1 by hand, intervals, the report."""

from __future__ import annotations

import contextlib
import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from radloop.evaluation.box_report import box_html, in_words, summarise_boxes, write_box_csv
from radloop.evaluation.boxes import THRESHOLDS, BoxRow, average_precision, box_f1, froc_curve, hits, iou, measure_boxes
from radloop.evaluation.page_parts import About
from radloop.evaluation.report import write_json

LABELS = ("lung", "heart")


def rows_of(seed: int, studies: int = 12, dimension: int = 2) -> list[BoxRow]:
    """Studies with up to three true boxes a label, found again more or less well, and false alarms."""
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(studies):
        truth, found, scores = {}, {}, {}
        for name in LABELS:
            low = rng.uniform(0, 60, (rng.integers(0, 4), dimension))
            true = np.hstack([low, low + rng.uniform(10, 40, low.shape)])
            near = true[rng.random(len(true)) < 0.8] + rng.normal(0, 2.5, (1, 2 * dimension))
            off = rng.uniform(0, 60, (rng.integers(0, 3), dimension))
            boxes = np.vstack([near, np.hstack([off, off + 15])])
            p = rng.permutation(np.linspace(0.01, 0.99, 997))[: len(boxes)]
            order = np.argsort(-p)
            truth[name], found[name], scores[name] = true, boxes[order], p[order]
        rows.append(BoxRow(f"s{number}", f"p{number // 2}", truth, found, scores))
    return rows


def coco(rows: list[BoxRow]) -> tuple[float, float]:
    """AP over IoU .5 to .95 and at .5, by pycocotools."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    def xywh(box: np.ndarray) -> list[float]:
        return [*box[:2].tolist(), *(box[2:] - box[:2]).tolist()]

    true, found = [], []
    for image, row in enumerate(rows, start=1):
        for category, name in enumerate(LABELS, start=1):
            for box in row.truth[name]:
                area = float(np.prod(box[2:] - box[:2]))
                true.append(
                    {"id": len(true) + 1, "image_id": image, "category_id": category, "bbox": xywh(box), "area": area}
                )
            for box, score in zip(row.found[name], row.scores[name], strict=True):
                found.append({"image_id": image, "category_id": category, "bbox": xywh(box), "score": float(score)})
    truth = COCO()
    truth.dataset = {
        "info": {},
        "images": [{"id": n} for n in range(1, len(rows) + 1)],
        "categories": [{"id": n, "name": name} for n, name in enumerate(LABELS, start=1)],
        "annotations": [one | {"iscrowd": 0} for one in true],
    }
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        asked = COCOeval(truth, truth.loadRes(found), "bbox")
        asked.evaluate()
        asked.accumulate()
        asked.summarize()
    return float(asked.stats[0]), float(asked.stats[1])


@pytest.mark.parametrize("seed", range(5))
def test_average_precision_is_cocos(seed: int) -> None:
    rows = rows_of(seed)
    every, half = coco(rows)
    found = measure_boxes(rows, LABELS)
    assert found["ap"].value == pytest.approx(every, abs=1e-9)
    assert found["ap50"].value == pytest.approx(half, abs=1e-9)
    assert found["ap50"].low < found["ap50"].value < found["ap50"].high


def test_intervals_draw_patients_with_all_their_studies() -> None:
    rows = rows_of(3)
    twice = [
        BoxRow(f"{row.study}-{part}", row.patient, row.truth, row.found, row.scores) for row in rows for part in (1, 2)
    ]
    once, doubled = measure_boxes(rows, LABELS)["recall"], measure_boxes(twice, LABELS)["recall"]
    assert (once.low, once.high) == pytest.approx((doubled.low, doubled.high)), "no narrower by counting twice"
    assert measure_boxes([row for row in rows if row.patient == "p0"], LABELS)["recall"].low is None


def test_froc_counts_false_alarms_a_study() -> None:
    box, off = np.array([[0.0, 0, 10, 10]]), np.array([[50.0, 50, 60, 60]])
    none = np.empty((0, 4))
    rows = [
        BoxRow("a", "a", {"x": box}, {"x": np.vstack([off, box])}, {"x": np.array([0.9, 0.8])}),
        BoxRow("b", "b", {"x": box}, {"x": box}, {"x": np.array([0.95])}),
        BoxRow("c", "c", {"x": none}, {"x": none}, {"x": np.empty(0)}),
        BoxRow("d", "d", {"x": none}, {"x": none}, {"x": np.empty(0)}),
    ]
    found = measure_boxes(rows, ["x"])
    assert found["froc.0.125"].value == 0.5, "before the false alarm"
    assert found["froc.0.25"].value == 1.0, "one false alarm in four studies"
    assert found["froc"].value == pytest.approx((0.5 + 6) / 7)
    assert (found["recall"].value, found["precision"].value) == (1.0, pytest.approx(2 / 3))
    assert found["box_f1"].value == pytest.approx((2 / 3 + 1 + 1 + 1) / 4)


def test_froc_counts_a_lesion_once_and_its_further_boxes_not_at_all() -> None:
    box, again = np.array([[0.0, 0, 10, 10]]), np.array([[0.0, 0, 10, 9]])
    rows = [
        BoxRow("a", "a", {"x": box}, {"x": np.vstack([box, again, again])}, {"x": np.array([0.9, 0.8, 0.7])}),
        BoxRow("b", "b", {"x": box}, {"x": box}, {"x": np.array([0.6])}),
    ]
    found = measure_boxes(rows, ["x"])
    assert found["froc.0.125"].value == found["froc"].value == 1.0
    rate, sensitivity = froc_curve(rows, ["x"])
    assert (rate.max(), sensitivity[-1]) == (0.0, 1.0)
    assert found["precision"].value == 0.5, "of what is shown they are wrong"


def test_f1_counts_how_well_a_pair_fits() -> None:
    box, none = np.array([[0.0, 0, 10, 10]]), np.empty((0, 4))
    assert box_f1(none, none) == 1
    assert box_f1(box, none) == box_f1(none, box) == 0
    assert box_f1(box, box) == 1
    assert box_f1(box, np.array([[0.0, 0, 20, 10]])) == pytest.approx(0.5)
    assert box_f1(box, box + 9.5) == 0, "an IoU under .1 is no pair"
    assert box_f1(np.vstack([box, box + 2]), np.vstack([box + 2, box])) == 1, "whatever the order"


@given(st.integers(0, 10_000), st.sampled_from([2, 3]))
def test_iou_is_one_with_itself_and_the_same_both_ways(seed: int, dimension: int) -> None:
    low = np.random.default_rng(seed).uniform(0, 5, (4, dimension))
    boxes = np.hstack([low, low + 1])
    found = iou(boxes, boxes)
    np.testing.assert_allclose(np.diag(found), 1)
    np.testing.assert_allclose(found, found.T)
    assert hits(boxes, boxes, 0.5).all()
    assert not hits(boxes[:1], np.vstack([boxes[:1], boxes[:1]]), 0.5)[1], "a true box is found once"


def test_a_label_that_is_nowhere_has_no_figure() -> None:
    none = np.empty((0, 4))
    rows = [BoxRow("a", "a", {"x": none}, {"x": none}, {"x": np.empty(0)})]
    found = measure_boxes(rows, ["x"])
    assert [found[name] for name in ("ap50", "ap.x", "recall", "precision", "froc")] == [None] * 5
    assert found["box_f1"].value == 1
    assert average_precision(rows, "x", THRESHOLDS[0], np.ones((1, 1))) is None
    assert "Not compared" in in_words(rows, [], ["x"], "the mean box")


def test_the_report_says_first_whether_it_beats_the_trivial_method(tmp_path: Path) -> None:
    rows = rows_of(1, 30)
    floor = [BoxRow(r.study, r.patient, r.truth, {n: b * 0.2 for n, b in r.found.items()}, r.scores) for r in rows]
    assert in_words(rows, floor, LABELS, "the mean box").startswith("Better than the trivial method (the mean box)")
    assert in_words(floor, rows, LABELS, "the model").startswith("Worse than")
    assert in_words(rows, rows, LABELS, "itself").startswith("Not shown to be better")
    summary = summarise_boxes("toy", 3, rows, LABELS, floor)
    write_json(tmp_path / "out.json", summary)
    told = json.loads((tmp_path / "out.json").read_text())
    assert {"ap50", "ap50.lung", "ap", "recall", "froc", "trivial_ap50", "difference"} <= set(told["metrics"])
    page = box_html(rows, LABELS, About("toy", 3, "studies", "test side", "radloop evaluate toy"), floor)
    assert page.count("data:image/png") == 2
    assert page.index("Better than") < page.index("AP at IoU .5</td>")
    write_box_csv(tmp_path / "out.csv", rows, LABELS)
    with (tmp_path / "out.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 30
    assert int(lines[0]["true.lung"]) == len(rows[0].truth["lung"])
