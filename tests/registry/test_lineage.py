"""From labels to the versions that learned from them, also through the versions these started from."""

from __future__ import annotations

from radloop.registry.lineage import ancestors, last_row_named, tainted, used_retracted, uses
from radloop.studies.ledger import Ledger


def _told(registry, rows, recipe=None):
    return [(u.version.number, u.trained, u.inherited, u.judged) for u in uses(registry, rows, recipe)]


def test_labels_are_followed_through_what_a_version_started_from(registry, publish):
    publish(labels=[1, 2], held_out_labels=[9])
    publish(labels=[2, 3], started_from=1)
    publish(labels=[4], started_from=2, held_out_labels=[1])
    publish(labels=[4])
    assert _told(registry, [1]) == [(1, (1,), (), ()), (2, (), (1,), ()), (3, (), (1,), (1,))]
    assert _told(registry, [2, 3]) == [(1, (2,), (), ()), (2, (2, 3), (), ()), (3, (), (2, 3), ())]
    assert _told(registry, [9], "liver") == [(1, (), (), (9,))]
    assert _told(registry, [9], "spleen") == _told(registry, []) == []
    versions = registry.versions("liver")
    assert [version.number for version in ancestors(versions[2], lambda _: versions)] == [2, 1]


def test_a_damaged_version_and_a_circle_break_nothing(registry, publish):
    publish(labels=[1])
    lost = publish(labels=[1], started_from=3)
    publish(labels=[5], started_from=2)
    publish(labels=[6], started_from=4)
    publish(labels=[7], started_from=99)
    (lost.dir / "manifest.json").write_text("{")
    assert [number for number, *_ in _told(registry, [1, 5, 6, 7])] == [1, 3, 4, 5]


def test_only_what_learned_from_retracted_labels_is_tainted(home, registry, publish, tmp_path):
    ledger = Ledger(home)
    (tmp_path / "m.nii.gz").write_bytes(b"mask")
    for study in "abc":
        ledger.add(study, study, "liver", "Ada", tmp_path / "m.nii.gz", ".nii.gz", ["liver"])
    publish(labels=[1], held_out_labels=[2])
    publish(labels=[3], started_from=1)
    publish(labels=[3], held_out_labels=[1])
    assert tainted(registry, ledger, "liver") == []
    ledger.revoke(ids=[2])
    assert tainted(registry, ledger, "liver") == []
    assert [version.number for version in used_retracted(registry, ledger, "liver")] == [1]
    ledger.revoke(ids=[1])
    assert [version.number for version in tainted(registry, ledger, "liver")] == [1, 2]
    assert [version.number for version in used_retracted(registry, ledger, "liver")] == [1, 2, 3]


def test_the_largest_row_that_a_version_names(home, publish):
    assert last_row_named(home) == 0
    publish(labels=[1, 2], held_out_labels=[9])
    assert last_row_named(home) == 9
    (publish(labels=[11]).dir / "manifest.json").write_text("{")
    publish(labels=[3], last_row=10)
    assert last_row_named(home) == 10
