"""Recipes are read from TOML; every mistake is told with its line and what is allowed."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from radloop.recipes.errors import BadRecipe, NotFound
from radloop.recipes.load import load_recipe, mistakes, parse_recipe, shipped_recipes
from radloop.recipes.recipe import Evaluate, Fit, Gate, Network, Preprocess, Recipe

GOOD = """
name = "liver"
labels = { liver = 1, "tumour, old" = 2 }  # two

[preprocess]
spacing = [
  1.0,  # right to left
  1, 2.5
]

[fit]
learning_rate = 1
"""


def told(text: str) -> list[str]:
    return [f"{mistake.line}: {mistake.message}" for mistake in mistakes(text)]


def test_a_good_recipe_is_read() -> None:
    recipe = parse_recipe(GOOD)
    assert recipe.label_names == ("liver", "tumour, old")
    assert recipe.preprocess.spacing == (1.0, 1.0, 2.5)
    assert recipe.fit.learning_rate == 1.0
    assert mistakes(GOOD) == []


def test_the_message_has_file_line_key_table_and_the_closest_key() -> None:
    text = GOOD.replace("learning_rate", "learning_rte")
    with pytest.raises(BadRecipe) as error:
        parse_recipe(text, "liver.toml")
    assert str(error.value) == "liver.toml:12: unknown key 'learning_rte' in [fit]; did you mean 'learning_rate'?"


def test_all_mistakes_are_told_in_one_pass() -> None:
    text = """\
nme = "x"
kind = "segmentaton"
dimension = 2
labels = { liver = 1, tumour = 3 }
[preprocess]
spacing = [1.0, -1, 2.0]
window = [3]
[fit]
batch = "2"
patch = [1,
  2, 3]
