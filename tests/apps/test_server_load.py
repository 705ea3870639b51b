"""A server under load and at its end; minutes, so marked slow."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
import requests

pytestmark = pytest.mark.slow
LONG = {"epochs": 100_000}


@pytest.fixture
def own(tmp_path: Path, kit: SimpleNamespace) -> Iterator:
    """A server with labels enough to train, for one test alone."""
    running = kit.Server(tmp_path / "own", studies=10)
    mask = kit.mask_file(tmp_path / "m.nii.gz")
    for number in range(10):
        assert running.save(f"s{number:02d}", mask, json.dumps({"model": "tiny"})).status_code == 200
    yield running
    running.stop()


def train(own) -> psutil.Process:
    """Starts a training that would take days; gives its process once it steps."""
    assert own.post("/train/tiny", json=LONG).status_code == 200
    file = own.home / "progress" / "tiny.json"
    until = time.monotonic() + 120
    while time.monotonic() < until:
        known = json.loads(file.read_text()) if file.is_file() else {}
        if known.get("epoch", 0) >= 1:
            return psutil.Process(known["pid"])
        time.sleep(0.2)
    pytest.fail(own.log.read_text()[-2000:])


def test_info_is_quick_while_an_answer_and_a_training_run(own, kit: SimpleNamespace, record_property) -> None:
    kit.publish(own.home)
    training = train(own)
    stop = threading.Event()

    def infer() -> None:
        while not stop.is_set():
            own.post("/infer/tiny", params={"image": "s00", "output": "json"})

    reader = threading.Thread(target=infer)
    reader.start()
    session, seconds = requests.Session(), []
    try:
        for _ in range(300):
            started = time.perf_counter()
            assert session.get(f"{own.url}/info/", timeout=30).status_code == 200
            seconds.append(time.perf_counter() - started)
            time.sleep(0.02)
    finally:
        stop.set()
        reader.join()
    assert training.is_running()
    p99 = float(np.quantile(seconds, 0.99))
    record_property("info_p99_seconds", p99)
    assert p99 < 0.2, f"p50 {np.median(seconds):.3f} s, p99 {p99:.3f} s, worst {max(seconds):.3f} s"


def test_a_second_training_is_refused_and_stopping_works(own, kit: SimpleNamespace) -> None:
    training = train(own)
    reply = own.post("/train/tiny", json=LONG)
    assert reply.status_code == 409
    assert "DELETE /train/" in kit.error_of(reply)
    assert own.delete("/train/").json()["status"] == "STOPPED"
    training.wait(10)
    stats = own.get("/info/").json()["train_stats"]["tiny"]
    assert stats["state"] == "stopped"
    assert own.post("/train/tiny", json={"epochs": 1}).status_code == 200


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_training_ends_with_its_server(own, number: signal.Signals) -> None:
    training = train(own)
    own.stop(number)
    training.wait(5)
    versions = list((own.home / "versions" / "tiny").glob("[0-9]*"))
    assert not versions
    own.start()
    from radloop.studies.home import Home
    from radloop.studies.ledger import Ledger

    assert Ledger(Home(own.home)).last_training("tiny").state == "failed"
    assert own.get("/datastore/").json()["completed"] == 10
    assert own.post("/train/tiny", json={"epochs": 1}).status_code == 200


def test_labels_start_a_training_where_the_recipe_asks(own, kit: SimpleNamespace, tmp_path: Path) -> None:
    mask = kit.mask_file(tmp_path / "v.nii.gz")
    started = []
    for number in range(10):
        reply = own.save(f"s{number:02d}", mask, json.dumps({"model": "second"})).json()
        started += reply.get("training_started", [])
    assert started == ["second"]  # after two labels, and none beside it
    until = time.monotonic() + 120
    while own.get("/train/").json()["status"] in ("SUBMITTED", "RUNNING") and time.monotonic() < until:
        time.sleep(0.5)
    assert own.get("/train/").json()["status"] == "DONE"
    assert own.get("/info/").json()["train_stats"]["second"]["version"] == 1


def test_without_the_guard_the_server_works_and_warns(tmp_path: Path, kit: SimpleNamespace) -> None:
    bare = kit.Server(tmp_path / "bare", studies=2, guarded=False)
    try:
        assert bare.get("/info/").json()["name"] == "radloop"
        assert "this server has no guard" in bare.log.read_text()
        reply = bare.post("/infer/tiny", params={"image": "/etc/passwd", "output": "json"})
        assert reply.status_code == 500
        assert "root:" not in reply.text
    finally:
        bare.stop()


def test_a_version_judged_on_retracted_labels_is_followed_by_a_training(own, kit: SimpleNamespace) -> None:
    from radloop.studies.home import Home
    from radloop.studies.ledger import Ledger

    kit.publish(own.home, held_out_labels=[1])
    ledger = Ledger(Home(own.home))
    ledger.revoke(ids=[1])
    until = time.monotonic() + 180
    while ledger.last_training("tiny") is None or ledger.last_training("tiny").state == "running":
        assert time.monotonic() < until, own.log.read_text()[-2000:]
        time.sleep(0.2)
    assert ledger.last_training("tiny").state == "done"
