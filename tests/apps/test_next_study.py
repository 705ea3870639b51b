"""The next study over HTTP: six readers at once, skip and release, readers without a name."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest
import requests

READERS, TURNS = 6, 5


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory, kit: SimpleNamespace) -> Iterator[SimpleNamespace]:
    """A server of its own, with a study for everybody."""
    running = kit.Server(tmp_path_factory.mktemp("desk"), studies=READERS * TURNS + 3)
    yield running
    running.stop()


def ask(desk: SimpleNamespace, reader: str, strategy: str = "auto", **more: str) -> dict:
    reply = desk.post(f"/activelearning/{strategy}", json={"client_id": reader, **more})
    assert reply.status_code == 200, reply.text
    return reply.json()


def test_six_readers_at_once_are_given_no_study_twice(desk: SimpleNamespace, kit: SimpleNamespace) -> None:
    def read(reader: int) -> list[str]:
        return [ask(desk, f"reader-{reader}", "random")["id"] for _ in range(TURNS)]

    with ThreadPoolExecutor(READERS) as crowd:
        given = [(reader, i) for reader, ids in enumerate(crowd.map(read, range(READERS))) for i in ids]
    assert len({study for _, study in given}) == READERS * TURNS
    for reader, study in given:
        assert ask(desk, f"reader-{reader}", release=study) == {}


def test_skip_gives_another_and_release_gives_back(desk: SimpleNamespace) -> None:
    first = ask(desk, "a")
    assert first["name"] == f"{first['id']}.nii.gz"
    assert first["strategy"]["auto"]["client_id"] == "a"
    second = ask(desk, "a", skip=first["id"])
    assert second["id"] != first["id"]
    assert ask(desk, "a", release=second["id"]) == {}


def test_what_cannot_be_asked_is_said(desk: SimpleNamespace, kit: SimpleNamespace) -> None:
    reply = desk.post("/activelearning/auto", json={"skip": "s00", "release": "s01"})
    assert "not both" in kit.error_of(reply)
    reply = desk.post("/activelearning/auto", json={"release": "../x"})
    assert reply.status_code == 400
    assert "did you mean 's00'" in kit.error_of(desk.post("/activelearning/auto", json={"release": "s0000"}))
    assert "did you mean 'coverage'" in kit.error_of(desk.post("/activelearning/covrage", json={}))


def test_browsers_without_a_name_are_told_apart_by_a_cookie(desk: SimpleNamespace) -> None:
    url = f"{desk.url}/activelearning/random"
    with requests.Session() as one, requests.Session() as other:
        first = one.post(url, json={}, timeout=60)
        assert "radloop_reader" in first.cookies
        assert "HttpOnly" in first.headers["set-cookie"]
        again = one.post(url, json={}, timeout=60)
        assert "set-cookie" not in again.headers
        named = requests.post(url, json={"client_id": "x"}, timeout=60)
        assert "set-cookie" not in named.headers
        study = first.json()["id"]
        other.post(url, json={"release": study}, timeout=60)
        skipped = {one.post(url, json={"skip": study}, timeout=60).json()["id"]}
        assert study not in skipped
        for session, reply in ((one, again), (one, first)):
            session.post(url, json={"release": reply.json()["id"]}, timeout=60)


def test_viewers_are_shown_every_strategy_and_images_are_looked_at_meanwhile(desk: SimpleNamespace) -> None:
    listed = list(desk.get("/info/").json()["strategies"])
    assert listed[0] == "auto"
    assert {"random", "coverage", "entropy", "foreground", "clasp_pe", "mix", "mutual_information"} < set(listed)
    assert Path(desk.home, "cache", "scores", "scores.db").is_file()
