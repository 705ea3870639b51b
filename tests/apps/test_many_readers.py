"""Eight readers submit 200 labels at once, pairs to the same study: none is lost, one order, the latest shows."""

from __future__ import annotations

import gzip
import itertools
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
import requests

from radloop.studies.home import Home
from radloop.studies.ledger import Ledger, checksum

READERS, LABELS, STUDIES = 8, 25, 5


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.slow)])
def crowd(
    request: pytest.FixtureRequest, tmp_path: Path, kit: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> Iterator[SimpleNamespace]:
    """A server of its own, on either database."""
    if request.param == "postgres":
        monkeypatch.setenv("RADLOOP_LEDGER", request.getfixturevalue("postgres")())
    server = kit.Server(tmp_path, studies=STUDIES)
    yield server
    server.stop()


def test_eight_readers_at_once(crowd: SimpleNamespace, kit: SimpleNamespace) -> None:
    together = threading.Barrier(READERS)

    def read(reader: int) -> list[tuple[str, str, requests.Response]]:
        # readers 0 and 1 label the same studies in the same order, and so do 2 and 3, ...
        answers = []
        with requests.Session() as session:
            together.wait()
            for number in range(LABELS):
                study, who = f"s{(reader // 2 + number) % STUDIES:02d}", f"reader-{reader}"
                data = {"params": json.dumps({"model": "tiny", "client_id": who})}
                files = {"label": (f"{study}.nii.gz", mask(kit, reader * LABELS + number))}
                url = f"{crowd.url}/datastore/label?image={study}"
                answers.append((study, who, session.put(url, data=data, files=files, timeout=120)))
        return answers

    with ThreadPoolExecutor(READERS) as pool:
        answers = list(itertools.chain.from_iterable(pool.map(read, range(READERS))))
    assert [reply.text for _, _, reply in answers if not reply.ok] == []
    acknowledged = {saved["row"]: (study, who) for study, who, reply in answers for saved in reply.json()["saved"]}
    assert len(acknowledged) == READERS * LABELS

    ledger = Ledger(Home(crowd.home))
    rows = ledger.history()
    assert {row.id: (row.study, row.author) for row in rows} == acknowledged
    assert all(a.id < b.id and a.time < b.time for a, b in itertools.pairwise(rows))
    assert len({row.checksum for row in rows}) == len(rows)
    assert all(checksum(ledger.content(row)) == row.checksum for row in rows)
    newest: dict[str, int] = {}
    for row in rows:  # one chain a study
        assert row.parent == newest.get(row.study)
        newest[row.study] = row.id
    for study, row in ledger.current("tiny").items():
        assert row.id == newest[study]
        assert checksum(crowd.studies / "labels" / "final" / f"{study}.nii.gz") == row.checksum
        given = crowd.get("/datastore/label", params={"label": study, "tag": "final"})
        assert given.content == ledger.content(row).read_bytes()


def mask(kit: SimpleNamespace, number: int) -> bytes:
    """A mask that no other number gives."""
    array = np.zeros(kit.shape, np.uint8)
    array[8:14, 8:14, 4:8] = 1
    array.ravel()[: number + 1] = 2
    return gzip.compress(nib.Nifti1Image(array, kit.affine).to_bytes(), 1)
