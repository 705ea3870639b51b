"""Files are there whole or not at all, and the reason is told in one line."""

from __future__ import annotations

import errno
import os

import pytest

from radloop.recipes.errors import NoSpace
from radloop.studies.files import write_whole


def full() -> OSError:
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_file_that_cannot_be_finished_leaves_nothing(tmp_path):
    def write(temporary):
        temporary.write_text("half")
        raise full()

    (tmp_path / "a.txt").write_text("before")
    with pytest.raises(NoSpace, match=r"cannot write a\.txt"):
        write_whole(tmp_path / "a.txt", write)
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
    assert (tmp_path / "a.txt").read_text() == "before"


def test_what_cannot_be_taken_away_hides_no_error(tmp_path):
    def write(temporary):
        # as on a disk that turned read-only, the temporary file cannot be removed
        temporary.mkdir()
        raise full()

    with pytest.raises(NoSpace, match=r"cannot write a\.txt"):
        write_whole(tmp_path / "a.txt", write)
