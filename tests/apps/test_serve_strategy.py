from __future__ import annotations

from pathlib import Path

import pytest

from radloop.apps.cli import main


def test_a_strategy_that_is_none_is_refused_before_the_server_starts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve", "--studies", str(tmp_path), "--strategy", "entropie"]) == 1
    assert "there is no strategy 'entropie'; did you mean 'entropy'?" in capsys.readouterr().err


def test_the_server_is_told_what_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    from radloop.apps.next_case import desk_settings
    from radloop.recipes.errors import BadInput

    monkeypatch.setenv("RADLOOP_STRATEGY", "mix")
    monkeypatch.setenv("RADLOOP_HELD_OUT_EVERY", "3")
    assert desk_settings() == {"later": "mix", "held_out_every": 3}
    monkeypatch.setenv("RADLOOP_SEED", "x")
    with pytest.raises(BadInput, match="RADLOOP_SEED = 'x' is no whole number"):
        desk_settings()
