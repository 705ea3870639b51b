"""Risks over time, written down: the sentence about covariates alone, JSON, HTML, CSV, and few patients."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from radloop.evaluation.page_parts import About
from radloop.evaluation.report import write_json
from radloop.evaluation.risk import RiskRow, Told, against, grid_of, in_words, measure, summarise_risks
from radloop.evaluation.risk_report import risk_html, write_risk_csv
from radloop.recipes.errors import BadInput
from radloop.recipes.recipe import Recipe

ASKED = Recipe(name="life", kind="risk", labels={"de<a>th": 1}, answer={"times": [200, 500]})
NAME = "covariates alone (age)"


def told(x: float) -> Told:
    def risk(times: object) -> tuple[float, ...]:
        return tuple(1 - np.exp(-np.asarray(times) / (400 * np.exp(-x))))

    return Told(risk((200, 500)), risk(grid_of(ASKED)), float(x))


def studies(n: int = 60, *, skill: float = 1.0) -> tuple[list[RiskRow], dict[str, Told]]:
    """Answers of so much skill, and covariates without any."""
    rng = np.random.default_rng(0)
    rows, floor = [], {}
    for number in range(n):
        x = rng.normal()
        came, lost = rng.exponential(400 * np.exp(-2 * x)), rng.exponential(900)
        study = f"s{number:02}"
        rows.append(
            RiskRow(
                study,
                f"p{number // 2:02}",
                came <= lost,
                min(came, lost) + 1,
                told(skill * x),
                (True, False)[number % 2],
            )
        )
        floor[study] = told(rng.normal())
    return rows, floor


def test_the_first_words_say_whether_it_beats_covariates_alone():
    rows, floor = studies()
    assert in_words(ASKED, rows, floor, NAME).startswith(f"Better than {NAME}: Harrell's C 0.")
    rows, _ = studies(skill=0.0)
    same = {row.study: row.told for row in rows}
    assert in_words(ASKED, rows, same, NAME).startswith(f"Not shown to be better than {NAME}")
    rows, floor = studies(skill=-1.0)
    assert in_words(ASKED, rows, floor, NAME).startswith("Worse than")
    assert "'de<a>th' came in" in in_words(ASKED, rows, {}, NAME)


def test_a_few_patients_have_figures_without_an_interval():
    rows, floor = studies(2)  # one patient
    found = measure(ASKED, rows)
    assert all(interval is None or interval.low is None for interval in found.values())
    alone = [row for row in rows[:1]]
    assert measure(ASKED, alone)["c_index"] is None
    assert against(ASKED, alone, floor) is None
    assert in_words(ASKED, alone, floor, NAME).startswith("Not compared with")
    assert "<h2>" in risk_html(ASKED, alone, about(), floor=floor)
    quiet = [RiskRow(r.study, r.patient, False, r.time, r.told) for r in studies()[0]]
    assert measure(ASKED, quiet)["c_index"] is None
    assert "<h2>" in risk_html(ASKED, quiet, about(), floor={})


def about() -> About:
    return About("life", 3, "some <studies>", "test side", "radloop evaluate life", baseline_name=NAME)


def test_the_page_the_table_and_the_json_hold_the_same_figures(tmp_path: Path):
    rows, floor = studies()
    summary = summarise_risks(ASKED, 3, rows, floor=floor)
    write_json(tmp_path / "a.json", summary)
    kept = json.loads((tmp_path / "a.json").read_text())
    assert kept["n"] == 60
    assert kept["patients"] == 30
    assert set(kept["readings"]) == {"blind", "anchored"}
    index = kept["metrics"]["c_index"]
    assert index["low"] < index["value"] < index["high"]
    page = risk_html(ASKED, rows, about(), floor=floor)
    assert f"{index['value']:.3f}" in page
    assert f"{kept['metrics']['clinical_c_index']['value']:.3f}" in page
    assert "<a>" not in page
    assert "http" not in page.split("</style>")[1]
    write_risk_csv(tmp_path / "a.csv", ASKED, rows, floor)
    with (tmp_path / "a.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert float(lines[0]["risk.200"]) == pytest.approx(rows[0].told.risks[0])
    assert float(lines[0]["clinical.500"]) == pytest.approx(floor["s00"].risks[1])


def test_a_risk_that_is_none_is_refused():
    row = studies(1)[0][0]
    with pytest.raises(BadInput, match=r"risks of s00 are .* must lie in 0\.\.1"):
        measure(ASKED, [RiskRow(row.study, row.patient, True, 3.0, Told((0.2, 1.5), row.told.curve, 0.0))])
