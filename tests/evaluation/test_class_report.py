"""Answers about a whole study, written down: JSON, HTML, CSV, and the sentence about the trivial method."""

from __future__ import annotations

import csv
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from radloop.evaluation.class_answers import probabilities
from radloop.evaluation.class_report import class_html, write_class_csv, write_class_html
from radloop.evaluation.class_summary import ClassRow, against, answer_of, in_words, summarise_classes
from radloop.evaluation.classification import figures, measure
from radloop.evaluation.report import About, write_json
from radloop.recipes.errors import BadInput
from radloop.recipes.recipe import Recipe

NAMES = {
    "classification": ("benign", "malignant"),
    "multilabel": ("effusion", "no<du>le", "mass", "$x^2", "_e", "f"),
    "ordinal": ("low", "middle", "high"),
}
BY_HAND = "age <and> volume"


def question(kind: str) -> Recipe:
    return Recipe(name="demo", kind=kind, labels={name: k for k, name in enumerate(NAMES[kind], start=1)})


def studies(kind: str, n: int = 40, *, skill: float = 1.0) -> tuple[list[ClassRow], dict[str, dict[str, float]]]:
    """Answers of so much skill, and those of a trivial method without any."""
    rng = np.random.default_rng(0)
    names = NAMES[kind]
    logits = rng.normal(size=(n, len(names) - (kind == "ordinal"))) * 2
    true, said = probabilities(logits, kind), probabilities(logits * skill, kind)
    rows, trivial = [], {}
    for i in range(n):
        place = rng.choice(len(names), p=true[i] / true[i].sum())
        truth = {name: k == place for k, name in enumerate(names)}
        if kind == "multilabel":
            truth = {name: bool(rng.random() < p) for name, p in zip(names, true[i], strict=True) if rng.random() < 0.8}
        given = dict(zip(names, map(float, said[i]), strict=True))
        rows.append(ClassRow(f"s{i:02}", f"p{i // 2:02}", truth, given, blind=(True, False, None)[i % 3]))
        flat = 0.5 if kind == "multilabel" else 1 / len(names)
        trivial[f"s{i:02}"] = dict.fromkeys(names, flat)
    return rows, trivial


def about(**more: object) -> About:
    return About("demo", 3, "some <studies>", "test side", "radloop evaluate demo", baseline_name=BY_HAND, **more)


