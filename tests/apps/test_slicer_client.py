"""3D Slicer's own client, unmodified, goes once around the loop with the parameters that its module sends."""

from __future__ import annotations

import json
import time
from pathlib import Path
from types import ModuleType, SimpleNamespace

import itk
import nibabel as nib
import numpy as np
import pytest

INFER = {"result_extension": ".nrrd", "result_dtype": "uint8"}  # MONAILabel.py, logic.infer


@pytest.fixture
def client(server, slicer: ModuleType, tmp_path: Path):
    return slicer.MONAILabelClient(server.url, str(tmp_path), "user-xyz")


def gui_params(info: dict, section: str, name: str) -> dict:
    """MONAILabel.py, getParamsFromConfig."""
    config = info.get(section, {}).get(name, {}).get("config", {})
    return {k: v[0] if isinstance(v, list) else v for k, v in config.items()}


def test_info_is_what_the_module_shows(client) -> None:
    info = client.info()
    assert not client.auth_enabled()
    assert info["labels"] == ["lesion", "organ", "vessel"]
    assert "config" not in info  # Slicer would ask for a newer server
    assert {m["type"] for m in info["models"].values()} == {"segmentation"}
    assert info["models"]["tiny"]["labels"] == {"lesion": 1, "organ": 2}
    assert "random" in info["strategies"]
    assert info["datastore"]["total"] >= 13
    for stats in info["train_stats"].values():
        assert stats["total_epochs"] >= 1
        assert np.isfinite(stats["best_metric"])


def test_next_sample_names_an_image_to_download(client, server, kit: SimpleNamespace) -> None:
    kit.make_study(server.studies, "unread")  # whatever else other readers were offered
    sample = client.next_sample("random", gui_params(client.info(), "strategies", "random"))
    assert "path" not in sample
    assert sample["name"] == f"{sample['id']}.nii.gz"
    reply = server.get("/datastore/image", params={"image": sample["id"]})
    assert reply.content == (server.studies / sample["name"]).read_bytes()


def test_mask_comes_back_on_the_image_grid(client, server, kit: SimpleNamespace) -> None:
    file, params = client.infer("tiny", "s00", gui_params(client.info(), "models", "tiny") | INFER)
    answer, image = itk.imread(file), itk.imread(str(server.studies / "s00.nii.gz"))
    assert itk.array_from_image(answer).dtype == np.uint8
    assert tuple(answer.GetLargestPossibleRegion().GetSize()) == kit.shape
    np.testing.assert_allclose(np.array(answer.GetOrigin()), np.array(image.GetOrigin()), atol=1e-3)
    np.testing.assert_allclose(
        itk.array_from_matrix(answer.GetDirection()), itk.array_from_matrix(image.GetDirection()), atol=1e-4
    )
    np.testing.assert_allclose(np.array(answer.GetSpacing()), np.array(image.GetSpacing()), atol=1e-4)
    assert params["label_names"] == {"lesion": 1, "organ": 2}
    assert params["notice"] == "not for clinical use"


def test_submitted_mask_is_stored_by_name_not_by_scene_order(
    client, server, kit: SimpleNamespace, tmp_path: Path
) -> None:
    file = kit.mask_file(tmp_path / "scene.nii.gz", value=2)
    info = [{"name": "organ", "idx": 1}, {"name": "lesion", "idx": 2}, {"name": "vessel", "idx": 3}]
    result = client.save_label("s01", str(file), params={"label_info": info})
    assert [s["recipe"] for s in result["saved"]] == ["tiny"]
    stored = nib.load(client.download_label("s01", "final"))
    assert set(np.unique(np.asarray(stored.dataobj))) == {0, 1}  # lesion is 1 in the recipe
    np.testing.assert_allclose(stored.affine, kit.affine, atol=1e-4)
    known = server.get("/datastore/label/info", params={"label": "s01", "tag": "final"}).json()
    assert known["labels"][0]["author"] == "user-xyz"
    assert known["labels"][0]["shown_version"] == ""
    assert known["labels"][0]["names"] == ["lesion"]  # an empty segment of a scene says nothing


def test_session_of_an_image_that_is_not_in_the_studies(client, kit: SimpleNamespace, tmp_path: Path) -> None:
    image = kit.make_study(tmp_path, "volume", 5)
    session = client.create_session(str(image))["session_id"]
    assert client.get_session(session)
    file, params = client.infer("tiny", "4: Thorax/lung", dict(INFER), session_id=session)
    assert tuple(itk.imread(file).GetLargestPossibleRegion().GetSize()) == kit.shape
    assert "message" in params or params["version"]
    client.remove_session(session)
    with pytest.raises(Exception) as caught:  # the client's exception hides its message
        client.infer("tiny", "x", dict(INFER), session_id=session)
    assert "session" in caught.value.msg


