"""What the server answers: a new version at the next request, ids 1..N, provenance, the documented endpoints."""

from __future__ import annotations

import io
import json
import tempfile
import time
import zipfile
from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest

from radloop.studies.folder import StudiesFolder
from radloop.studies.home import Home
from radloop.studies.ledger import Ledger
from radloop.studies.sides import study_sides


def infer(server, study: str, client: str = "reader", **params: object) -> tuple[np.ndarray, dict, np.ndarray]:
    """Mask, what viewers are told, affine."""
    text = json.dumps({"client_id": client, "result_extension": ".nii.gz", **params})
    told = server.post("/infer/tiny", params={"image": study, "output": "json"}, data={"params": text})
    reply = server.post("/infer/tiny", params={"image": study, "output": "image"}, data={"params": text})
    assert reply.status_code == 200, reply.text
    with tempfile.NamedTemporaryFile(suffix=".nii.gz") as file:
        Path(file.name).write_bytes(reply.content)
        image = nib.load(file.name)
        return np.asarray(image.dataobj), told.json(), image.affine


def test_new_version_answers_without_a_restart_and_is_written_down(
    server, kit: SimpleNamespace, tmp_path: Path
) -> None:
    before, told, _ = infer(server, kit.chinese)
    if told["version"] is None:
        assert not before.any()
        assert told["message"].startswith("no model yet: ")
        reply = server.save(kit.chinese, kit.mask_file(tmp_path / "a.nii.gz"), json.dumps({"client_id": "reader"}))
        assert reply.status_code == 200
        known = server.get("/datastore/label/info", params={"label": kit.chinese, "tag": "final"}).json()
        assert known["labels"][0]["shown_version"] == ""  # an empty mask before any model is no answer
    number = kit.publish(server.home, bias=2)
    time.sleep(1.2)
    mask, told, affine = infer(server, kit.chinese)
    assert told["version"] == number
    assert set(np.unique(mask)) == {2}
    assert mask.dtype == np.uint8
    assert mask.shape == kit.shape
    (part,) = told["boxes"]  # everything is marked, so there is one part
    assert part["label"] == "organ"
    assert 0.5 < part["score"] <= 1
    np.testing.assert_allclose(affine, kit.affine, atol=1e-4)
    assert all(np.isfinite(v) for v in told["latencies"].values())
    saved = server.save(
        kit.chinese, kit.mask_file(tmp_path / "b.nii.gz"), json.dumps({"client_id": "reader", "model": "tiny"})
    )
    assert saved.json()["saved"][0]["state"] == "final"
    known = server.get("/datastore/label/info", params={"label": kit.chinese, "tag": "final"}).json()
    assert known["labels"][0]["shown_version"] == str(number)
    # an empty mask where the version that serves finds something waits for a second word
    held = server.save("s02", kit.mask_file(tmp_path / "c.nii.gz", value=0), json.dumps({"model": "tiny"})).json()
    assert held["saved"][0]["state"] == "held"
    assert "held" in held["message"]
    page = server.get("/").text
    assert f"version {number}" in page
    assert "not for clinical use" in page
    assert "0.750" in page


def test_empty_mask_is_a_label_where_no_model_serves(server, kit: SimpleNamespace, tmp_path: Path) -> None:
    reply = server.save("s03", kit.mask_file(tmp_path / "e.nii.gz", value=0), json.dumps({"model": "second"}))
    assert reply.json()["saved"] == [
        {"recipe": "second", "row": reply.json()["saved"][0]["row"], "state": "final", "names": ["vessel"]}
    ]


def test_batch_infer_keeps_proposals_and_survives_a_bad_image(server, kit: SimpleNamespace) -> None:
    kit.publish(server.home, bias=1)
    bad = server.studies / "broken.nii.gz"
    bad.write_bytes((server.studies / "s00.nii.gz").read_bytes()[:400])
    completed = server.get("/datastore/").json()["completed"]
    time.sleep(1.2)
    documented = {"device": "cuda", "multi_gpu": True, "gpus": "all", "logging": "WARNING", "save_label": True}
    documented |= {"label_tag": "original", "max_workers": 1, "max_batch_size": 0}
    for number in range(12):
        kit.make_study(server.studies, f"batch{number:02d}", number)
    sides = study_sides(StudiesFolder(server.studies).studies(), Ledger(Home(server.home)))
    # of the training side, whose proposals are shown at once, and of no other test
    one, two = [study for study, side in sides.items() if side == "train" and study.startswith("batch")][:2]
    images = {"images": [one, "broken", two]}
    try:
        reply = server.post("/batch/infer/tiny", params={"run_sync": "true"}, json={**documented, **images})
    finally:
        bad.unlink()
    results = reply.json()
    assert results[one]["label"] == one
    assert "broken.nii.gz" in results["broken"]["error"]
    stored = server.get("/datastore/", params={"output": "all"}).json()
    labels = stored["objects"][two]["labels"]["original"]["info"]
    assert labels["params"]["label_names"] == {"lesion": 1, "organ": 2}
    assert server.get("/datastore/").json()["completed"] == completed  # proposals are no labels
    assert server.get("/datastore/label", params={"label": two, "tag": "original"}).status_code == 200


