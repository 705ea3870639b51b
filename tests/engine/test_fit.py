from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from radloop.engine.fit import Budget, Cancelled, Progress, fit, peak_share
from radloop.recipes.errors import BadInput, NotFound, RadloopError
from radloop.recipes.recipe import Recipe
from radloop.studies.cases import Case

MakeCase = Callable[..., Case]


def changed(recipe: Recipe, **fit_values: object) -> Recipe:
    return Recipe.model_validate(recipe.model_dump() | {"fit": recipe.fit.model_dump() | fit_values})


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / "model.pt", weights_only=True)["state_dict"]


@pytest.fixture
def out(tmp_path: Path) -> Path:
    folder = tmp_path / "out"
    folder.mkdir()
    return folder


def test_training_lowers_the_loss_and_reports(
    toy_recipe: Recipe, make_case: MakeCase, out: Path, tmp_path: Path
) -> None:
    seen: list[Progress] = []
    cases = [make_case(i) for i in (2, 0, 1)]
    report = fit(toy_recipe, cases, out, cache=tmp_path / "c", epochs=6, threads=1, progress=seen.append)
    assert report.epochs == 6
    assert report.steps == 30
    assert report.losses[-1] < report.losses[0]
    assert report.used == (0, 1, 2)
    assert report.skipped == ()
    assert seen[-1].step == 30
    assert seen[-1].epoch == seen[-1].epochs == 6
    assert [p.share for p in seen] == sorted(p.share for p in seen)
    assert list(out.iterdir()) == [out / "model.pt"]


def test_same_seed_epochs_and_threads_give_the_same_bits(
    toy_recipe: Recipe, make_case: MakeCase, out: Path, tmp_path: Path
) -> None:
    cases = [make_case(i, shape=(24, 24, 24)) for i in range(2)]
    found = []
    for seed in (1, 1, 2):
        torch.manual_seed(99)  # the caller's own random state must not matter
        torch.rand(len(found) + 1)
        fit(toy_recipe, cases, out, cache=tmp_path / "c", epochs=2, seed=seed, threads=2)
        found.append(weights(out))
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])
    assert not all(torch.equal(found[0][name], found[2][name]) for name in found[0])


def test_unreadable_cases_are_skipped_and_named(
    toy_recipe: Recipe, make_case: MakeCase, out: Path, tmp_path: Path
) -> None:
    cases = [make_case(0), make_case(1)]
    cases[1].channels[0].write_text("no image")
    report = fit(toy_recipe, cases, out, cache=tmp_path / "c", epochs=1, threads=1)
    assert report.used == (0,)
    assert [study for study, _ in report.skipped] == ["s1"]


def test_nothing_readable_is_an_error(toy_recipe: Recipe, make_case: MakeCase, out: Path, tmp_path: Path) -> None:
    case = make_case(0)
    case.channels[0].write_text("no image")
    with pytest.raises(BadInput, match="none of 1 cases"):
        fit(toy_recipe, [case], out, cache=tmp_path / "c", epochs=1, threads=1)
    assert not list(out.iterdir())


@pytest.mark.parametrize("calls", [0, 3, 6])
def test_cancelling_leaves_nothing_behind(
    calls: int, toy_recipe: Recipe, make_case: MakeCase, out: Path, tmp_path: Path
) -> None:
    asked = 0

    def cancelled() -> bool:
        nonlocal asked
        asked += 1
        return asked > calls

    with pytest.raises(Cancelled, match="was cancelled"):
        fit(toy_recipe, [make_case(0)], out, cache=tmp_path / "c", epochs=5, threads=1, cancelled=cancelled)
    assert not list(out.iterdir())
    assert not list((tmp_path / "c").rglob(".making-*"))


def test_minutes_are_kept(toy_recipe: Recipe, make_case: MakeCase, out: Path, tmp_path: Path) -> None:
    seen: list[Progress] = []
    report = fit(toy_recipe, [make_case(0)], out, cache=tmp_path / "c", minutes=0.05, threads=1, progress=seen.append)
    assert 1 < report.seconds < 5
    assert seen[-1].share > 0.5


@pytest.mark.parametrize(
    ("given", "told"),
    [({"epochs": 0}, "epochs = 0"), ({"minutes": -1.0}, "minutes = -1"), ({"epochs": 1, "minutes": 1.0}, "give one")],
)
def test_wrong_budgets_are_refused(given: dict[str, float], told: str, toy_recipe: Recipe) -> None:
    with pytest.raises(BadInput, match=told):
        Budget.of(toy_recipe, given.get("epochs"), given.get("minutes"))  # type: ignore[arg-type]


