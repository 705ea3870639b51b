"""A patient's side is decided once."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from radloop.recipes.errors import BadInput
from radloop.studies.home import Home
from radloop.studies.ledger import Ledger
from radloop.studies.split import PERCENT, SIDES, Split, draw, folds

patients = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=12)
crowds = st.lists(patients, min_size=1, max_size=60, unique=True)
chunks = st.lists(st.lists(patients, max_size=8), min_size=1, max_size=8)
salts = st.text(min_size=1, max_size=8)


@given(chunks, salts)
def test_a_stored_patient_never_moves(arrivals, salt):
    with tempfile.TemporaryDirectory() as folder:
        ledger = Ledger(Home(folder))
        seen = {}
        for arrival in arrivals:
            sides = Split(ledger, salt).assign(arrival)
            assert set(sides) == set(arrival)
            assert set(sides.values()) <= set(SIDES)
            for patient, side in sides.items():
                assert seen.setdefault(patient, side) == side
        assert Split(Ledger(Home(folder))).stored() == seen
        ledger.database.close()


@given(crowds, salts)
def test_every_side_has_its_share_of_patients_that_come_together(crowd, salt):
    counts = Counter(draw(crowd, Counter(), salt).values())
    for side, percent in PERCENT.items():
        assert counts[side] >= percent * len(crowd) // 100


@given(crowds, salts, st.randoms(use_true_random=False))
def test_the_draw_depends_on_nothing_but_salt_and_ids(crowd, salt, random):
    shuffled = list(crowd)
    random.shuffle(shuffled)
    assert draw(shuffled, Counter(), salt) == draw(crowd, Counter(), salt)


@given(crowds, st.fixed_dictionaries({side: st.integers(0, 40) for side in SIDES}), salts)
def test_a_late_crowd_fills_held_out_sides_only_as_far_as_needed(crowd, stored, salt):
    counts = Counter(stored)
    counts.update(draw(crowd, Counter(stored), salt).values())
    total = sum(counts.values())
    for short in ("validation", "test"):
        share = PERCENT[short] * total // 100
        # Either the side has its share, or no other side has more than its own (and than one) among the newcomers.
        enough = {side: max(percent * total // 100, 1) for side, percent in PERCENT.items()}
        others = [s for s in SIDES if s != short and counts[s] > enough[s] and counts[s] > stored[s]]
        assert counts[short] >= share or not others


@given(crowds, st.fixed_dictionaries({side: st.integers(0, 9) for side in SIDES}), salts)
def test_there_is_a_training_patient_always(crowd, stored, salt):
    counts = Counter(stored)
    counts.update(draw(crowd, Counter(stored), salt).values())
    assert counts["train"] >= 1


@given(st.lists(patients, min_size=3, max_size=9, unique=True), salts, st.integers(0, 30), st.sampled_from(SIDES))
def test_three_at_once_leave_no_side_empty(crowd, salt, many, side):
    stored = Counter({side: many})
    assert set(draw(crowd, stored, salt).values()) | set(+stored) == set(SIDES)


@given(patients, salts)
def test_the_fifth_patient_takes_the_side_that_is_empty(patient, salt):
    assert draw([patient], Counter(train=3, test=1), salt) == {patient: "validation"}
    assert draw([patient], Counter(train=3, validation=1), salt) == {patient: "test"}


def test_another_salt_draws_otherwise():
    crowd = [f"patient {n}" for n in range(100)]
    assert draw(crowd, Counter(), "one") != draw(crowd, Counter(), "two")


def test_shares_of_many(ledger):
    sides = Split(ledger).assign(f"patient {n}" for n in range(1000))
    assert Counter(sides.values()) == {"train": 650, "validation": 150, "test": 200}


def test_the_salt_is_stored_with_the_first_patient(ledger):
    Split(ledger, "mine").assign(["first"])
    crowd = [f"patient {n}" for n in range(40)]
    together = Split(ledger, "another").assign(crowd)
    known = Counter([Split(ledger).side("first")])
    assert together == draw(crowd, known, "mine")


@pytest.mark.parametrize("salt", [f"salt {n}" for n in range(20)])
def test_one_by_one_a_small_set_still_gets_held_out_patients(salt):
    counts: Counter[str] = Counter()
    for number in range(20):
        counts.update(draw([f"patient {number}"], counts, salt).values())
        if number >= 6:
            assert min(counts[side] for side in SIDES) >= 1
    assert counts["validation"] >= 2
    assert counts["test"] >= 3


ASSIGN = """
import json, sys
from radloop.studies.home import Home
from radloop.studies.ledger import Ledger
from radloop.studies.split import Split
split = Split(Ledger(Home(sys.argv[1])))
sys.stdin.readline()
found = {}
for start in range(0, 60, 3):
    found |= split.assign(f"patient {n}" for n in range(start, start + 9))
print(json.dumps(found))
"""


def test_two_processes_agree(tmp_path):
    command = [sys.executable, "-c", ASSIGN, str(tmp_path / "home")]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    crowd = [subprocess.Popen(command, **pipes) for _ in range(2)]
    said: dict[int, str] = {}

    def run(number: int) -> None:
        said[number] = crowd[number].communicate("go\n")[0]

    threads = [threading.Thread(target=run, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=120)
    one, two = (json.loads(said[i]) for i in range(2))
    assert one == two == Split(Ledger(Home(tmp_path / "home"))).stored()
    assert len(one) == 66


@given(crowds, st.integers(2, 10))
def test_folds_deal_out_every_patient(crowd, k):
    if k > max(len(crowd), 2):
        with pytest.raises(BadInput, match="folds of"):
            folds(crowd, k)
        return
    dealt = folds(crowd, k)
    assert set(dealt) == set(crowd)
    sizes = Counter(dealt.values())
    assert set(sizes) <= set(range(k))
    assert max(sizes.values()) - min(sizes[i] for i in range(k)) <= 1
    assert folds(reversed(crowd), k) == dealt


def test_one_fold_is_refused():
    with pytest.raises(BadInput, match="1 folds of 2 patients"):
        folds(["a", "b"], 1)
