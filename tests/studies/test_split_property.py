"""Whatever happens in a house, nothing that a model learned from is ever measured on, and nobody changes side."""

from __future__ import annotations

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from radloop.studies.cases import labelled_cases
from radloop.studies.sides import study_sides
from radloop.studies.split import SIDES, Split

MAKE: list[Any] = []  # hypothesis makes the machines itself, so the fixture is handed over here
numbers, recipes = st.integers(0, 99), st.sampled_from([0, 1])


class Life(RuleBasedStateMachine):
    """Studies arrive, are drawn, labelled for two recipes, named, retracted, removed, forgotten, learned from."""

    @initialize(number=st.integers(4, 9), look=st.booleans())
    def begin(self, number: int, look: bool) -> None:
        self.house, self.count = MAKE[0](), 0
        self.side: dict[str, str] = {}
        self.learned: set[str] = set()
        self.measured: set[str] = set()
        self.known: set[str] = set()  # patients of whom a study was learned from, by what its labels say
        for study in range(number):
            self.arrive(labelled=True)
            if study < 2:
                self.house.name(f"s{study:02d}", f"P{study}")
        if look:
            self.train(0)

    def teardown(self) -> None:
        if hasattr(self, "house"):
            self.house.ledger.database.close()

    def here(self, number: int) -> str:
        there = sorted(self.house.folder.studies())
        return there[number % len(there)]

    def some(self) -> bool:
        return hasattr(self, "house") and bool(self.house.folder.studies())

    @rule(labelled=st.booleans())
    def arrive(self, labelled: bool) -> None:
        self.house.arrive(f"s{self.count:02d}")
        if labelled:
            self.house.label(f"s{self.count:02d}", "one")
        self.count += 1

    @rule(number=numbers, patient=st.none() | st.integers(0, 3))
    def come_back(self, number: int, patient: int | None) -> None:
        """A study of an id of before: one that was forgotten, or the same file again."""
        study = f"s{number % self.count:02d}"
        self.house.arrive(study)
        if patient is not None:
            self.house.name(study, f"P{patient}")
        self.house.label(study, "two")

    @precondition(some)
    @rule()
    def draw(self) -> None:
        """As when a reader asks for the next study."""
        study_sides(self.house.folder.studies(), self.house.ledger)

    @precondition(some)
    @rule(number=numbers, recipe=recipes)
    def label(self, number: int, recipe: int) -> None:
        self.house.label(self.here(number), self.house.recipes[recipe].name)

    @precondition(some)
    @rule(number=numbers)
    def take_in(self, number: int) -> None:
        self.house.drop(self.here(number))

    @precondition(some)
    @rule(number=numbers, patient=st.integers(0, 3), look=st.none() | recipes)
    def name(self, number: int, patient: int, look: int | None) -> None:
        self.house.name(self.here(number), f"P{patient}")
        if look is not None:
            self.train(look)

    @precondition(some)
    @rule(number=numbers)
    def remove(self, number: int) -> None:
        self.house.remove(self.here(number))

    @precondition(some)
    @rule(number=numbers)
    def retract(self, number: int) -> None:
        rows = self.house.ledger.history(self.here(number))
        if rows:
            self.house.ledger.revoke(ids=[rows[-1].id])

    @precondition(some)
    @rule(number=numbers)
    def forget(self, number: int) -> None:
        patient = self.house.folder.study(self.here(number)).patient
        self.look()
        self.house.forget(patient)
        if patient in self.known_now:
            self.side[patient] = "train"  # whatever it was: there they come back to

    @rule()
    def start_again(self) -> None:
        self.house.ledger.database.close()
        self.house.open()

    def look(self) -> None:
        studies = self.house.folder.studies()
        self.known |= {row.patient for row in self.house.ledger.history() if row.study in self.learned}
        self.known_now = self.known | {studies[study].patient for study in self.learned & studies.keys()}

    @rule(recipe=recipes)
    def train(self, recipe: int) -> None:
        """What engine/train.py selects: it learns from the training side, the gate and the figures get the others."""
        cases = labelled_cases(self.house.folder, self.house.ledger, self.house.recipes[recipe], SIDES)
        learned = {case.study for case in cases if case.side == "train"}
        measured = {case.study for case in cases if case.side != "train"}
        self.learned |= learned
        self.measured |= measured
        assert not self.learned & self.measured
        assert not {c.patient for c in cases if c.study in learned} & {c.patient for c in cases if c.study in measured}
        self.look()
        assert not self.known_now & {case.patient for case in cases if case.study in measured}, (
            "learned from that patient"
        )
        for patient, side in Split(self.house.ledger).stored().items():
            assert self.side.setdefault(patient, side) == side, f"{patient} changed side"


def test_nothing_that_was_learned_from_is_ever_measured_on(new_house: Any) -> None:
    MAKE[:] = [new_house]
    Life.TestCase.settings = settings(max_examples=30, stateful_step_count=30, deadline=None)
    Life.TestCase("runTest").runTest()
