"""What a recipe says and nothing would heed, or what would tell the answer: refused with what to do."""

from __future__ import annotations

import pytest

from radloop.recipes.load import mistakes

CLASSES = 'name = "grade"\nkind = "classification"\nlabels = { low = 1, high = 2 }\n'
FINDINGS = 'name = "seen"\nkind = "multilabel"\nlabels = { mass = 1, fluid = 2 }\n'
RISK = 'name = "life"\nkind = "risk"\nlabels = { death = 1 }\n[answer]\ntimes = [365]\n'
MASK = 'name = "tumour"\nlabels = { tumour = 1 }\n'
BOXES = MASK + 'kind = "detection"\n'


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (CLASSES + '[answer]\ncovariates = ["age", "grade"]\n', "'grade', which is the column of the answer itself"),
        (CLASSES + '[answer]\ncolumn = "who"\ncovariates = ["who"]\n', "'who', which is the column of the answer"),
        (FINDINGS + '[answer]\ncovariates = ["fluid"]\n', "'fluid', which is the column of the answer itself"),
        (RISK + 'covariates = ["age", "time"]\n', "'time', which is the column of the answer itself"),
        (RISK + 'covariates = ["event"]\n', "'event', which is the column of the answer itself"),
        (MASK + '[fit]\nbalance = "loss"\n', "fit.balance = 'loss' is for classes; leave it out where kind is 'segm"),
        (BOXES + '[fit]\nbalance = "sampler"\n', "fit.balance = 'sampler' is for classes"),
        (MASK + "[evaluate]\nsmallest = 5\n", "evaluate.smallest is of lesions, but evaluate.lesions names no label"),
    ],
)
def test_what_is_not_heeded_or_tells_the_answer_is_refused(text: str, reason: str) -> None:
    assert any(reason in mistake.message for mistake in mistakes(text)), mistakes(text)


@pytest.mark.parametrize(
    "text",
    [
        CLASSES + '[answer]\ncolumn = "who"\ncovariates = ["grade"]\n',
        FINDINGS + '[answer]\ncovariates = ["age"]\n[fit]\nbalance = "loss"\n',
        MASK + '[evaluate]\nlesions = ["tumour"]\nsmallest = 5\n',
    ],
)
def test_what_is_heeded_is_taken(text: str) -> None:
    assert mistakes(text) == []
