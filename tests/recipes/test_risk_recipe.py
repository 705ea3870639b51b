"""What a recipe of kind risk must say."""

from __future__ import annotations

import pytest

from radloop.recipes.load import load_recipe, mistakes

RIGHT = 'name = "life"\nkind = "risk"\nlabels = { death = 1 }\n[answer]\ntimes = [365, 1095]\n'


def test_a_right_one_has_no_mistake_and_an_output_an_interval() -> None:
    assert mistakes(RIGHT) == []
    assert load_recipe("glioma_survival").outputs == 5


@pytest.mark.parametrize(
    ("before", "after", "line", "reason"),
    [
        ("{ death = 1 }", "{ death = 1, relapse = 2 }", 3, "'risk' with 2 labels; name the one event"),
        ("times = [365, 1095]", "", 4, "answer.times is []"),
        ("[365, 1095]", "[1095, 365]", 5, "say at which times the risk is told"),
        ("[365, 1095]", "[0, 365]", 5, "answer.times[0] = 0"),
        ("times", 'column = "x"\ntimes', 5, "answer.event and answer.time in its place"),
        ("times", 'event = "time"\ntimes', 5, "must be two columns"),
        ("times", 'unit = "weeks"\ntimes', 5, "answer.unit"),
        ("[answer]", '[fit]\nbalance = "loss"\n[answer]', 5, "fit.balance = 'loss' is for classes"),
        ('"risk"', '"classification"', 5, "answer.times is for kind = 'risk'"),
    ],
)
def test_a_mistake_is_said_with_its_line(before: str, after: str, line: int, reason: str) -> None:
    found = mistakes(RIGHT.replace(before, after, 1))
    assert any(mistake.line == line and reason in mistake.message for mistake in found), found