class Page(HTMLParser):
    """Tags and text; fails on what is never closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.words, self.open = "", []
        self.feed(text)
        self.words = " ".join(self.words.split())
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words += data + " "


def test_the_summary_has_the_documented_form(tmp_path: Path) -> None:
    recipe = question("classification")
    rows, trivial = studies("classification")
    unread = ClassRow("s99", "p99", {}, {"benign": 0.5, "malignant": 0.5})
    write_json(tmp_path / "out.json", summarise_classes(recipe, 3, [*rows, unread], baseline=trivial))
    read = json.loads((tmp_path / "out.json").read_text())
    assert list(read) == ["recipe", "version", "n", "patients", "metrics", "readings"]
    assert (read["recipe"], read["version"], read["n"], read["patients"]) == ("demo", 3, 40, 20)
    assert {"accuracy", "recall.malignant", "ece_perfect", "slope", "intercept"} < set(read["metrics"])
    assert read["metrics"]["trivial_roc_auc"]["value"] == 0.5
    gain = read["metrics"]["roc_auc"]["value"] - 0.5
    assert read["metrics"]["difference"]["value"] == pytest.approx(gain)
    for of in read["metrics"].values():
        assert list(of) == ["value", "low", "high"]
    assert list(read["readings"]) == ["blind", "anchored"]
    assert [of["n"] for of in read["readings"].values()] == [14, 13]


def test_the_summary_is_of_the_numbers_of_the_rows() -> None:
    rows, _ = studies("multilabel")
    names = NAMES["multilabel"]
    p = np.array([[row.probabilities[name] for name in names] for row in rows])
    y = np.array([[row.truth.get(name, np.nan) for name in names] for row in rows], dtype=float)
    found = summarise_classes(question("multilabel"), 1, rows)["metrics"]
    whole = measure(p, y, [row.patient for row in rows], kind="multilabel", labels=names)
    assert {name: vars(of) for name, of in whole.items() if of} == {
        name: of for name, of in found.items() if name not in ("slope", "intercept", "ece_perfect")
    }
    assert "readings" not in summarise_classes(question("multilabel"), 1, [row for row in rows if row.blind is None])


def test_what_has_no_value_is_left_out() -> None:
    rows, _ = studies("classification")
    same = [ClassRow(r.study, r.patient, {"benign": True, "malignant": False}, r.probabilities) for r in rows]
    found = summarise_classes(question("classification"), 1, same)["metrics"]
    assert "roc_auc" not in found
    assert "recall.malignant" not in found
    assert "recall.benign" in found
    assert summarise_classes(question("classification"), 1, [])["metrics"] == {}


def test_the_first_sentence_says_whether_it_is_better() -> None:
    recipe = question("classification")
    rows, trivial = studies("classification")
    better = in_words(recipe, rows, trivial, "majority")
    assert better.startswith("Better than the trivial method (majority): ROC AUC 0.")
    assert "on the same 40 studies of 20 patients" in better
    assert re.search(r"difference \+0\.\d{3} \(95 % interval \+0\.\d{3} to \+0\.\d{3}\)\.$", better)
    worse, _ = studies("classification", skill=-1)
    assert in_words(recipe, worse, trivial, "majority").startswith("Worse than the trivial method")
    none = [ClassRow(r.study, r.patient, r.truth, trivial[r.study]) for r in rows]
    assert in_words(recipe, none, trivial, "majority").startswith("Not shown to be better than the trivial method")


def test_only_studies_that_both_answered_are_compared() -> None:
    rows, trivial = studies("classification")
    some = {study: trivial[study] for study in sorted(trivial)[:20]}
    assert "on the same 20 studies of 10 patients" in in_words(question("classification"), rows, some, "majority")
    p = np.array([list(row.probabilities.values()) for row in rows[:20]])
    y = np.array([list(row.truth.values()) for row in rows[:20]], dtype=float)
    found = against(question("classification"), rows, some)
    assert found.first.value == figures(p, y, kind="classification")["roc_auc"]


def test_without_a_trivial_method_it_says_so() -> None:
    rows, _ = studies("ordinal")
    assert in_words(question("ordinal"), rows, {}, "majority").startswith("Not compared with a trivial method")
    assert against(question("ordinal"), rows, {}) is None


def test_grades_are_compared_in_kappa_and_one_answer_in_accuracy() -> None:
    rows, trivial = studies("ordinal")
    assert "quadratic kappa" in in_words(question("ordinal"), rows, trivial, "majority")
    assert "accuracy" in in_words(question("ordinal"), rows, trivial, "majority", metric="accuracy")
    rows, trivial = studies("classification")
    same = [ClassRow(r.study, r.patient, {"benign": True, "malignant": False}, r.probabilities) for r in rows]
    assert "accuracy" in in_words(question("classification"), same, trivial, "majority")
    rare = [
        ClassRow(r.study, r.patient, {"benign": i > 1, "malignant": i < 2}, r.probabilities) for i, r in enumerate(rows)
    ]
    assert "accuracy" in in_words(question("classification"), rare, trivial, "majority")
    one = [ClassRow(r.study, "anna", r.truth, r.probabilities) for r in rows]
    told = in_words(question("classification"), one, trivial, "majority")
    assert told.startswith("Not shown to be better")
    assert "ROC AUC" in told
    assert "no interval" in told


@pytest.mark.parametrize("kind", NAMES)
def test_the_page_is_whole_and_loads_nothing(kind: str, tmp_path: Path) -> None:
    rows, trivial = studies(kind)
    path = tmp_path / "new" / "report.html"
    write_class_html(path, question(kind), rows, about(notes=["s9 was <left> out"]), baseline=trivial)
    text = path.read_text(encoding="utf-8")
    page = Page(text)
    assert not [tag for tag, attrs in page.tags if tag in ("script", "link", "iframe") or "href" in attrs]
    assert not re.search(r"https?://|url\(", text)
    assert not {"du", "studies", "and", "left"} & {tag for tag, _ in page.tags}
    pictures = [attrs["alt"] for tag, attrs in page.tags if tag == "img"]
    assert len(pictures) == (4 if kind == "multilabel" else 2)  # six findings in two pictures
    first = in_words(question(kind), rows, trivial, BY_HAND)
    for part in ("Not for clinical use", first, "some <studies>", "s9 was <left> out", "Calibration error", "Slope"):
        assert part in page.words, part
    assert page.words.index(first) < page.words.index("Figures")
    assert "before any model's answer was seen (blind) 14" in page.words
    for name in NAMES[kind]:
        assert name in page.words
    assert "s07 p03" in page.words


def test_the_page_counts_what_was_answered() -> None:
    truth = {"benign": True, "malignant": False}, {"benign": False, "malignant": True}
    given = {"benign": 0.8, "malignant": 0.2}, {"benign": 0.3, "malignant": 0.7}
    pairs = [(0, 0)] * 4 + [(0, 1)] * 3 + [(1, 0)] * 2 + [(1, 1)] * 5
    rows = [ClassRow(str(i), str(i), truth[t], given[g]) for i, (t, g) in enumerate(pairs)]
    words = Page(class_html(question("classification"), rows, about())).words
    assert "truth / answer benign malignant studies benign 4 3 7 malignant 2 5 7" in words
    assert "benign 7 of 14 0.571" in words
    assert "The answer is the most probable label" in words
    assert "Blind and anchored" not in words


def test_the_page_counts_each_finding() -> None:
    recipe = Recipe(name="x", kind="multilabel", labels={"mass": 1})
    pairs = [(True, 0.9)] * 4 + [(True, 0.1)] * 3 + [(False, 0.9)] * 2 + [(False, 0.1)] * 5
    rows = [ClassRow(str(i), str(i), {"mass": t}, {"mass": p}) for i, (t, p) in enumerate(pairs)]
    head = "finding present, found present, missed absent, called present absent, not called"
    assert f"{head} mass 4 3 2 5" in Page(class_html(recipe, rows, about())).words


def test_a_label_without_a_value_is_a_dash() -> None:
    rows = [
        ClassRow(str(i), str(i), {"benign": True, "malignant": False}, {"benign": 0.8, "malignant": 0.2})
        for i in (1, 2)
    ]
    words = Page(class_html(question("classification"), rows, about())).words
    assert "ROC AUC - -" in words
    assert "malignant 0 of 2 - 1.000" in words
    assert "The slope has no value" in words


def test_nothing_measured_is_a_page_all_the_same() -> None:
    page = Page(class_html(question("classification"), [], about()))
    assert "0 studies of 0 patients" in page.words
    assert "Not compared with a trivial method" in page.words
    assert not [tag for tag, _ in page.tags if tag == "img"]


def test_the_table_of_studies_reads_back(tmp_path: Path) -> None:
    rows = [
        ClassRow('a, "b"', "ü", {"benign": False, "malignant": True}, {"benign": 0.25, "malignant": 0.75}, True, 1.5),
        ClassRow("c", "d", {}, {"benign": 0.75, "malignant": 0.25}),
    ]
    write_class_csv(tmp_path / "out.csv", question("classification"), rows)
    with (tmp_path / "out.csv").open(encoding="utf-8", newline="") as handle:
        lines = list(csv.DictReader(handle))
    names = ["study", "patient", "blind", "seconds", "truth", "answer", "p.benign", "p.malignant"]
    assert list(lines[0]) == names
    assert list(lines[0].values()) == ['a, "b"', "ü", "True", "1.5", "malignant", "malignant", "0.25", "0.75"]
    assert list(lines[1].values()) == ["c", "d", "", "", "", "benign", "0.75", "0.25"]


def test_the_table_has_columns_a_finding(tmp_path: Path) -> None:
    recipe = Recipe(name="x", kind="multilabel", labels={"a": 1, "b": 2})
    write_class_csv(tmp_path / "out.csv", recipe, [ClassRow("s", "p", {"a": False}, {"a": 0.5, "b": 0.25})])
    head, line = (tmp_path / "out.csv").read_text().splitlines()
    assert head == "study,patient,blind,seconds,truth.a,truth.b,answer.a,answer.b,p.a,p.b"
    assert line == "s,p,,,0,,1,0,0.5,0.25"


def test_a_missing_probability_is_named() -> None:
    with pytest.raises(BadInput, match="study 's1' has no probability of 'malignant'"):
        summarise_classes(question("classification"), 1, [ClassRow("s1", "p", {}, {"benign": 1.0})])


def test_the_answer_in_names() -> None:
    assert answer_of(question("ordinal"), {"low": 0.4, "middle": 0.2, "high": 0.4}) == ("middle",)
    recipe = Recipe(name="x", kind="multilabel", labels={"a": 1, "b": 2})
    assert answer_of(recipe, {"a": 0.1, "b": 0.2}) == ()
    assert answer_of(recipe, {"b": 0.6, "a": 0.5}) == ("a", "b")
