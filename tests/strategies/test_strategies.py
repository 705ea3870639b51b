"""Every strategy: what each must do alike, and what each is for."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from radloop.recipes.errors import NotFound
from radloop.strategies.choose import Candidate, strategy, strategy_names
from radloop.strategies.clasp_pe import ClaspPE
from radloop.strategies.drawing import nearest, power_noise
from radloop.strategies.strata import spread

NAMES = ("clasp_pe", "coverage", "entropy", "foreground", "mix", "mutual_information", "random")
DRAWN = ("clasp_pe", "foreground", "random")


def study(number: int, entropy: float | None = None, place: tuple[float, ...] | None = None, **labels: float):
    """A candidate; `labels` are entropies of what is predicted in it."""
    scores = {} if entropy is None else {"entropy": entropy, "mutual_information": entropy / 2}
    scores |= {f"entropy.{name}": value for name, value in labels.items()}
    vector = None if place is None else np.array(place, np.float32)
    return Candidate(f"s{number:03d}", f"p{number}", scores, dict.fromkeys(labels, 0.5), vector)


def some(count: int, scored: int, seed: int = 0) -> list[Candidate]:
    rng = np.random.default_rng(seed)
    return [
        study(n, rng.random() + 0.01, tuple(rng.normal(size=3)), a=rng.random() + 0.01) if n < scored else study(n)
        for n in range(count)
    ]


def choose(name: str, pool: list[Candidate], k: int, seed: int = 0, labelled: tuple[Candidate, ...] = ()) -> list[str]:
    return strategy(name).choose(pool, labelled, k, np.random.default_rng(seed))


def test_the_names_are_those_of_the_docs_and_another_is_refused() -> None:
    assert strategy_names() == NAMES
    assert [strategy(name).name for name in NAMES] == list(NAMES)
    with pytest.raises(NotFound, match="did you mean 'entropy'"):
        strategy("entropie")


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=25, deadline=None)
@given(count=st.integers(0, 30), scored=st.integers(0, 30), k=st.integers(0, 12), seed=st.integers(0, 99))
def test_no_study_twice_none_from_outside_and_the_same_for_the_same_seed(
    name: str, count: int, scored: int, k: int, seed: int
) -> None:
    pool, labelled = some(count, scored, seed), (study(900, 1.0, (0.0, 0.0, 0.0), a=0.5), study(901))
    chosen = choose(name, pool, k, seed, labelled)
    assert len(chosen) == len(set(chosen)) == min(k, count)
    assert set(chosen) <= {one.study for one in pool}
    other = [pool[place] for place in np.random.default_rng(seed).permutation(count)]
    assert choose(name, other, k, seed, labelled) == chosen, "the order in which the pool is listed says nothing"


@pytest.mark.parametrize("name", NAMES)
def test_a_study_without_a_score_is_chosen_as_often_as_by_chance(name: str) -> None:
    pool = some(20, scored=15)
    first = Counter(choose(name, pool, 1, seed)[0] >= "s015" for seed in range(400))
    assert 0.18 < first[True] / 400 < 0.32


@pytest.mark.parametrize("name", DRAWN)
def test_another_seed_draws_another_sequence(name: str) -> None:
    pool = [study(n, 0.5, a=0.5) for n in range(50)]
    assert choose(name, pool, 10, 1) != choose(name, pool, 10, 2)


@pytest.mark.parametrize("name", ["entropy", "mutual_information"])
def test_the_least_certain_come_first(name: str) -> None:
    assert choose(name, [study(n, float(n)) for n in range(9)], 3) == ["s008", "s007", "s006"]


def test_two_thirds_are_drawn_label_by_label() -> None:
    rare = {n: study(n, 0.5, rare=0.5) for n in range(4)}
    pool = [rare.get(n) or study(n, 0.5, common=0.5) for n in range(100)]
    shares = [sum(one < "s004" for one in choose("foreground", pool, 6, seed)) / 6 for seed in range(200)]
    assert 0.30 < np.mean(shares) < 0.42, "a third for the rare label, and 4 % of the last third"


def test_every_label_gets_its_part_of_the_budget_also_of_one() -> None:
    # by entropy alone none with `small` would come
    pool = [study(n, 5.0, big=5.0) if n < 50 else study(n, 1.0, small=0.1 + n / 1000) for n in range(100)]
    sure = ClaspPE(betas=(1e6, 1e6))
    chosen = [sure.choose(pool, (), 1, np.random.default_rng(seed))[0] for seed in range(300)]
    assert 0.26 < np.mean([one >= "s050" for one in chosen]) < 0.40
    assert {one for one in chosen if one >= "s050"} == {"s099"}, "of those the one with the highest entropy there"
    assert sum(one >= "s050" for one in sure.choose(pool, (), 10, np.random.default_rng(0))) in (3, 4)


def test_the_noise_fades_as_labels_come() -> None:
    pool = [study(n, 0.5 + n / 200) for n in range(100)]

    def first(labels: int) -> float:
        given = [study(500 + n) for n in range(labels)]
        drawn = (ClaspPE().choose(pool, given, 1, np.random.default_rng(seed))[0] for seed in range(100))
        return float(np.mean([int(one[1:]) for one in drawn]))

    early, late = first(0), first(1000)
    assert 45 < early < 65
    assert late > 90


def test_a_power_of_two_draws_in_proportion_to_squares() -> None:
    rng = np.random.default_rng(0)
    wins = Counter(int(power_noise(np.array([1.0, 2.0, 0.0]), 2.0, rng).argmax()) for _ in range(4000))
    assert wins[2] == 0
    assert wins[1] / wins[0] == pytest.approx(4.0, rel=0.15)


def test_coverage_begins_in_the_middle_and_goes_to_what_is_farthest() -> None:
    corners = [(-9.0, -9.0), (-9.0, 9.0), (9.0, -9.0), (9.0, 9.0)]
    near = [(0.1 * n, -0.1 * n) for n in range(5)]
    pool = [study(n, place=place) for n, place in enumerate([*near, *corners])]
    first, *others = choose("coverage", pool, 5)
    assert first < "s005"
    assert sorted(others) == ["s005", "s006", "s007", "s008"]
    labelled = (study(99, place=(0.0, 0.0)), study(98, place=(9.0, 9.1)))
    assert choose("coverage", pool, 1, labelled=labelled)[0] in {"s005", "s006", "s007"}


def test_coverage_is_within_twice_the_best_radius() -> None:
    rng = np.random.default_rng(3)
    points = rng.normal(size=(12, 2)).astype(np.float32)
    points = (points - points.mean(0)) / points.std(0)
    pool = [study(n, place=tuple(point)) for n, point in enumerate(points)]
    chosen = [int(one[1:]) for one in choose("coverage", pool, 3)]

    def radius(places: list[int]) -> float:
        return float(nearest(points, points[places]).max())

    best = min(radius([a, b, c]) for a in range(12) for b in range(a) for c in range(b))
    assert radius(chosen) <= 2 * best + 1e-5


def test_the_mix_leaves_out_what_looks_alike_and_patients_it_has() -> None:
    twins = [study(n, 1.0 - n / 1000, (5.0, 5.0 + n / 1000)) for n in range(10)]
    others = [study(10, 0.9, (-5.0, 5.0)), study(11, 0.9, (5.0, -5.0)), study(12, 0.001, (-5.0, -5.0))]
    chosen = choose("mix", [*twins, *others], 3)
    assert set(chosen[:3]) >= {"s010", "s011"}
    assert len({one for one in chosen if one < "s010"}) == 1
    same = [Candidate(one.study, "one", one.scores, {}, one.embedding) for one in others[:2]]
    assert choose("mix", [*same, study(9, 0.1, (5.0, 5.0))], 2)[1] == "s009", "another patient first"


def test_places_that_no_label_can_fill_go_to_the_rest() -> None:
    assert sorted(spread({"a": ["x"]}, ["x", "y", "z"], 3, 1.0, np.random.default_rng(0))) == ["x", "y", "z"]
