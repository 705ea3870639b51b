"""The next study: never a labelled or reserved one, repeatable, fast among ten thousand."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from radloop.recipes.errors import BadInput, NotFound
from radloop.strategies import desk as desk_module
from radloop.strategies.choose import Candidate
from radloop.strategies.desk import Desk
from radloop.studies.folder import StudiesFolder
from radloop.studies.home import Home
from radloop.studies.ledger import Ledger
from radloop.studies.pool import Pool

Place = Callable[..., SimpleNamespace]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """`place(n)` makes a folder of n (empty) studies, a ledger and a pool of recipes `one` and `two`."""

    def make(count: int = 40) -> SimpleNamespace:
        studies = tmp_path / "studies"
        studies.mkdir(parents=True, exist_ok=True)
        for number in range(count):
            (studies / f"s{number:05d}.nii.gz").touch()
        (tmp_path / "mask.nii.gz").write_bytes(b"mask")
        folder, ledger = StudiesFolder(studies), Ledger(Home(tmp_path / "home"))

        def label(study: str, recipe: str = "one", **more: object) -> int:
            return ledger.add(study, study, recipe, "r", tmp_path / "mask.nii.gz", ".nii.gz", [recipe], **more).id

        return SimpleNamespace(
            folder=folder, ledger=ledger, pool=Pool(folder, ledger, ["one", "two"]), label=label, path=studies
        )

    return make


class Fixed:
    """Scores that are there already, by version 1."""

    def __init__(self, folder: StudiesFolder, version: int | None = 1) -> None:
        rng, self.version = np.random.default_rng(0), version
        self.found = {
            i: Candidate(i, i, {"entropy": v, "entropy.a": v}, {"a": 0.1}, rng.normal(size=58).astype(np.float32))
            for i, v in zip(folder.studies(), rng.random(len(folder.studies())) + 0.1, strict=True)
        }
        self.asked = list[str]()

    def candidates(self, recipe: str, known: object) -> tuple[int | None, dict[str, Candidate]]:
        return self.version, self.found

    def want(self, needs: Sequence[str]) -> None:
        self.asked += sorted(needs)


def test_the_pool_follows_labels_retractions_and_new_studies(place: Place) -> None:
    here = place(5)
    first = here.pool.look()
    assert here.pool.look() is first, "nothing changed"
    row = here.label("s00001")
    here.label("s00002", state="draft")
    here.label("s00003", state="held")
    assert here.pool.look().labelled == {"one": {"s00001"}, "two": set()}
    again = here.label("s00001")
    here.ledger.revoke(ids=[again])
    assert here.pool.look().labelled["one"] == {"s00001"}, "the one before stands"
    here.ledger.revoke(ids=[row])
    assert here.pool.look().labelled["one"] == set()
    (here.path / "new.nii.gz").touch()
    known = here.pool.look(fresh=True)
    assert known.studies.keys() - first.studies.keys() == {"new"}
    assert "new" in known.sides


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    steps=st.lists(
        st.tuples(
            st.integers(0, 5),
            st.sampled_from(["next", "next", "label", "release", "skip", "unasked"]),
            st.sampled_from(["random", "clasp_pe", "coverage", None]),
        ),
        max_size=40,
    )
)
def test_a_labelled_or_reserved_study_is_never_offered(place: Place, steps: list[tuple[int, str, str | None]]) -> None:
    here = place(20)
    here.ledger.revoke(since="2000-01-01")  # what the example before left
    desk, holds, skipped = Desk(here.pool, ["one"], Fixed(here.folder), seed=1), dict[str, int](), set()
    labelled = set[str]()
    for reader, what, name in steps:
        mine = sorted(study for study, who in holds.items() if who == reader)
        if what == "next":
            study = desk.next(f"r{reader}", name).get("id")
            if study is None:
                assert len(labelled | holds.keys() | {s for r, s in skipped if r == reader}) == 20
                continue
            assert study not in labelled
            assert holds.get(study, reader) == reader
            assert (reader, study) not in skipped
            holds[study] = reader
        elif what == "unasked":  # somebody opens a study by hand
            study = max(here.folder.studies().keys() - labelled - holds.keys(), default=None)
            if study:
                here.label(study)
                labelled.add(study)
        elif mine and what == "label":
            here.label(mine[0])
            labelled.add(mine[0])
            del holds[mine[0]]
        elif mine:
            assert desk.release(f"r{reader}", mine[0], skip=what == "skip")
            del holds[mine[0]]
            if what == "skip":
                skipped.add((reader, mine[0]))


@pytest.mark.parametrize("name", ["random", "foreground", "clasp_pe", "coverage", "mix", None])
def test_the_same_seed_offers_the_same_sequence(place: Place, name: str | None) -> None:
    here = place()

    def sequence(seed: int) -> list[str]:
        desk = Desk(here.pool, ["one", "two"], Fixed(here.folder), seed=seed)
        return [desk.next(f"r{n % 3}", name)["id"] for n in range(20)]

    assert sequence(5) == sequence(5)
    assert len(set(sequence(5))) == 20
    if name != "coverage":
        assert sequence(5) != sequence(6)


def test_one_in_five_is_held_out_and_none_where_the_setting_says_so(place: Place) -> None:
    here = place(60)
    sides = here.pool.look().sides

    def held_out(count: int, **more: int) -> int:
        desk = Desk(here.pool, ["one"], Fixed(here.folder), seed=0, **more)
        return sum(sides[desk.next(f"r{n}", "random")["id"]] != "train" for n in range(count))

    assert held_out(30) == 6
    assert held_out(30, held_out_every=3) == 10
    assert held_out(30, held_out_every=0) == 0


def test_a_fresh_folder_is_covered_and_a_model_decides_later(place: Place) -> None:
    here = place()
    for version, needs in ((None, ["embedding"]), (1, ["embedding", "entropy"])):
        scores = Fixed(here.folder, version)
        Desk(here.pool, ["one"], scores, later="mix").next("r", None)
        assert scores.asked == needs
    with pytest.raises(NotFound, match="there is no strategy 'mixed'"):
        Desk(here.pool, ["one"], later="mixed")


def test_a_new_version_ends_what_was_chosen_ahead(place: Place) -> None:
    here = place()
    scores = Fixed(here.folder)
    desk = Desk(here.pool, ["one"], scores, held_out_every=0)
    by_entropy = sorted(here.pool.look().learned_from, key=lambda i: -scores.found[i].scores["entropy"])
    assert [desk.next("r", "entropy")["id"] for _ in range(3)] == by_entropy[:3]
    scores.found = {i: Candidate(i, i, {"entropy": -c.scores["entropy"]}) for i, c in scores.found.items()}
    assert desk.next("r", "entropy")["id"] == by_entropy[3]
    scores.version = 2
    assert desk.next("r", "entropy")["id"] == by_entropy[-1]


def test_what_was_chosen_ahead_may_be_labelled_or_reserved_by_now(place: Place) -> None:
    here = place()
    desk = Desk(here.pool, ["one"], Fixed(here.folder), seed=0, held_out_every=0)
    first = desk.next("a", "coverage")["id"]
    left = sorted(here.pool.look().learned_from - {first})
    for study in left[3:]:
        here.label(study)
    given = [desk.next("b", "random")["id"], *(desk.next("c", "coverage")["id"] for _ in range(2))]
    assert sorted(given) == left[:3]


def test_a_skipped_study_goes_to_others_and_a_released_one_to_anybody(place: Place) -> None:
    desk = Desk(place(3).pool, ["one"], seed=0)
    first = desk.next("a", "random")["id"]
    assert not desk.release("b", first), "it is another reader's"
    assert desk.release("a", first, skip=True)
    mine = {desk.next("a", "random")["id"] for _ in range(4)}
    assert len(mine) == 2
    assert first not in mine
    assert desk.next("b", "random")["id"] == first
    assert desk.next("c", "random") == {}
    desk.release("b", first)
    assert desk.next("c", "random")["id"] == first


def test_a_reservation_ends_and_the_last_study_comes_again_to_its_reader(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = Desk(place(1).pool, ["one"])
    assert desk.next("a", "random") == desk.next("a", "random") == {"id": "s00000"}
    assert desk.next("b", "random") == {}
    monkeypatch.setattr(desk_module, "RESERVED_SECONDS", 0.0)
    assert desk.next("b", "random") == {"id": "s00000"}


def test_a_recipe_that_is_not_served_is_refused(place: Place) -> None:
    with pytest.raises(BadInput, match="recipe 'three' is not served; served: one, two"):
        Desk(place(1).pool, ["one", "two"]).next("a", "random", "three")


@pytest.mark.parametrize("name", ["clasp_pe", "coverage"])
def test_six_readers_at_once_among_ten_thousand(place: Place, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    here = place(10_000)
    monkeypatch.setattr("radloop.studies.folder._TICK_SECONDS", 0.0)  # the folder has been as it is for a while
    desk = Desk(here.pool, ["one", "two"], Fixed(here.folder), seed=0)
    desk.next("warm", name)

    def read(reader: int) -> list[tuple[str, float]]:
        found = []
        for turn in range(20):
            begun = time.perf_counter()
            study = desk.next(f"r{reader}", name)["id"]
            found.append((study, time.perf_counter() - begun))
            if turn % 5 == 4:
                here.label(study)
        return found

    with ThreadPoolExecutor(6) as crowd:
        given = [one for found in crowd.map(read, range(6)) for one in found]
    assert len({study for study, _ in given}) == 120
    slowest = float(np.quantile([seconds for _, seconds in given], 0.99))
    print(f"{name}: p99 {slowest * 1000:.0f} ms")
    assert slowest < 0.25, "100 ms where nothing else runs; see docs/active-learning.md"
