"""Answer files: what is written comes back, and what does not fit is refused with what is allowed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from radloop.recipes.errors import BadLabel, NotFound
from radloop.recipes.recipe import Recipe
from radloop.studies.answers import LIMIT, check_answer, fit_answer, found_again, read_answer, said, write_answer
from radloop.studies.ledger import checksum

KIND = Recipe(name="type", kind="classification", labels={"none": 1, "benign": 2, "malignant": 3})
GRADE = Recipe(name="grade", kind="ordinal", labels={"1": 1, "2": 2, "3": 3})
FINDINGS = Recipe(name="chest", kind="multilabel", labels={"effusion": 1, "mass": 2, "肺炎": 3})
ORGANS = Recipe(name="organs", labels={"liver": 1})


def put(folder: Path, content: object, name: str = "a.json") -> Path:
    file = folder / name
    file.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return file


@pytest.mark.parametrize(
    ("recipe", "answer"),
    [
        (KIND, {"none": True}),
        (GRADE, {"3": True}),
        (FINDINGS, {"effusion": False}),
        (FINDINGS, {"肺炎": True, "mass": False}),
    ],
)
def test_what_is_written_comes_back(tmp_path, recipe, answer):
    kept = check_answer(recipe, answer)
    write_answer(tmp_path / "a.json", recipe.kind, kept)
    assert read_answer(tmp_path / "a.json") == answer
    assert read_answer(tmp_path / "a.json", recipe) == kept == fit_answer(recipe, tmp_path / "a.json")
    if recipe.kind == "multilabel":
        assert list(kept) == [name for name in recipe.label_names if name in answer]
    else:
        assert kept == {name: name in answer for name in recipe.label_names}


def test_the_documented_form(tmp_path):
    one = put(tmp_path, {"format": 1, "kind": "classification", "answer": "malignant"})
    assert (said(one), read_answer(one)) == ("malignant", {"malignant": True})
    several = put(tmp_path, {"format": 1, "kind": "multilabel", "answer": {"mass": True}})
    assert said(several) == read_answer(several, FINDINGS) == {"mass": True}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ({"format": 2, "kind": "ordinal", "answer": "1"}, "format 2, this radloop knows 1; update radloop"),
        ({"format": 2, "grades": []}, "update radloop"),
        ({"format": True, "kind": "ordinal", "answer": "1"}, "has format True; write"),
        ({"kind": "ordinal", "answer": "1"}, "has format None; write"),
        ({"format": 1, "kind": "ordinal"}, "no key 'answer'"),
        ({"format": 1, "kind": "ordinal", "anwser": "1"}, r"'anwser', which is not allowed.*did you mean 'answer'"),
        ({"format": 1, "kind": "ordnal", "answer": "1"}, r"'ordnal'; allowed are .*did you mean 'ordinal'"),
        ({"format": 1, "kind": "segmentation", "answer": "1"}, "allowed are classification, multilabel, ordinal"),
        ({"format": 1, "kind": ["ordinal"], "answer": "1"}, "has kind"),
        ({"format": 1, "kind": "ordinal", "answer": 1}, "has answer 1; write the name of a label"),
        ({"format": 1, "kind": "ordinal", "answer": {"1": True}}, "write the name of a label"),
        ({"format": 1, "kind": "multilabel", "answer": "mass"}, "has answer 'mass'; write {finding"),
        ({"format": 1, "kind": "multilabel", "answer": {"mass": 1}}, "says 1 of 'mass'; write true or false"),
        ([], "is no answer"),
        ("{", "is not JSON"),
        ("[" * 50_000, "is not JSON"),
        ('{"format": 1, "kind": "multilabel", "answer": {"mass": true, "mass": false}}', "'mass' is there twice"),
        (" " * (LIMIT + 1), f"larger than {LIMIT} bytes"),
    ],
)
def test_a_file_that_is_no_answer_is_refused(tmp_path, content, reason):
    with pytest.raises(BadLabel, match=rf"^a\.json .*{reason}"):
        read_answer(put(tmp_path, content))


@pytest.mark.parametrize(
    ("recipe", "kind", "answer", "reason"),
    [
        (KIND, "classification", "malignent", r"'malignent' is no label.* allowed are none, benign, .*'malignant'"),
        (KIND, "classification", "Benign", r"no label.*did you mean 'benign'"),
        (KIND, "ordinal", "benign", "kind 'ordinal'; recipe type takes answers of kind 'classification'"),
        (FINDINGS, "multilabel", {"masss": True}, r"'masss' is no label of recipe chest.*did you mean 'mass'"),
        (FINDINGS, "multilabel", {}, "names no finding; say true or false for some of effusion"),
        (ORGANS, "classification", "liver", "organs is of kind segmentation and takes a mask"),
    ],
)  # fmt: skip
def test_an_answer_that_does_not_fit_its_recipe_is_refused(tmp_path, recipe, kind, answer, reason):
    with pytest.raises(BadLabel, match=reason):
        fit_answer(recipe, put(tmp_path, {"format": 1, "kind": kind, "answer": answer}))


def test_exactly_one_of_labels_that_exclude_each_other():
    for answer in ({}, {"1": False}, {"1": True, "2": True}):
        with pytest.raises(BadLabel, match="say exactly one of 1, 2, 3"):
            check_answer(GRADE, answer)


def test_a_file_that_is_gone_is_not_found(tmp_path):
    with pytest.raises(NotFound, match=r"no answer file a\.json"):
        read_answer(tmp_path / "a.json")


def test_what_a_recipe_no_longer_asks_is_left_out(tmp_path):
    file = put(tmp_path, {"format": 1, "kind": "multilabel", "answer": {"mass": True, "gone": False}})
    assert read_answer(file, FINDINGS) == {"mass": True}
    with pytest.raises(BadLabel, match=r"says mass, no gone \(multilabel\); recipe type \(classification\)"):
        read_answer(file, KIND)
    with pytest.raises(BadLabel, match=r"says gone \(ordinal\); recipe grade \(ordinal\) has 1, 2, 3"):
        read_answer(put(tmp_path, {"format": 1, "kind": "ordinal", "answer": "gone"}), GRADE)


@given(st.data())
def test_an_answer_is_found_again_from_its_checksum(tmp_path, data):
    recipe = data.draw(st.sampled_from([KIND, GRADE, FINDINGS]))
    if recipe.kind == "multilabel":
        looked_at = st.dictionaries(st.sampled_from(recipe.label_names), st.booleans(), min_size=1)
        kept = check_answer(recipe, data.draw(looked_at))
    else:
        kept = check_answer(recipe, {data.draw(st.sampled_from(recipe.label_names)): True})
    write_answer(tmp_path / "a.json", recipe.kind, kept)
    digest = checksum(tmp_path / "a.json")
    assert found_again(tuple(kept), digest) == (tmp_path / "a.json").read_bytes()
    assert found_again(tuple(kept), digest[::-1]) is None
