"""Bad and unusual input to a running server: refused by name with 4xx JSON, or served; never a 500."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest

INFER = {"output": "json"}


@pytest.fixture
def odd(server, kit: SimpleNamespace):
    """Puts a file into the studies for one test."""
    made: list[Path] = []

    def put(name: str, content: bytes) -> str:
        path = server.studies / name
        path.write_bytes(content)
        made.append(path)
        return name.removesuffix(".nii.gz")

    yield put
    for path in made:
        path.unlink()


def nifti(array: np.ndarray, affine: np.ndarray | None = None) -> bytes:
    return gzip.compress(nib.Nifti1Image(array, np.eye(4) if affine is None else affine).to_bytes())


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("text.nii.gz", b"this is no image"),
        ("gztext.nii.gz", gzip.compress(b"this is no image")),
        ("empty.nii.gz", b""),
        ("four.nii.gz", nifti(np.zeros((6, 5, 4, 3), np.float32))),
        ("nan.nii.gz", nifti(np.full((6, 5, 4), np.nan, np.float32))),
        ("inf.nii.gz", nifti(np.full((6, 5, 4), np.inf, np.float32))),
    ],
)
def test_bad_images_are_refused_by_name(server, kit: SimpleNamespace, odd, name: str, content: bytes) -> None:
    kit.publish(server.home)
    study = odd(name, content)
    reply = server.post("/infer/tiny", params={"image": study, **INFER})
    assert reply.status_code == 400
    assert name in kit.error_of(reply)
    upload = server.put("/datastore/image", params={"image": "neu"}, files={"file": (name, content)})
    assert upload.status_code == 400
    assert "neu.nii.gz" in kit.error_of(upload)
    assert server.get("/info/").status_code == 200
    assert not (server.studies / "neu.nii.gz").exists()


def test_truncated_image_is_refused(server, kit: SimpleNamespace, odd) -> None:
    kit.publish(server.home)
    study = odd("cut.nii.gz", (server.studies / "s00.nii.gz").read_bytes()[:5000])
    reply = server.post("/infer/tiny", params={"image": study, **INFER})
    assert reply.status_code == 400
    assert "cut.nii.gz" in kit.error_of(reply)


def test_bad_masks_are_refused(server, kit: SimpleNamespace, tmp_path: Path) -> None:
    good = kit.mask_file(tmp_path / "good.nii.gz").read_bytes()
    shifted = kit.affine.copy()
    shifted[0, 3] += 5
    cases = {
        "text": b"this is no mask",
        "cut": good[: len(good) // 2],
        "shape": kit.mask_file(tmp_path / "a.nii.gz", shape=(24, 22, 13)).read_bytes(),
        "place": kit.mask_file(tmp_path / "b.nii.gz", affine=shifted).read_bytes(),
        "id": kit.mask_file(tmp_path / "c.nii.gz", value=7).read_bytes(),
        "4d": nifti(np.zeros((*kit.shape, 2), np.uint8), kit.affine),
        "half": nifti(np.full(kit.shape, 0.5, np.float32), kit.affine),
    }
    before = server.get("/datastore/label/info", params={"label": "s11", "tag": "final"}).text
    for what, content in cases.items():
        reply = server.put(
            "/datastore/label",
            params={"image": "s11"},
            data={"params": '{"model": "tiny"}'},
            files={"label": ("label.nii.gz", content)},
        )
        assert reply.status_code == 400, what
        assert "s11" in kit.error_of(reply), what
    assert server.get("/datastore/label/info", params={"label": "s11", "tag": "final"}).text == before


def test_unknown_names_get_the_closest(server, kit: SimpleNamespace, tmp_path: Path) -> None:
    file = kit.mask_file(tmp_path / "m.nii.gz")
    params = json.dumps({"model": "tiny", "label_info": [{"name": "lesoin", "idx": 1}]})
    reply = server.save("s11", file, params)
    assert reply.status_code == 400
    assert "did you mean 'lesion'" in kit.error_of(reply)
    reply = server.save("s11", file, json.dumps({"model": "tinny"}))
    assert reply.status_code == 404
    assert "tiny" in kit.error_of(reply)
    for send, path in (
        (server.post, "/infer/tinny?image=s00"),
        (server.post, "/train/tinny"),
        (server.post, "/scoring/dise"),
    ):
        reply = send(path)
        assert reply.status_code == 404
        assert "did you mean" in kit.error_of(reply)
    reply = server.post("/activelearning/randum", json={})
    assert reply.status_code == 404
    reply = server.post("/infer/tiny", params={"image": "患者二_胸部"})
    assert reply.status_code == 404
    assert kit.chinese in kit.error_of(reply)
    assert server.post("/infer/tiny").status_code == 400
    assert server.save("nobody", file).status_code == 404


def test_chinese_names_go_round(server, kit: SimpleNamespace, tmp_path: Path) -> None:
    image = kit.make_study(tmp_path, "x", 3)
    with image.open("rb") as handle:
        reply = server.put("/datastore/image", files={"file": ("李雷.nii.gz", handle)})
    assert reply.json() == {"image": "李雷"}
    reply = server.post("/infer/tiny", params={"image": "李雷", "output": "image"}, data={"params": "{}"})
    assert reply.status_code == 200, reply.text
    saved = server.save(
        "李雷", kit.mask_file(tmp_path / "掩膜.nii.gz"), json.dumps({"client_id": "王医生", "model": "tiny"})
    )
    assert saved.status_code == 200, saved.text
    known = server.get("/datastore/label/info", params={"label": "李雷", "tag": "final"}).json()
    assert known["labels"][0]["author"] == "王医生"
    assert (server.studies / "labels" / "final" / "李雷.nii.gz").is_file()


def test_broken_progress_file_keeps_no_viewer_away(server) -> None:
    file = server.home / "progress" / "tiny.json"
    file.parent.mkdir(exist_ok=True)
    for content in (
        '{"epoch": NaN',
        '{"epoch": NaN, "total_epochs": Infinity}',
        "",
        "[]",
        '{"pid": "x", "state": "running"}',
    ):
        file.write_text(content)
        reply = server.get("/info/")
        assert reply.status_code == 200
        json.loads(reply.text, parse_constant=lambda name: pytest.fail(f"{name} in /info/"))
    file.unlink()


def test_info_answers_while_an_answer_is_computed(server, kit: SimpleNamespace) -> None:
    import threading
    import time

    kit.publish(server.home)
    time.sleep(1.2)
    stop = threading.Event()

    def infer() -> None:
        while not stop.is_set():
            server.post("/infer/tiny", params={"image": "s00", **INFER})

    readers = [threading.Thread(target=infer) for _ in range(20)]  # more than the lane has threads
    for reader in readers:
        reader.start()
    try:
        for _ in range(10):
            assert server.get("/info/").status_code == 200
    finally:
        stop.set()
        for reader in readers:
            reader.join()
