"""Where state is kept."""

from __future__ import annotations

from pathlib import Path

import pytest

from radloop.recipes.errors import BadInput, NotFound
from radloop.studies.home import Home


def test_beside_the_studies_by_default(tmp_path):
    home = Home.find(tmp_path)
    assert home.path == tmp_path / ".radloop"
    assert not home.path.exists()
    assert home.labels == tmp_path / ".radloop" / "labels"
    assert home.labels.is_dir()


def test_where_the_user_says_before_where_the_environment_says(tmp_path, monkeypatch):
    monkeypatch.setenv("RADLOOP_HOME", str(tmp_path / "env"))
    assert Home.find(tmp_path).path == tmp_path / "env"
    assert Home.find(tmp_path, tmp_path / "said").path == tmp_path / "said"


@pytest.mark.parametrize("url", ["https://pacs.example/dicom-web", Path("http://pacs.example/dicom-web")])
def test_a_server_keeps_no_state_for_us(url, tmp_path):
    with pytest.raises(BadInput, match="--home"):
        Home.find(url)
    assert Home.find(url, tmp_path).path == tmp_path


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(NotFound, match="no-such"):
        Home.find(tmp_path / "no-such")


def test_every_part_is_made_when_asked_for(tmp_path):
    home = Home(tmp_path / "h")
    parts = [home.labels, home.versions, home.cache, home.app, home.recipes, home.sessions, home.logs, home.view]
    assert all(part.is_dir() and part.parent == home.path for part in parts)
    assert len(set(parts)) == len(parts)
    assert home.registry_db.parent == home.path


def test_the_ledger_is_where_the_environment_says(tmp_path, monkeypatch):
    assert Home(tmp_path).ledger_url == f"sqlite:///{tmp_path / 'ledger.db'}"
    monkeypatch.setenv("RADLOOP_LEDGER", "postgresql://db/ledger")
    assert Home(tmp_path).ledger_url == "postgresql://db/ledger"
