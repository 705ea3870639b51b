"""What the gate is given: both held-out sets, the reference, blind labels first, labels by name."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from radloop.engine.assess import assess
from radloop.engine.fit import fit
from radloop.engine.predictor import Predictor
from radloop.engine.train import train_version
from radloop.engine.verdict import HeldOut, Opponents, Verdict, blind_first
from radloop.recipes.recipe import Recipe
from radloop.registry.registry import Registry
from radloop.registry.version import HELD, Version
from radloop.studies.cases import Case, labelled_cases, read_label
from radloop.studies.folder import StudiesFolder
from radloop.studies.home import Home
from radloop.studies.ledger import Ledger
from radloop.studies.split import SIDES

MakeCase = Callable[..., Case]
NAMES = ("bright", "dark")


@dataclasses.dataclass
class House:
    """Labelled studies, and a champion trained on them."""

    folder: StudiesFolder
    home: Home
    ledger: Ledger
    masks: dict[str, Path]


@pytest.fixture
def house(make_case: MakeCase, tmp_path: Path) -> House:
    folder, home = tmp_path / "studies", Home(tmp_path / "home")
    folder.mkdir()
    found = House(StudiesFolder(folder), home, Ledger(home), {})
    for number in range(16):
        case = make_case(number, shape=(16, 16, 16))
        case.channels[0].rename(folder / f"{case.study}.nii.gz")
        found.masks[case.study] = case.label
        found.ledger.add(case.study, case.study, "toy", "ann", case.label, ".nii.gz", NAMES, ids=NAMES)
    return found


def swapped(file: Path, to: Path) -> Path:
    image = nib.load(file)
    nib.save(nib.Nifti1Image(np.choose(np.asarray(image.dataobj), (0, 2, 1)).astype(np.uint8), image.affine), to)
    return to


def test_wrong_labels_on_both_sides_are_held_for_a_person_and_leave_no_trace_once_retracted(
    house: House, toy_recipe: Recipe, tmp_path: Path
) -> None:
    registry = Registry(house.home)
    train_version(house.folder, house.home, toy_recipe, epochs=12, threads=1)
    registry.rollback("toy", 1)
    for study, mask in house.masks.items():
        wrong = swapped(mask, tmp_path / f"{study}-wrong.nii.gz")
        house.ledger.add(study, study, "toy", "bob", wrong, ".nii.gz", NAMES, ids=NAMES)
    outcome = train_version(house.folder, house.home, toy_recipe, epochs=12, threads=1)
    assert outcome.version.state == HELD, outcome.version.reason
    assert "bob" in outcome.version.reason
    gate = outcome.version.manifest["gate"]
    assert gate["without"]["serves"] is False
    held_out = {c.row for c in labelled_cases(house.folder, house.ledger, toy_recipe, ("validation",))}
    assert set(gate["new_rows"]) == held_out
    champion = registry.champion("toy")
    assert champion is not None
    assert champion.number == 1

    # a person serves it all the same, then the labels are retracted: nothing starts from what they taught
    registry.rollback("toy", 2)
    house.ledger.revoke(author="bob")
    mended = train_version(house.folder, house.home, toy_recipe, epochs=1, threads=1)
    assert mended.version.manifest["started_from"] is None
    assert not set(mended.version.manifest["labels"]) & {row.id for row in house.ledger.history(author="bob")}


def test_the_version_that_is_kept_as_reference_is_written_down(house: House, toy_recipe: Recipe) -> None:
    registry = Registry(house.home)
    first = train_version(house.folder, house.home, toy_recipe, epochs=2, threads=1).version
    assert first.manifest["reference"] is None
    assert first.manifest["last_row"] == 16
    registry.rollback("toy", 1)
    second = train_version(house.folder, house.home, toy_recipe, epochs=1, threads=1)
    assert second.decision is not None
    assert second.version.manifest["judged_against"] == 1
    assert second.version.manifest["reference"] == (None if second.decision.superior else {"bright": 1, "dark": 1})


def test_labels_are_compared_by_name_when_a_recipe_renumbers_them(
    make_case: MakeCase, toy_recipe: Recipe, tmp_path: Path
) -> None:
    case = dataclasses.replace(make_case(0), ids=NAMES)
    other = Recipe.model_validate(toy_recipe.model_dump() | {"labels": {"dark": 1, "bright": 2}})
    then, now = (read_label(case, recipe.labels).array for recipe in (toy_recipe, other))
    assert np.array_equal(then == 1, now == 2)
    assert np.array_equal(then == 2, now == 1)
    fewer = read_label(case, {"dark": 1}).array
    assert np.array_equal(fewer, (then == 2).astype(np.uint8))

    fit(toy_recipe, [case], tmp_path, cache=tmp_path / "c", epochs=2, threads=1)
    old = Predictor(toy_recipe, tmp_path / "model.pt")
    renamed = dataclasses.replace(case, names=("bright", "new"))
    (score,) = assess(old, [renamed], surfaces=False).scores
    assert score.dice["bright"] is not None
    assert score.dice["dark"] is None
    assert "new" not in score.dice


def test_a_champion_of_other_labels_is_compared_on_those_it_shares(
    house: House, toy_recipe: Recipe, tmp_path: Path
) -> None:
    train_version(house.folder, house.home, toy_recipe, epochs=2, threads=1)
    Registry(house.home).rollback("toy", 1)
    turned = Recipe.model_validate(toy_recipe.model_dump() | {"labels": {"dark": 1, "bright": 2}})
    outcome = train_version(house.folder, house.home, turned, epochs=2, threads=1)
    manifest = outcome.version.manifest
    assert manifest["started_from"] is None
    champion = Registry(house.home).version("toy", 1).manifest
    assert manifest["champion"] == pytest.approx(champion["held_out"])


def test_a_recipe_with_other_channels_does_not_push_the_champion_aside(
    house: House, toy_recipe: Recipe, tmp_path: Path
) -> None:
    train_version(house.folder, house.home, toy_recipe, epochs=2, threads=1)
    Registry(house.home).rollback("toy", 1)
    for image in sorted(house.folder.path.glob("*.nii.gz")):
        name = image.name.removesuffix(".nii.gz")
        image.rename(image.with_name(f"{name}_0000.nii.gz"))
        shutil.copy(image.with_name(f"{name}_0000.nii.gz"), image.with_name(f"{name}_0001.nii.gz"))
    two = Recipe.model_validate(toy_recipe.model_dump() | {"channels": ["image", "again"]})
    outcome = train_version(StudiesFolder(house.folder.path, 2), house.home, two, epochs=12, threads=1)
    assert outcome.version.state == HELD, outcome.version.reason
    assert "could not be measured" in outcome.version.reason


def test_anchored_labels_of_before_do_not_speak_against_blind_ones(
    make_case: MakeCase, toy_recipe: Recipe, tmp_path: Path
) -> None:
    cases = [make_case(n, shape=(16, 16, 16)) for n in range(14)]
    fit(toy_recipe, cases[:4], tmp_path, cache=tmp_path / "c", epochs=2, threads=1)
    anchored = [dataclasses.replace(case, blind=False, row=n) for n, case in enumerate(cases[:7])]
    blind = [dataclasses.replace(case, blind=True, row=10 + n) for n, case in enumerate(cases[7:])]
    version = Version("toy", 1, tmp_path, {"number": 1, "state": "champion"})
    (tmp_path / "recipe.json").write_text(toy_recipe.model_dump_json())
    held_out = HeldOut([*anchored, *blind], anchored)
    verdict = Verdict(toy_recipe, cases[:4], held_out, tmp_path / "c")
    verdict.measure(tmp_path / "model.pt", Opponents(version, proven=NAMES), judged=True)
    assert verdict.decision is not None
    assert verdict.decision.n == 7
    assert verdict.without is not None
    assert verdict.without.n == 0


def test_blind_labels_decide_alone_once_there_are_six_patients_of_them(make_case: MakeCase) -> None:
    cases = [dataclasses.replace(make_case(n, shape=(16, 16, 16)), blind=n < 6) for n in range(8)]
    assert blind_first(cases) == cases[:6]
    assert blind_first(cases[1:]) == cases[1:]
    assert HeldOut(cases, cases[:3]).new == cases[3:]
    assert HeldOut(cases[2:], cases[:3]).every == cases


def test_the_ledger_as_it_was_for_the_champion_lacks_what_was_retracted_since(house: House, toy_recipe: Recipe) -> None:
    before = house.ledger.last_row()
    study, mask = next(iter(house.masks.items()))
    house.ledger.add(study, study, "toy", "bob", mask, ".nii.gz", NAMES, ids=NAMES)
    now = {c.study: c.row for c in labelled_cases(house.folder, house.ledger, toy_recipe, SIDES)}
    then = {c.study: c.row for c in labelled_cases(house.folder, house.ledger, toy_recipe, SIDES, until=before)}
    assert now[study] == before + 1
    assert then[study] <= before
    house.ledger.revoke(ids=[then[study]])
    then = {c.study: c.row for c in labelled_cases(house.folder, house.ledger, toy_recipe, SIDES, until=before)}
    assert study not in then
