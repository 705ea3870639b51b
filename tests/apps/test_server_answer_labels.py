"""Answers about whole studies over HTTP, through the guard and MONAI Label's own endpoints, beside masks."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from monailabel.config import settings
from monailabel.interfaces.utils import app as host
from starlette.testclient import TestClient

from radloop.apps.app import RadloopApp
from radloop.apps.asgi import app
from radloop.studies.home import Home

GRADE = 'name = "grade"\nkind = "ordinal"\nlabels = { low = 1, high = 2 }\n'
FORM = {"format": 1, "kind": "ordinal", "answer": "high"}


@pytest.fixture
def client(tmp_path: Path, kit: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    """The guarded server in this process, on two studies, a mask recipe and one about whole studies."""
    studies, home = tmp_path / "studies", Home(tmp_path / "home")
    studies.mkdir()
    for name in ("a", "b"):
        kit.make_study(studies, name)
    (home.recipes / "tiny.toml").write_text(kit.tiny)
    (home.recipes / "grade.toml").write_text(GRADE)
    made = RadloopApp(str(home.app), str(studies), {"home": str(home.path), "recipes": "tiny,grade"})
    monkeypatch.setitem(host.apps, f"{settings.MONAI_LABEL_APP_DIR}{settings.MONAI_LABEL_STUDIES}", made)
    return TestClient(app, base_url="http://127.0.0.1:8000", client=("127.0.0.1", 1))


def send(client: TestClient, content: bytes, name: str = "a.json", study: str = "a", **params: str):
    query = {"image": study}
    return client.put(
        "/datastore/label", params=query, data={"params": json.dumps(params)}, files={"label": (name, content)}
    )


def label(client: TestClient, what: str = "", **query: str):
    return client.get(f"/datastore/label{what}", params={"label": "a", "tag": "final", **query})


def test_an_answer_goes_in_comes_back_and_is_taken_back(client, kit, tmp_path):
    mask = kit.mask_file(tmp_path / "m.nii.gz").read_bytes()
    assert send(client, mask, "m.nii.gz", model="tiny").status_code == 200
    reply = send(client, json.dumps(FORM).encode(), model="grade", client_id="Ada")
    assert reply.json() == {
        "saved": [{"recipe": "grade", "row": 2, "state": "final", "names": ["low", "high"]}],
        "image": "a",
        "label": "a",
    }
    assert label(client).content[:2] == b"\x1f\x8b"  # the mask, as before
    answer = label(client, recipe="grade")
    assert (answer.json(), answer.headers["content-type"]) == (FORM, "application/json")
    assert client.head("/datastore/label", params={"image": "a", "tag": "final", "recipe": "grade"}).status_code == 200
    info = label(client, "/info", recipe="grade").json()
    assert (info["recipe"], info["labels"][0]["author"], info["labels"][0]["answer"]) == ("grade", "Ada", "high")
    listed = client.get("/datastore/", params={"output": "all"}).json()["objects"]["a"]["labels"]["final"]["info"]
    assert (listed["recipe"], [row["recipe"] for row in listed["labels"]]) == ("tiny", ["tiny", "grade"])
    assert client.get("/datastore/").json()["completed"] == 1
    gone = client.delete("/datastore/label", params={"id": "a", "tag": "final", "recipe": "grade"})
    assert gone.status_code == 200
    assert label(client, recipe="grade").status_code == 404
    assert label(client).status_code == 200


def test_the_next_request_asks_for_no_recipe(client, kit, tmp_path):
    send(client, json.dumps(FORM).encode(), model="grade")
    send(client, kit.mask_file(tmp_path / "m.nii.gz").read_bytes(), "m.nii.gz", model="tiny")
    for _ in range(3):
        assert label(client, recipe="grade").json() == FORM
        assert label(client).content[:2] == b"\x1f\x8b"


@pytest.mark.parametrize(
    ("content", "model", "reason"),
    [
        (json.dumps(FORM | {"answer": "hihg"}), "grade", "'hihg' is no label of recipe grade; allowed are low, high"),
        (json.dumps(FORM | {"format": 2}), "grade", "a.json is an answer of format 2, this radloop knows 1; update"),
        (json.dumps(FORM), "tiny", "recipe tiny is of kind segmentation and takes a mask"),
        ("{", "grade", "a.json is not JSON"),
        (" " * 70_000, "grade", "a.json is larger than 65536 bytes"),
    ],
)
def test_what_is_no_answer_is_refused(client, kit, content, model, reason):
    reply = send(client, content.encode(), "x.json", model=model)
    assert reply.status_code == 400
    assert reason in kit.error_of(reply)
    assert label(client).status_code == 404


def test_an_unknown_recipe_is_not_found(client, kit):
    send(client, json.dumps(FORM).encode())
    reply = label(client, recipe="grad")
    assert (reply.status_code, "did you mean 'grade'" in kit.error_of(reply)) == (404, True)
    assert label(client, recipe="../x").status_code == 400
    assert label(client).json() == FORM  # where there is no mask
