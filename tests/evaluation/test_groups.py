"""Figures of parts of the studies, by a column or by what was missing."""

from __future__ import annotations

from radloop.evaluation.groups import COMPLETE, as_html, as_json, as_table, by_missing, group
from radloop.evaluation.intervals import bootstrap_mean
from radloop.evaluation.summary import StudyRow, patient_values


def rows(count: int = 14) -> list[StudyRow]:
    """Two studies of each patient; the first five patients do well."""
    return [StudyRow(f"s{i}", f"p{i // 2}", {"dice.a": 0.9 if i < 10 else 0.3 + i / 100}) for i in range(count)]


def figures(part: list[StudyRow]) -> dict:
    return {"dice": bootstrap_mean(patient_values(part, "dice")), "none": None}


def test_each_part_has_its_own_figures_and_small_ones_are_only_counted() -> None:
    site = {f"s{i}": "north" if i < 10 else "<south>" for i in range(14)}
    found = group("site", rows(), site, figures)
    north, south = found.groups
    assert (north.value, north.studies, north.patients) == ("north", 10, 5)
    assert north.figures["dice"].value == 0.9
    assert (south.studies, south.patients, south.figures) == (4, 2, {})
    assert as_json([found]) == {
        "site": {
            "north": {"n": 10, "patients": 5, "metrics": {"dice": {"value": 0.9, "low": 0.9, "high": 0.9}}},
            "<south>": {"n": 4, "patients": 2},
        }
    }
    assert as_table(found) == (
        ("site", "studies", "patients", "dice"),
        [("north", "10", "5", "0.900 (0.900 to 0.900)"), ("<south>", "4", "2", "-")],
    )
    page = as_html([found])
    assert "By site" in page
    assert "&lt;south&gt;" in page
    assert "only counted" in page


def test_patterns_of_what_was_missing() -> None:
    lacked = {"s0": (), "s1": ("age",), **{f"s{i}": ("age", "t1c") for i in range(2, 14)}}
    found = by_missing(rows(), lacked, figures)
    assert found is not None
    assert [(part.value, part.studies) for part in found.groups] == [("age, t1c", 12), ("age", 1), (COMPLETE, 1)]
    assert found.title == "What was missing"
    assert by_missing(rows(), dict.fromkeys(lacked, ()), figures) is None
    assert as_html([]) == ""