steps = 2.5
epochs = ten
ema = 1
ema = 0.9
mirror = [2]
[gate]
patch = 3
name = "late"
[network]
features = [8, 16]
strides = [[2, 2]]
"""
    found = told(text)
    expected = {
        "1: 'name' is missing": "add e.g. name =",
        "1: unknown key 'nme'": "did you mean 'name'?",
        '2: kind = "segmentaton"': "did you mean 'segmentation'?",
        "4: label ids are [1, 3]": "exactly 1..2",
        "6: preprocess.spacing[1] = -1": "greater than 0",
        "7: preprocess.window = [3]": "too few",
        '9: fit.batch = "2"': "must be a whole number",
        "10: fit.patch has 3 numbers": "needs 2",
        "12: fit.steps = 2.5": "must be a whole number",
        "13: the value of 'fit.epochs'": "quotes",
        "15: 'fit.ema' is given twice": "first in line 14",
        "16: fit.mirror is [2]": "0..1",
        "18: unknown key 'patch' in [gate]": "it belongs in [fit]",
        "19: unknown key 'name' in [gate]": "at the top",
        "22: network.strides begins with [2, 2]": "1s",
        "22: network.strides has 1 rows": "2",
    }
    for start, hint in expected.items():
        assert any(line.startswith(start) and hint in line for line in found), (start, found)
    assert [int(line.split(":")[0]) for line in found] == sorted(int(line.split(":")[0]) for line in found)
    assert all("\n" not in line for line in found)


@pytest.mark.parametrize(
    ("text", "line", "part"),
    [
        ('labels = { a = 1 }', 1, "'name' is missing"),
        ('name = "x"\n', 1, "'labels' is missing; add e.g. labels = { lesion = 1 }"),
        ('name = "x"\nlabels = {}', 2, "label ids are []"),
        ('name = "x"\nlabels = { a = 0, b = 1 }', 2, "exactly 1..2"),
        ('name = "x"\nlabels = { a = 1, b = 1 }', 2, "exactly 1..2"),
        ('name = "x"\nlabels = { a = 1.0 }', 2, "labels.a = 1.0 must be a whole number"),
        ('name = "x"\nlabels = { a = true }', 2, "labels.a = true must be a whole number"),
        ('name = "x"\nlabels = { Background = 1 }', 2, "'Background' cannot name a label"),
        ('name = "x"\nlabels = { " a" = 1 }', 2, "outer spaces"),
        ('name = "x"\nlabels = ["a", "b"]', 2, "must be a table"),
        ('name = "Leber 3"\nlabels = { a = 1 }', 1, "a-z"),
        ('labels = { a = 1 }\nname = "x', 2, "the text of 'name' is not closed"),
        ('labels = { a = 1 }\nname = ', 2, "the value of 'name' is not valid"),
        ('name = "x"\nlabels = { 病灶 = 1 }', 2, '"病灶"'),
        ('name = “x”\nlabels = { a = 1 }', 1, "straight quotes"),
        ('name = "x"\nlabels = { a = 1 }\npreprocess = 3', 3, "preprocess = 3 must be a table"),
        ('name = "x"\nlabels = { a = 1 }\nchannels = []', 3, "at least one name"),
        ('name = "x"\nlabels = { a = 1 }\ndisplay_channel = 1', 3, "numbered 0..0"),
        ('name = "x"\nlabels = { a = 1 }\n[preprocess]\nwindow = [5, 5]', 4, "the lower"),
        ('name = "x"\nlabels = { a = 1 }\n[fit]\nlearning_rate = inf', 4, "finite"),
        ('name = "x"\nlabels = { a = 1 }\n[fit]\nlearning_rate = 2024-01-01', 4, "must be a number"),
        ('name = "x"\nlabels = { a = 1 }\n[fit]\nmirror = [1, 1]', 4, "each once"),
        ('name = "x"\nlabels = { a = 1 }\n[fti]\nbatch = 2', 3, "unknown key 'fti'; did you mean 'fit'?"),
        ('name = "x"\nlabels = { a = 1 }\nfit.bach = 2', 3, "unknown key 'bach' in [fit]; did you mean 'batch'?"),
        ('name = "x"\nlabels = { a = 1 }\n[fit]\nbatch = 2\n[fit]\nsteps = 2', 5, "'fit' is given twice, first in"),
        ('name = "x"\nlabels = { a = 1 }\n[fit]\npatch = [1, 2\n\n[gate]', 4, "Unclosed"),
        ('name = "x"\n[labels]\na = 1\nkind = "segmentation"', 4, "write 'kind' above [labels]"),
        ('name = "x"\nlabels = { a = 1 }\nkind = "risk"', 1, "say at which times the risk is told"),
        ('name = "x"\nlabels = { a = 1 }\nformat = 2', 3, "must be 1"),
        ('name = "x"\nlabels = { a = 1 }\n[evaluate]\nlesions = ["b"]', 4, "'b', which is no label; labels are a"),
        ('name = "x"\nlabels = { a = 1 }\n[evaluate]\nlesions = ["a", "a"]', 4, "there twice"),
        ('name = "x"\nlabels = { a = 1 }\n[network]\nmirror = true', 4, "fit.mirror names no axis"),
        ('name = "x"\nlabels = { a = 1, b = 2 }\nkind = "ordinal"\n[evaluate]\nlesions = ["a"]', 5, "segmentation"),
        ('name = "x"\nlabels = { a = 1, b = 2 }\nkind = "ordinal"\nnetwork.deep_supervision = true', 4, "leave it"),
    ],
)  # fmt: skip
def test_each_mistake_has_its_line_and_a_way_out(text: str, line: int, part: str) -> None:
    found = mistakes(text)
    assert [(one.line, part in one.message) for one in found] == [(line, True)], found


def test_an_inline_table_over_several_lines_is_explained_or_read() -> None:
    """TOML 1.0 refuses it, TOML 1.1, which tomli reads on Python 3.10, takes it."""
    found = mistakes('name = "x"\nlabels = {\n a = 1\n}')
    if sys.version_info >= (3, 11):
        assert [(one.line, "on one line; or write a table [labels]" in one.message) for one in found] == [(2, True)]
    else:
        assert found == []


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_lines_are_right_after_comments_strings_and_windows_line_ends(end: str) -> None:
    text = (
        '# a = [\ntitle = """\n[fit]\nbatch = 3\n"""\nname = "a" # = {\nlabels = { "x#[=1" = 1 }\n\n[fit]\nbtch = 2\n'
    )
    assert told(text.replace("\n", end)) == ["10: unknown key 'btch' in [fit]; did you mean 'batch'?"]


def test_chinese_names_and_paths_are_read(tmp_path: Path) -> None:
    file = tmp_path / "肝脏 病灶.toml"
    file.write_text('﻿name = "liver"\ntitle = "肝脏"\nlabels = { "病灶" = 1 }\n', encoding="utf-8")
    assert load_recipe(file).labels == {"病灶": 1}
    file.write_text('name = "liver"\nlabels = { "病灶" = 2 }\n', encoding="utf-8")
    with pytest.raises(BadRecipe, match=r"^肝脏 病灶\.toml:2: label ids are \[2\]"):
        load_recipe(str(file))


def test_another_encoding_is_named_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "gbk.toml"
    file.write_bytes('name = "liver"\nlabels = { "病灶" = 1 }\n'.encode("gbk"))
    with pytest.raises(BadRecipe, match=r"gbk\.toml:2: the file is not UTF-8"):
        load_recipe(file)


def test_a_name_is_looked_for_at_home_then_among_the_shipped(tmp_path: Path) -> None:
    assert load_recipe("hippocampus", tmp_path).labels == {"anterior": 1, "posterior": 2}
    own = tmp_path / "recipes" / "hippocampus.toml"
    own.parent.mkdir()
    own.write_text('name = "hippocampus"\nlabels = { whole = 1 }\n')
    assert load_recipe("hippocampus", tmp_path).labels == {"whole": 1}
    assert load_recipe("hippocampus").labels == {"anterior": 1, "posterior": 2}


def test_an_unknown_name_gives_the_closest(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="did you mean 'hippocampus'"):
        load_recipe("hipocampus", tmp_path)
    with pytest.raises(NotFound, match="there is no recipe file"):
        load_recipe(tmp_path / "missing.toml")
    with pytest.raises(BadRecipe, match="cannot be read"):
        load_recipe(tmp_path)


def test_file_and_name_agree_at_home(tmp_path: Path) -> None:
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "a.toml").write_text('name = "b"\nlabels = { x = 1 }\n')
    with pytest.raises(BadRecipe, match="holds name = 'b'"):
        load_recipe("a", tmp_path)


@pytest.mark.parametrize("name", sorted(shipped_recipes()))
def test_every_shipped_recipe_is_right_and_has_its_file_name(name: str) -> None:
    assert load_recipe(name).name == name


@given(st.text())
def test_no_text_breaks_the_reader(text: str) -> None:
    assert mistakes(text)  # a random text is never a recipe


@given(st.lists(st.sampled_from(GOOD.splitlines()), max_size=12), st.integers(0, 300))
def test_no_shuffled_recipe_breaks_the_reader(lines: list[str], cut: int) -> None:
    text = "\n".join(lines)[:cut]
    for mistake in mistakes(text):
        assert 1 <= mistake.line <= text.count("\n") + 1


def test_every_field_is_explained_in_the_guide(root: Path) -> None:
    guide = (root / "docs" / "recipes.md").read_text(encoding="utf-8")
    for part in (Recipe, Preprocess, Network, Fit, Gate, Evaluate):
        for field in part.model_fields:
            assert f"`{field}`" in guide or f"`[{field}]`" in guide, f"docs/recipes.md says nothing about {field}"
    for text in guide.split("```toml\n")[1:]:
        assert mistakes(text.split("```")[0]) == []
