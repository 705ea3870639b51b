"""The gate over many versions: reference, repeated looks, provisional champions, changed labels, two held-out sets."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from radloop.evaluation.gate_rule import ALPHA, Decision, Level, alpha_of, judge, reconcile

MARGIN = 0.02
Scores = dict[str, float]
few_differences = st.lists(st.floats(-0.1, 0.1), min_size=1, max_size=14)


def patients(*scores: float) -> Scores:
    return {f"p{i}": score for i, score in enumerate(scores)}


def even(score: float, n: int = 8) -> Scores:
    """Scores that differ a little between patients, so that a bound is no point."""
    return patients(*(score + 0.002 * (-1) ** i for i in range(n)))


@pytest.fixture(scope="module")
def benchmark_module() -> ModuleType:
    file = Path(__file__).parents[2] / "benchmarks" / "gate_error_rates.py"
    spec = importlib.util.spec_from_file_location("gate_error_rates", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_small_losses_do_not_add_up_past_the_reference() -> None:
    best, champion, challenger = even(0.90), even(0.885), even(0.87)
    assert judge(challenger, champion, None, MARGIN).serves
    decision = judge(challenger, champion, None, MARGIN, references=[Level(best, {})])
    assert not decision.serves
    assert not decision.superior
    assert "set the level" in decision.reason
    assert "0.870 against the reference's 0.900" in decision.reason
    assert judge(even(0.89), champion, None, MARGIN, references=[Level(best, {})]).serves


def test_no_label_may_fall_behind_the_reference_either() -> None:
    champion = {"liver": even(0.9), "tumour": even(0.5)}
    best = {"liver": even(0.9), "tumour": even(0.515)}
    ours = {"liver": even(0.93), "tumour": even(0.49)}

    def mean(of: dict[str, Scores]) -> Scores:
        return {p: (of["liver"][p] + of["tumour"][p]) / 2 for p in of["liver"]}

    labels = {"challenger_labels": ours, "champion_labels": champion}
    assert judge(mean(ours), mean(champion), None, MARGIN, **labels).serves
    decision = judge(mean(ours), mean(champion), None, MARGIN, references=[Level(mean(best), best)], **labels)
    assert not decision.serves
    assert "'tumour' fell by 0.025" in decision.reason


def test_a_reference_without_scores_of_these_patients_changes_nothing() -> None:
    alone = judge(even(0.9), even(0.9), None, MARGIN)
    assert judge(even(0.9), even(0.9), None, MARGIN, references=[Level({}, {})]) == alone


def test_superior_is_better_beyond_chance_than_champion_and_reference() -> None:
    uneven = patients(*(0.9 + d for d in (0.02, -0.015, 0.01, -0.01, 0.015, -0.012, 0.01, 0)))
    assert judge(even(0.92), patients(*[0.9] * 8), None, MARGIN).superior
    assert not judge(uneven, patients(*[0.9] * 8), None, MARGIN).superior
    assert not judge(even(0.92), patients(*[0.9] * 8), None, MARGIN, references=[Level(even(0.925), {})]).superior
    assert not judge(patients(0.99, 0.99), patients(0.5, 0.5), None, MARGIN).superior  # two patients show nothing


def test_each_further_look_asks_for_more() -> None:
    assert alpha_of(0) == ALPHA
    alphas = [alpha_of(looks) for looks in range(50)]
    assert alphas == sorted(alphas, reverse=True)
    new, old = patients(*(0.5 + d for d in (0.006, -0.024, 0.001, -0.026, -0.004, -0.009, 0.006, -0.01))), [0.5] * 8
    first, late = judge(new, patients(*old), None, MARGIN), judge(new, patients(*old), None, MARGIN, looks=49)
    assert first.lower is not None
    assert late.lower is not None
    assert late.lower < first.lower
    assert first.serves
    assert not late.serves
    assert (late.looks, late.alpha) == (49, alpha_of(49))
    assert f"{100 * (1 - alpha_of(49)):.4g} % lower bound" in late.reason


def test_after_a_provisional_champion_the_baseline_must_be_beaten() -> None:
    asked = {"margin": MARGIN, "proven": ()}
    worthless = judge(even(0.5), even(0.5), even(0.5), **asked)
    assert not worthless.serves
    assert "no version was fully judged before" in worthless.reason
    assert judge(even(0.5), even(0.5), even(0.4), **asked).serves
    assert not judge(even(0.5), even(0.5), None, **asked).serves
    assert judge(even(0.5), even(0.5), even(0.5), MARGIN).serves
    # with fewer than six patients nothing is fully judged, so the question stays open
    assert judge(even(0.5, 5), even(0.5, 5), even(0.5, 5), **asked).serves


def test_first_models_tried_again_and_again_are_asked_for_more() -> None:
    scores = patients(*(0.5 + d for d in (0.01, -0.004, 0.012, 0.003, 0.008, 0.002)))
    assert judge(scores, None, patients(*[0.5] * 6), MARGIN).serves
    late = judge(scores, None, patients(*[0.5] * 6), MARGIN, looks=49)
    assert not late.serves
    assert (late.looks, late.alpha) == (49, alpha_of(49))


def test_each_label_keeps_the_level_of_the_version_that_set_it() -> None:
    ours = {"liver": even(0.87), "cyst": even(0.5)}
    champion = {"liver": even(0.885), "cyst": even(0.5)}

    def mean(of: dict[str, Scores]) -> Scores:
        return {p: (of["liver"][p] + of["cyst"][p]) / 2 for p in of["liver"]}

    def decide(*references: Level) -> Decision:
        both = {"challenger_labels": ours, "champion_labels": champion}
        return judge(mean(ours), mean(champion), None, MARGIN, references=references, **both)

    assert decide().serves
    assert decide(Level(even(0.7), {"cyst": even(0.51)})).serves
    fell = decide(Level(even(0.7), {"cyst": even(0.5)}), Level(even(0.9), {"liver": even(0.9)}))
    assert not fell.serves
    assert "set the level" in fell.reason


def test_single_labels_have_their_own_margin() -> None:
    ours, theirs = {"liver": even(0.95), "tumour": even(0.46)}, {"liver": even(0.92), "tumour": even(0.5)}
    both = {"challenger_labels": ours, "champion_labels": theirs}
    tight = judge(even(0.7), even(0.7), None, MARGIN, **both)
    assert not tight.serves
    assert "'tumour' fell by 0.040" in tight.reason
    assert judge(even(0.7), even(0.7), None, MARGIN, label_margins={"tumour": 0.05}, **both).serves
    strict = judge(even(0.7), even(0.7), None, MARGIN, label_margins={"tumour": 0.03}, **both)
    assert "margin 0.030" in strict.reason


class TestLabelsChanged:
    def test_shared_labels_are_compared_and_new_ones_beat_the_baseline(self) -> None:
        ours, theirs = {"liver": even(0.9), "cyst": even(0.4)}, {"liver": even(0.9)}

        def decide(cyst: float) -> Decision:
            # by the mean over all labels the challenger looks far worse; only the shared one is comparable
            labels = {"challenger_labels": ours, "champion_labels": theirs, "baseline_labels": {"cyst": even(cyst)}}
            return judge(even(0.65), even(0.9), even(0.1), MARGIN, **labels)

        assert decide(0.3).serves
        refused = decide(0.4)
        assert not refused.serves
        assert "new label 'cyst'" in refused.reason

    def test_a_dropped_label_is_left_out(self) -> None:
        ours, theirs = {"liver": even(0.9)}, {"liver": even(0.9), "cyst": even(0.99)}
        decision = judge(even(0.9), even(0.945), None, MARGIN, challenger_labels=ours, champion_labels=theirs)
        assert decision.serves
        assert decision.difference == pytest.approx(0)

    @pytest.mark.parametrize("theirs", [{"liver": even(0.9)}, {}])
    def test_nothing_shared_is_a_first_model(self, theirs: dict[str, Scores]) -> None:
        ours = {"spleen": even(0.5)}
        champion = theirs.get("liver", {})

        def decide(baseline: float) -> Decision:
            labels = {"challenger_labels": ours, "champion_labels": theirs}
            return judge(even(0.5), champion, even(baseline), MARGIN, shared=False, **labels)

        assert decide(0.3).serves
        assert decide(0.3).first
        assert not decide(0.5).serves
        assert "judged as a first model" in decide(0.5).reason

    def test_a_champion_that_cannot_be_measured_is_no_reason_to_serve(self) -> None:
        ours = {"liver": even(0.45)}
        held = judge(even(0.45), {}, even(0.2), MARGIN, challenger_labels=ours, champion_labels={}, shared=True)
        assert held.held
        assert not held.serves
        assert "could not be measured on any of the 8" in held.reason

    def test_studies_that_only_the_challenger_cannot_answer_are_no_way_round(self) -> None:
        assert judge(even(0.9), even(0.9), None, MARGIN).serves
        refused = judge(even(0.9), even(0.9), None, MARGIN, unanswered=3)
        assert not refused.serves
        assert "no answer for 3 held-out studies" in refused.reason

    def test_a_label_without_held_out_labels_is_asked_for_once_it_has_some(self) -> None:
        names = ("liver", "cyst")
        one = {"liver": even(0.9)}
        first = judge(even(0.9), None, even(0.1), MARGIN, challenger_labels=one, names=names)
        assert (first.serves, first.provisional, first.proven, first.needed) == (True, True, ["liver"], 6)
        assert "'cyst' has 0" in first.reason

        both, was = {**one, "cyst": even(0.0)}, {**one, "cyst": even(0.0)}
        more = {"challenger_labels": both, "champion_labels": was, "names": names, "proven": first.proven}
        level = judge(even(0.45), even(0.45), even(0.1), MARGIN, baseline_labels={"cyst": even(0.5)}, **more)
        assert not level.serves
        assert "'cyst' was never shown to beat it" in level.reason
        better = judge(even(0.45), even(0.45), even(0.1), MARGIN, baseline_labels={"cyst": even(-0.5)}, **more)
        assert (better.serves, better.provisional, better.proven) == (True, False, ["liver", "cyst"])

    def test_no_held_out_label_is_not_a_first_model(self) -> None:
        assert judge({}, {}, {}, MARGIN, challenger_labels={}, champion_labels={}).held


class TestReconcile:
    good, bad = judge(even(0.9), even(0.9), None, MARGIN), judge(even(0.5), even(0.9), None, MARGIN)

    def test_agreement_stands(self) -> None:
        assert reconcile(self.good, self.good, ["ann"]) is self.good
        assert reconcile(self.bad, self.bad, ["ann"]) is self.bad

    def test_without_earlier_patients_there_is_one_judgement(self) -> None:
        assert reconcile(self.good, None, ["ann"]) is self.good
        assert reconcile(self.good, judge({}, {}, None, MARGIN), ["ann"]) is self.good

    @pytest.mark.parametrize("order", [1, -1])
    def test_disagreement_waits_for_a_person(self, order: int) -> None:
        with_batch, without = (self.good, self.bad)[::order]
        decision = reconcile(with_batch, without, ["ann", "bob"])
        assert decision.held
        assert not decision.serves
        assert not decision.superior
        for part in ("ann, bob", with_batch.reason, without.reason, "radloop labels revoke", "radloop model rollback"):
            assert part in decision.reason
        assert Decision(**json.loads(json.dumps(decision.as_dict(), allow_nan=False))) == decision


@settings(deadline=None)
@given(few_differences, st.floats(-0.2, 0.2), st.integers(0, 60))
def test_the_same_on_both_sides_changes_nothing(differences: list[float], constant: float, looks: int) -> None:
    rounded = [round(d, 4) for d in differences]
    plain = judge(patients(*(0.5 + d for d in rounded)), patients(*[0.5] * len(rounded)), None, MARGIN, looks=looks)
    moved = judge(
        patients(*(0.5 + d + constant for d in rounded)),
        patients(*[0.5 + constant] * len(rounded)),
        None,
        MARGIN,
        looks=looks,
    )
    assert moved.difference == pytest.approx(plain.difference)
    if plain.lower is None or abs(plain.lower + MARGIN) > 1e-7:
        assert moved.serves == plain.serves


@settings(deadline=None)
@given(few_differences, st.floats(0, 0.3), st.integers(0, 60), st.booleans())
def test_a_loss_of_every_patient_never_turns_refusal_into_serving(
    differences: list[float], loss: float, looks: int, with_reference: bool
) -> None:
    def decide(less: float) -> Decision:
        flat = patients(*[0.5] * len(differences))
        new = patients(*(0.5 + d - less for d in differences))
        return judge(new, flat, None, MARGIN, looks=looks, references=[Level(flat, {})] if with_reference else [])

    assert decide(0.0).serves or not decide(loss).serves


@settings(deadline=None)
@given(few_differences, few_differences, st.integers(0, 60))
def test_reference_and_looks_only_ever_ask_for_more(differences: list[float], behind: list[float], looks: int) -> None:
    new, old = patients(*(0.5 + d for d in differences)), patients(*[0.5] * len(differences))
    reference = patients(*(0.5 + d for d in behind))
    asked_more = judge(new, old, None, MARGIN, references=[Level(reference, {})], looks=looks, proven=())
    assert judge(new, old, None, MARGIN).serves or not asked_more.serves


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([1, 3, 5, 6, 12]), st.integers(0, 49))
def test_the_resampled_rule_is_the_gates(benchmark_module: ModuleType, seed: int, n: int, looks: int) -> None:
    rng = np.random.default_rng(seed)
    new, old, best = 0.5 + rng.normal(rng.uniform(-0.03, 0.03, (3, 1, 1, 1)), 0.02, (3, 1, n, 2))
    alpha = alpha_of(looks)
    (serves, better), (level, above) = (benchmark_module.passes(new, of, MARGIN, alpha) for of in (old, best))

    def labels(of: np.ndarray) -> dict[str, Scores]:
        return {name: patients(*of[0, :, i]) for i, name in enumerate(("front", "back"))}

    def decide(**more) -> Decision:
        mean, theirs = (patients(*of[0].mean(axis=1)) for of in (new, old))
        both = {"challenger_labels": labels(new), "champion_labels": labels(old)}
        return judge(mean, theirs, None, MARGIN, looks=looks, **both, **more)

    alone = decide()
    beside = decide(references=[Level(patients(*best[0].mean(axis=1)), labels(best))])
    assert (alone.serves, alone.superior) == (bool(serves[0]), bool(better[0]))
    assert beside.serves == bool(serves[0] and level[0])
    assert beside.superior == bool(serves[0] and level[0] and better[0] and above[0])
    assert reconcile(alone, beside, []).held == (alone.serves != beside.serves)


def test_the_resampled_models_lose_exactly_what_is_asked(benchmark_module: ModuleType) -> None:
    rng = np.random.default_rng(0)
    values = np.clip(rng.normal(0.9, 0.08, (30, 4, 2)), 0, 1)
    models = benchmark_module.Models(values, MARGIN)
    rows = rng.integers(30, size=(4000, 25))
    none = np.zeros((4000, 2))
    for loss in (0.0, 0.04, 0.3):
        drop = models.scores(rng, rows, none) - models.scores(rng, rows, none + loss)
        assert drop.mean() == pytest.approx(loss, abs=1e-3)