def test_uploaded_image_becomes_a_study(client, kit: SimpleNamespace, tmp_path: Path) -> None:
    image = kit.make_study(tmp_path, "whatever", 6)
    assert client.upload_image(str(image), "uploaded 1.2.840")["image"] == "uploaded 1.2.840"
    assert "uploaded 1.2.840" in client.datastore()["objects"]


def test_training_as_the_train_button_starts_it(client, server, kit: SimpleNamespace, tmp_path: Path) -> None:
    file = kit.mask_file(tmp_path / "mask.nii.gz")
    for number in range(12):
        client.save_label(f"s{number:02d}", str(file), params={"label_info": [{"name": "lesion", "idx": 1}]})
    assert client.train_stop() is None
    assert not client.train_status(check_if_running=True)
    task = client.train_start("tiny", gui_params(client.info(), "trainers", "tiny"))
    assert task["status"] in ("SUBMITTED", "RUNNING")
    until = time.monotonic() + 150
    while client.train_status()["status"] in ("SUBMITTED", "RUNNING") and time.monotonic() < until:
        time.sleep(0.5)
    done = client.train_status()
    assert done["status"] == "DONE", done
    assert str(server.folder) not in json.dumps(done)
    stats = client.info()["train_stats"]["tiny"]
    assert stats["total_time"] > 0
    assert stats["version"] >= 1


def test_submit_touches_the_recipe_it_was_made_for(client, server, kit: SimpleNamespace, tmp_path: Path) -> None:
    for recipe in ("tiny", "second"):
        kit.publish(server.home, recipe)  # every voxel is a lesion, or a vessel
    time.sleep(1.5)
    scene = [{"name": "lesion", "idx": 1}, {"name": "organ", "idx": 2}, {"name": "vessel", "idx": 3}]
    client.upload_image(str(kit.make_study(tmp_path, "x", 8)), "two questions")

    def submit(name: str, voxels: np.ndarray) -> list[tuple[str, str]]:
        nib.save(nib.Nifti1Image(voxels.astype(np.uint8), kit.affine), tmp_path / name)
        saved = client.save_label("two questions", str(tmp_path / name), params={"label_info": scene})["saved"]
        return [(s["recipe"], s["state"]) for s in saved]

    drawn = np.full(kit.shape, 3)
    client.infer("second", "two questions", dict(INFER))
    client.infer("tiny", "two questions", dict(INFER))
    assert submit("a.nii.gz", drawn) == [("tiny", "held")]  # the vessels are as the model drew them
    drawn[:5] = 1
    assert submit("b.nii.gz", drawn) == [("tiny", "final"), ("second", "final")]  # and here they are not
    client.infer("second", "two questions", dict(INFER))
    assert submit("c.nii.gz", np.full(kit.shape, 3)) == [("second", "final")]  # accepted as it is


def test_a_held_out_study_is_read_before_the_answer_is_shown(
    client, server, kit: SimpleNamespace, tmp_path: Path
) -> None:
    """As the module does it: Next Sample, then the automatic question, then the reader's own."""
    kit.publish(server.home)
    time.sleep(1.5)
    for number in range(40):
        kit.make_study(server.studies, f"blind{number:02d}", number)
    for _ in range(60):
        sample = client.next_sample("random", {"recipe": "tiny"})
        if sample.get("blind"):
            break
        file, params = client.infer("tiny", sample["id"], dict(INFER))
        assert params["version"], "a study of the training side is answered at once"
    assert sample["blind"]
    file, params = client.infer("tiny", sample["id"], dict(INFER))
    assert params["withheld"]
    assert "ask again" in params["message"]
    assert not itk.array_from_image(itk.imread(file)).any()
    scene = [{"name": "lesion", "idx": 1}]
    mask = str(kit.mask_file(tmp_path / "mask.nii.gz"))
    client.save_label(sample["id"], mask, params={"label_info": scene})

    def seen() -> str:
        known = server.get("/datastore/label/info", params={"label": sample["id"], "tag": "final"}).json()
        return str(known["labels"][0]["shown_version"])

    assert seen() == ""
    file, params = client.infer("tiny", sample["id"], dict(INFER))
    assert params["version"]
    assert itk.array_from_image(itk.imread(file)).any()
    client.save_label(sample["id"], mask, params={"label_info": scene})
    assert seen() == str(params["version"])
