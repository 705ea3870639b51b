"""What an empty mask and an empty segment say, and that none is lost."""

from __future__ import annotations

import pytest

from radloop.recipes.errors import BadLabel
from radloop.studies.accept import accept_label

BOTH = [{"name": "liver", "idx": 1}, {"name": "spleen", "idx": 2}]


def test_sending_the_same_empty_mask_again_confirms_it(folder, ledger, organs, draw):
    def send(author="Ada", **more):
        return accept_label(folder, ledger, organs, "a", draw(), author=author, champion_found=lambda: True, **more)

    held = send()
    assert send("Ben").state == "held"  # another reader's word is their own
    row = send()
    assert (row.state, row.parent, row.checksum) == ("final", held.id, held.checksum)
    assert ledger.latest("a", "organs") == row
    assert (folder.final_dir / "a.nii.gz").is_file()
    assert send().state == "final"  # and is not asked a third time


def test_the_same_empty_mask_again_is_the_newest_word_also_after_somebody_else_s(folder, ledger, organs, draw):
    def send(*values, author):
        return accept_label(folder, ledger, organs, "a", draw(*values), author=author, champion_found=lambda: True)

    assert send(author="Ada").state == "held"
    between = send(1, author="Ben")
    row = send(author="Ada")
    assert (row.state, row.parent) == ("final", between.id)
    assert ledger.latest("a", "organs") == row


def test_only_the_same_again_confirms(folder, ledger, organs, draw):
    def send(*values, info=None):
        file = draw(*values)
        return accept_label(
            folder, ledger, organs, "a", file, author="Ada", label_info=info, champion_found=lambda: True
        )

    assert send(info=BOTH[:1]).state == "held"
    assert send(info=BOTH).state == "held"  # says more than before
    ledger.revoke(ids=[ledger.history()[-1].id])
    assert send(info=BOTH).state == "held"  # that was taken back
    assert send(1, info=BOTH).state == "final"
    assert send(info=BOTH).state == "held"  # the last word was another
    ledger.confirm(ledger.history()[-1].id, author="Ben")
    assert send(info=BOTH).state == "final"


def test_an_empty_mask_is_kept_when_the_model_cannot_answer(folder, ledger, organs, draw):
    def fail() -> bool:
        msg = "CUDA out of memory"
        raise RuntimeError(msg)

    row = accept_label(folder, ledger, organs, "a", draw(), author="Ada", champion_found=fail)
    assert row.state == "held"
    assert "CUDA out of memory" in row.note
    assert accept_label(folder, ledger, organs, "a", draw(), author="Ada", champion_found=fail).parent == row.id


@pytest.mark.parametrize(
    ("values", "shown", "absent", "names"),
    [
        ((1,), "", False, ("liver",)),  # nobody knows whether the spleen was looked for
        ((1,), "3", False, ("liver", "spleen")),
        ((1,), "proposal", False, ("liver", "spleen")),
        ((1,), "", True, ("liver", "spleen")),
        ((1, 2), "", False, ("liver", "spleen")),
        ((), "", False, ("liver", "spleen")),
    ],
)
def test_a_mask_speaks_for_the_names_it_shows(folder, ledger, organs, draw, values, shown, absent, names):
    info = [BOTH[0], {**BOTH[1], "absent": True} if absent else BOTH[1]]
    row = accept_label(folder, ledger, organs, "a", draw(*values), author="Ada", label_info=info, shown_version=shown)
    assert row.names == names


def test_names_in_a_file_follow_the_same_rule(folder, ledger, organs, draw):
    file = draw(2, name="mask.seg.nrrd", names={"liver": 1, "spleen": 2})
    assert accept_label(folder, ledger, organs, "a", file, author="Ada").names == ("spleen",)
    known = accept_label(folder, ledger, organs, "a", draw(2), author="Ada", values={"liver": 1, "spleen": 2})
    assert known.names == ("liver", "spleen")


def test_another_recipes_voxels_do_not_make_names_unseen(folder, ledger, organs, bones, draw):
    info = [*BOTH, {"name": "rib", "idx": 3}]
    row = accept_label(folder, ledger, organs, "a", draw(3), author="Ada", label_info=info, others=[bones])
    assert row.names == ("liver", "spleen")


def test_a_draft_is_neither_held_nor_shown(folder, ledger, organs, draw):
    row = accept_label(folder, ledger, organs, "a", draw(), author="Ada", state="draft", champion_found=lambda: True)
    assert row.state == "draft"
    assert ledger.latest("a", "organs") is None
    assert not folder.final_dir.exists()
    with pytest.raises(BadLabel):
        accept_label(folder, ledger, organs, "a", draw(7), author="Ada", state="draft")