def test_the_recipe_gives_the_budget_where_nobody_else_does(toy_recipe: Recipe) -> None:
    assert Budget.of(toy_recipe, None, None) == Budget(10, None)
    assert Budget.of(changed(toy_recipe, minutes=2.0), None, None) == Budget(None, 120.0)


def test_starting_from_weights_continues_from_them(
    toy_recipe: Recipe, make_case: MakeCase, out: Path, tmp_path: Path
) -> None:
    cases, cache, first = [make_case(i) for i in range(3)], tmp_path / "c", tmp_path / "first"
    first.mkdir()
    begun = fit(toy_recipe, cases, first, cache=cache, epochs=8, threads=1)
    went_on = fit(toy_recipe, cases, out, cache=cache, epochs=1, start=first / "model.pt", threads=1)
    assert went_on.losses[0] < begun.losses[0] - 0.1


def test_weights_that_do_not_fit_are_refused(
    toy_recipe: Recipe, make_case: MakeCase, out: Path, tmp_path: Path
) -> None:
    cases, cache = [make_case(0)], tmp_path / "c"
    fit(toy_recipe, cases, out, cache=cache, epochs=1, threads=1)
    wider = Recipe.model_validate(
        toy_recipe.model_dump() | {"network": toy_recipe.network.model_dump() | {"features": (8, 16, 24)}}
    )
    with pytest.raises(BadInput, match="do not fit the recipe's network"):
        fit(wider, cases, out, cache=cache, epochs=1, start=out / "model.pt", threads=1)
    with pytest.raises(NotFound, match="do not exist"):
        fit(toy_recipe, cases, out, cache=cache, epochs=1, start=tmp_path / "none.pt", threads=1)
    (tmp_path / "bad.pt").write_bytes(b"\x80\x04 not tensors")
    with pytest.raises(BadInput, match="cannot be read"):
        fit(toy_recipe, cases, out, cache=cache, epochs=1, start=tmp_path / "bad.pt", threads=1)


def test_code_in_a_checkpoint_is_never_run(toy_recipe: Recipe, make_case: MakeCase, out: Path, tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (tmp_path / "sprung",))

    torch.save({"state_dict": Trap()}, tmp_path / "trap.pt")
    with pytest.raises(BadInput, match="cannot be read"):
        fit(toy_recipe, [make_case(0)], out, cache=tmp_path / "c", epochs=1, start=tmp_path / "trap.pt", threads=1)
    assert not (tmp_path / "sprung").exists()


def test_divergence_is_told(toy_recipe: Recipe, make_case: MakeCase, out: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    fit(toy_recipe, [make_case(0)], broken, cache=tmp_path / "c", epochs=1, threads=1)
    state = {name: torch.full_like(value, torch.nan) for name, value in weights(broken).items()}
    torch.save({"state_dict": state}, broken / "model.pt")
    with pytest.raises(RadloopError, match=r"diverged.*lower fit\.learning_rate"):
        fit(toy_recipe, [make_case(0)], out, cache=tmp_path / "c", epochs=9, start=broken / "model.pt", threads=1)
    assert not list(out.iterdir())


def test_the_caller_keeps_threads_and_random_state(
    toy_recipe: Recipe, make_case: MakeCase, out: Path, tmp_path: Path
) -> None:
    before = torch.get_num_threads(), torch.random.get_rng_state()
    fit(toy_recipe, [make_case(0)], out, cache=tmp_path / "c", epochs=1, threads=2 if before[0] == 1 else 1)
    assert torch.get_num_threads() == before[0]
    assert torch.equal(torch.random.get_rng_state(), before[1])


def test_partial_labels_train(toy_recipe: Recipe, make_case: MakeCase, out: Path, tmp_path: Path) -> None:
    cases = [make_case(0, names=("bright",)), make_case(1, names=("dark",)), make_case(2)]
    assert fit(toy_recipe, cases, out, cache=tmp_path / "c", epochs=2, threads=1).losses[-1] > 0


def test_the_learning_rate_rises_then_falls_to_nothing() -> None:
    rates = [peak_share(i / 100) for i in range(101)]
    assert rates.index(max(rates)) == 5
    assert max(rates) == pytest.approx(1)
    assert rates[100] == pytest.approx(0, abs=1e-6)
    assert rates[5:] == sorted(rates[5:], reverse=True)