def test_scoring_writes_dice_into_the_image_info(server, kit: SimpleNamespace, tmp_path: Path) -> None:
    kit.publish(server.home, bias=1)
    server.save("s06", kit.mask_file(tmp_path / "m.nii.gz"), json.dumps({"model": "tiny"}))
    time.sleep(1.2)
    reply = server.post("/scoring/dice", params={"run_sync": "true"}, json={})
    assert reply.status_code == 200, reply.text
    block, whole = 6 * 6 * 4, int(np.prod(kit.shape))
    lesion = 2 * block / (block + whole)
    info = server.get("/datastore/image/info", params={"image": "s06"}).json()
    # the organ is absent and not found: Dice 1
    assert info["dice"]["tiny"]["value"] == pytest.approx((lesion + 1) / 2, abs=1e-3)


def test_datastore_endpoints(server, kit: SimpleNamespace, tmp_path: Path) -> None:
    server.save("s07", kit.mask_file(tmp_path / "m.nii.gz"), json.dumps({"model": "tiny", "client_id": "a"}))
    pairs = server.get("/datastore/", params={"output": "train"}).json()
    assert {"image": "s07.nii.gz", "label": "labels/final/s07.nii.gz"} in pairs
    head = requests_head(server, "/datastore/image", image="s07")
    assert head == 200
    assert requests_head(server, "/datastore/image", image="s7") == 404
    assert requests_head(server, "/datastore/label", image="s07", tag="final") == 200
    assert requests_head(server, "/datastore/label", image="s11", tag="original") == 404
    assert (
        server.put("/datastore/image/info", params={"image": "s07"}, data={"info": '{"note": "gut"}'}).status_code
        == 200
    )
    assert server.get("/datastore/image/info", params={"image": "s07"}).json()["note"] == "gut"
    meta = {"segmentationMeta": {"status": "approved"}}
    put = server.put("/datastore/label/info", params={"label": "s07", "tag": "final"}, data={"info": json.dumps(meta)})
    assert put.status_code == 200
    known = server.get("/datastore/label/info", params={"label": "s07", "tag": "final"}).json()
    assert known["segmentationMeta"] == meta["segmentationMeta"]
    archive = zipfile.ZipFile(io.BytesIO(server.get("/datastore/dataset").content))
    assert {"s07.nii.gz", "labels/final/s07.nii.gz", "metadata.json"} <= set(archive.namelist())
    time.sleep(1)  # it is deleted after the reply
    assert not list((server.home / "tmp").glob("radloop-*.zip"))
    assert server.delete("/datastore/image", params={"id": "s07"}).status_code == 409
    assert server.delete("/datastore/label", params={"id": "s07", "tag": "final"}).status_code == 200
    assert requests_head(server, "/datastore/label", image="s07", tag="final") == 404
    assert not (server.studies / "labels/final/s07.nii.gz").exists()
    assert server.delete("/datastore/label", params={"id": "s07", "tag": "final"}).status_code == 404
    assert list((server.home / "labels").glob("*.nii.gz"))  # content stays


def test_answer_for_a_local_volume_is_remembered_when_it_becomes_a_study(
    server, kit: SimpleNamespace, tmp_path: Path
) -> None:
    number = kit.publish(server.home)
    time.sleep(1.2)
    image, reader = kit.make_study(tmp_path, "local", 7), json.dumps({"client_id": "reader"})
    with image.open("rb") as handle:
        session = server.put("/session/", files={"files": ("MRHead.nii.gz", handle)}).json()["session_id"]
    query = {"image": "MRHead", "session_id": session, "output": "json"}
    assert server.post("/infer/tiny", params=query, data={"params": reader}).json()["version"] == number
    with image.open("rb") as handle:
        server.put("/datastore/image", params={"image": "MRHead"}, files={"file": ("x.nii.gz", handle)})
    assert server.save("MRHead", kit.mask_file(tmp_path / "m.nii.gz"), reader).status_code == 200
    known = server.get("/datastore/label/info", params={"label": "MRHead", "tag": "final"}).json()
    assert known["labels"][0]["shown_version"] == str(number)


def requests_head(server, path: str, **query: str) -> int:
    import requests

    return requests.head(server.url + path, params=query, timeout=30).status_code


def test_random_never_fails_and_never_gives_two_readers_one_study(server) -> None:
    seen: dict[str, set[str]] = {"a": set(), "b": set()}
    for _ in range(6):
        for reader, mine in seen.items():
            reply = server.post("/activelearning/random", json={"client_id": reader})
            assert reply.status_code == 200, reply.text
            if reply.json():
                mine.add(reply.json()["id"])
    assert seen["a"]
    assert not seen["a"] & seen["b"]


def test_model_info_is_the_serving_file(server, kit: SimpleNamespace) -> None:
    number = kit.publish(server.home)
    time.sleep(1.2)
    reply = server.get("/model/info/tiny")
    assert reply.status_code == 200, reply.text
    from radloop.studies.ledger import checksum

    assert checksum(server.home / "versions" / "tiny" / str(number) / "model.pt") in reply.json()["checksum"]


def test_status_replies_are_404_json_before_any_task(server, kit: SimpleNamespace) -> None:
    assert "No Scoring" in kit.error_of(server.get("/scoring/", params={"check_if_running": "true"}))
