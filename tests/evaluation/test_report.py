from __future__ import annotations

import base64
import csv
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from radloop.evaluation.intervals import bootstrap_mean
from radloop.evaluation.report import (
    About,
    StudyRow,
    html_report,
    study_row,
    summarise,
    write_csv,
    write_html,
    write_json,
)
from radloop.recipes.errors import NoSpace

ROWS = [
    study_row("s1", "anna", {"dice": {"liver": 0.9, "tumour": 0.5}, "hd95": {"liver": 3, "tumour": None}}, blind=True),
    study_row(
        "s2", "anna", {"dice": {"liver": 0.7, "tumour": None}, "hd95": {"liver": 5, "tumour": None}}, blind=False
    ),
    study_row("s3", "bert", {"dice": {"liver": 0.8, "tumour": 0}, "hd95": {"liver": 4, "tumour": None}}, seconds=1.5),
]
ABOUT = About(
    recipe="liver",
    version=3,
    data="three <studies> & more",
    split="validation side",
    command="radloop evaluate liver --studies demo --report r.html",
    notes=("s9 was left out: <unreadable>",),
    baseline={"anna": 0.3, "bert": 0.35, "zoe": 0.0},
)


class Page(HTMLParser):
    """Collects tags and text, and fails on what is never closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.text = ""
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data + " "


def test_the_summary_has_the_documented_form(tmp_path: Path) -> None:
    summary = summarise("liver", 3, ROWS)
    write_json(tmp_path / "new" / "out.json", summary)
    read = json.loads((tmp_path / "new" / "out.json").read_text())
    assert list(read) == ["recipe", "version", "n", "patients", "metrics", "readings"]
    assert (read["recipe"], read["version"], read["n"], read["patients"]) == ("liver", 3, 3, 2)
    assert list(read["metrics"]) == ["dice", "dice.liver", "dice.tumour", "hd95", "hd95.liver"]
    for found in read["metrics"].values():
        assert list(found) == ["value", "low", "high"]
        assert found["low"] <= found["value"] <= found["high"]


def test_blind_and_anchored_labels_have_figures_of_their_own_where_known() -> None:
    readings = summarise("liver", 3, ROWS)["readings"]
    assert list(readings) == ["blind", "anchored"]
    assert [(of["n"], of["patients"]) for of in readings.values()] == [(1, 1), (1, 1)]
    assert readings["blind"]["metrics"]["dice"]["value"] == pytest.approx(0.7)
    assert readings["anchored"]["metrics"]["dice"]["value"] == pytest.approx(0.7)
    assert readings["anchored"]["metrics"]["hd95"]["value"] == pytest.approx(5)
    assert "readings" not in summarise("liver", 3, ROWS[2:])


def test_a_patient_counts_once_and_what_has_no_value_not_at_all() -> None:
    metrics = summarise("liver", 3, ROWS)["metrics"]
    anna, bert = ((0.9 + 0.5) / 2 + 0.7) / 2, 0.4
    assert metrics["dice"]["value"] == pytest.approx((anna + bert) / 2)
    assert metrics["dice.tumour"]["value"] == pytest.approx(0.25)
    assert metrics["hd95.liver"]["value"] == pytest.approx(4.0)
    interval = bootstrap_mean({"anna": 0.8, "bert": 0.8})
    assert metrics["dice.liver"]["low"] == pytest.approx(interval.low)


def test_one_patient_has_no_limits() -> None:
    found = summarise("liver", 1, ROWS[:1])["metrics"]["dice"]
    assert found == {"value": pytest.approx(0.7), "low": None, "high": None}


def test_nothing_measured_is_an_empty_summary() -> None:
    assert summarise("liver", 1, [])["metrics"] == {}
    assert "0 studies" in html_report([], ABOUT)


def test_the_page_is_whole_and_loads_nothing(tmp_path: Path) -> None:
    write_html(tmp_path / "report.html", ROWS, ABOUT)
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    assert page.open == []
    pictures = [attrs for tag, attrs in page.tags if tag == "img"]
    assert len(pictures) == 3  # dice, hd95, against the baseline
    for attrs in pictures:
        assert base64.b64decode(attrs["src"].removeprefix("data:image/png;base64,")).startswith(b"\x89PNG")
        assert attrs["alt"]
    assert not [t for t, attrs in page.tags if t in ("script", "link", "iframe") or "href" in attrs]
    assert not re.search(r"https?://|url\(", text)


def test_the_page_says_what_it_is_of() -> None:
    page = Page(html_report(ROWS, ABOUT))
    text = " ".join(page.text.split())
    for part in (
        "Not for clinical use",
        "liver, version 3",
        "three <studies> & more",
        "validation side",
        ABOUT.command,
        "3 studies of 2 patients",
        "s9 was left out: <unreadable>",
        "dice.liver 0.800",
        "dice 0.550",
        "on the same 2 patients",
        "Difference of each patient",
        "before any model's answer was seen",
        "bert",
    ):
        assert part in text, part


def test_the_page_tells_blind_labels_apart_only_where_known() -> None:
    unknown = [StudyRow(row.study, row.patient, row.scores) for row in ROWS]
    assert "Blind and anchored" not in html_report(unknown, ABOUT)


def test_the_page_says_why_a_study_has_no_value() -> None:
    text = " ".join(Page(html_report(ROWS, ABOUT)).text.split())
    assert "dice.tumour 0.250 0.000 to 0.500 2 1 not looked at" in text
    scores = [(0.0, None), (1.0, None), (0.0, None), (0.0, 40.0)]
    rows = [study_row(str(i), str(i), {"dice": {"x": a}, "hd95": {"x": b}}) for i, (a, b) in enumerate(scores)]
    text = " ".join(Page(html_report(rows, ABOUT)).text.split())
    assert "2 in one mask only, 1 in neither mask" in text


def test_names_cannot_become_markup() -> None:
    hostile = [study_row("<script>alert(1)</script>", "<b>", {"dice": {"$x^2<i>": 0.5}})]
    text = html_report(hostile, About("r", 1, "<u>", "<u>", "<u>", title="<u>$title"))
    assert "<script" not in text
    assert "<b>" not in text
    assert "<u>" not in text
    assert "<i>" not in text


def test_the_table_of_studies_reads_back(tmp_path: Path) -> None:
    path = tmp_path / "per study.csv"
    write_csv(path, [*ROWS, study_row('a, "b"\nc', "ü", {"dice": {"liver": 0.1}})])
    with path.open(encoding="utf-8", newline="") as handle:
        lines = list(csv.DictReader(handle))
    assert [line["study"] for line in lines] == ["s1", "s2", "s3", 'a, "b"\nc']
    assert float(lines[0]["dice.liver"]) == 0.9
    assert lines[0]["hd95.tumour"] == ""
    assert (lines[0]["blind"], lines[1]["blind"], lines[2]["blind"]) == ("True", "False", "")
    assert lines[2]["seconds"] == "1.5"


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(NoSpace, match=r"file/out\.csv"):
        write_csv(tmp_path / "file" / "out.csv", ROWS)
