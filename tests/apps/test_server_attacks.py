"""Attacks on a running server: each is refused with JSON, and nothing outside the studies is read or written."""

from __future__ import annotations

import http.client
import io
import json
import tarfile
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest
import requests

from radloop.apps.guard_rules import OPEN


def raw(server, method: str, path: str, headers: dict[str, str] | None = None) -> tuple[int, bytes]:
    """A request whose path no library has tidied."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    connection.request(method, path, headers=headers or {})
    reply = connection.getresponse()
    return reply.status, reply.read()


@pytest.fixture
def secret(server) -> Path:
    """A file beside the studies that no request may reach, and whose folder must stay as it is."""
    path = server.folder / "secret.nii.gz"
    path.write_bytes((server.studies / "s00.nii.gz").read_bytes())
    return path


@pytest.fixture(autouse=True)
def nothing_changes(server, secret: Path):
    def listing() -> set[str]:
        files = {str(p) for p in server.folder.glob("*")} | {str(p) for p in server.studies.rglob("*")}
        return files | {str(p) for p in (server.home / "sessions").rglob("*")}

    before = listing()
    yield
    assert listing() == before


def test_every_open_route_is_one_of_the_host(server) -> None:
    known = set(server.get("/openapi.json").json()["paths"])
    for hole in ("{model}", "{strategy}", "{method}"):
        known |= {path.replace(hole, "{name}") for path in known}
    hidden = {"/", "/docs", "/openapi.json", "/favicon.ico", "/static/{rest}", "/datastore/updatelabelinfo"}
    assert {path.replace("{session}", "{session_id}") for path in OPEN} - hidden <= known


@pytest.mark.parametrize(
    "image", ["/etc/passwd", "../secret", "../secret.nii.gz", "..%2Fsecret", "labels/final/s00", ".radloop", "s00\x00"]
)
@pytest.mark.parametrize("endpoint", ["/infer/tiny", "/datastore/image", "/datastore/image/info"])
def test_no_path_as_an_image(server, kit: SimpleNamespace, endpoint: str, image: str) -> None:
    send = server.post if endpoint.startswith("/infer") else server.get
    reply = send(endpoint, params={"image": image})
    assert reply.status_code in (400, 404)
    assert "root:" not in reply.text
    kit.error_of(reply)


def test_no_existing_path_of_the_server_as_an_image(server, kit: SimpleNamespace, secret: Path) -> None:
    for image in (str(secret), "secret.nii.gz", "ledger.db", "app"):  # the last two are in its working directory
        reply = server.post("/infer/tiny", params={"image": image})
        assert reply.status_code in (400, 404)
        kit.error_of(reply)
    reply = server.post("/infer/tiny", params={"image": "s00"}, data={"params": json.dumps({"image": str(secret)})})
    assert reply.status_code == 400
    assert "'image' is not allowed" in kit.error_of(reply)


@pytest.mark.parametrize("key", ["bundle_path", "train_ds", "val_ds", "tracking_uri", "name", "gpus", "model"])
def test_no_parameter_of_the_host_that_names_files(server, kit: SimpleNamespace, key: str) -> None:
    reply = server.post("/train/tiny", json={key: str(server.folder)})
    assert reply.status_code == 400
    assert f"'{key}' is not allowed; allowed: client_id, device, epochs, minutes, seed" in kit.error_of(reply)
    assert server.get("/train/", params={"check_if_running": "true"}).status_code == 404


def test_training_inside_the_server_is_refused(server, kit: SimpleNamespace) -> None:
    reply = server.post("/train/tiny", params={"run_sync": "true"}, json={})
    assert reply.status_code == 400
    assert "run_sync" in kit.error_of(reply)


@pytest.mark.parametrize("name", ["sitecustomize.py", "a.so", "a.nii.gz.py", "meta.info"])
def test_no_code_in_a_session(server, kit: SimpleNamespace, name: str) -> None:
    reply = server.put("/session/", files={"files": (name, b"import os")})
    assert reply.status_code == 400
    kit.error_of(reply)


def zipped(*members: tuple[str, bytes], mode: int = 0o100644) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16
            archive.writestr(info, content, zipfile.ZIP_DEFLATED)
    return file.getvalue()


def tarred(name: str, content: bytes, link: str = "") -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        info = tarfile.TarInfo(name)
        info.size = 0 if link else len(content)
        if link:
            info.type, info.linkname = tarfile.SYMTYPE, link
        archive.addfile(info, io.BytesIO(content))
    return file.getvalue()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.zip", zipped(("../../escaped.nii.gz", b"x"))),
        ("a.zip", zipped(("/tmp/escaped.nii.gz", b"x"))),
        ("a.zip", zipped(("..\\escaped.nii.gz", b"x"))),
        ("a.zip", zipped(("sitecustomize.py", b"x"))),
        ("a.zip", zipped(("link.nii.gz", b"/etc/passwd"), mode=0o120777)),
        ("a.zip", zipped()),
        ("a.zip", zipped(("a.nii.gz", b"x"), ("b.nii.gz", b"x"))),
        ("a.zip", b"not a zip"),
        ("a.zip", zipped(("a.nii.gz", b"x" * 5000))[:-60]),
        ("a.tar", tarred("../../escaped.nii.gz", b"x")),
        ("a.tar", tarred("/tmp/escaped.nii.gz", b"x")),
        ("a.tar", tarred("link.nii.gz", b"", "/etc/passwd")),
        ("a.tar.gz", b"not a tar"),
    ],
)
def test_no_archive_leaves_its_folder(server, kit: SimpleNamespace, name: str, content: bytes) -> None:
    reply = server.put("/session/", params={"uncompress": "true"}, files={"files": (name, content)})
    assert reply.status_code == 400
    kit.error_of(reply)
    assert not Path("/tmp/escaped.nii.gz").exists()


@pytest.mark.parametrize("session", ["..", "%2e%2e", "....", "a/b", "%2Fetc", "../../studies", "x" * 100])
@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_no_path_as_a_session(server, method: str, session: str) -> None:
    status, body = raw(server, method, f"/session/{session}")
    assert status in (400, 404)
    assert "error" in json.loads(body)
    assert server.studies.is_dir()


@pytest.mark.parametrize("tag", ["../../x", "..", "/tmp/x", "version_1", "finale", "a b"])
def test_no_tag_as_a_folder(server, kit: SimpleNamespace, tmp_path: Path, tag: str) -> None:
    reply = server.save("s10", kit.mask_file(tmp_path / "m.nii.gz"), tag=tag)
    assert reply.status_code == 400
    kit.error_of(reply)


@pytest.mark.parametrize("image", ["../x", "/tmp/x", "..", "a/b", ".radloop", "", "x_0000"])
def test_no_image_outside_the_studies(server, kit: SimpleNamespace, secret: Path, image: str) -> None:
    with secret.open("rb") as handle:
        reply = server.put("/datastore/image", params={"image": image}, files={"file": ("..nii.gz", handle)})
    assert reply.status_code == 400
    kit.error_of(reply)


def test_no_upload_over_another_study(server, kit: SimpleNamespace, secret: Path) -> None:
    for query, name in (({"image": "s00"}, "x.nii.gz"), ({}, "s00.nii.gz"), ({}, "/tmp/s00.nii.gz")):
        with secret.open("rb") as handle:
            reply = server.put("/datastore/image", params=query, files={"file": (name, handle)})
        assert reply.status_code == 409
        kit.error_of(reply)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("PUT", "/model/tiny", 405),
        ("DELETE", "/model/tiny", 405),
        ("GET", "/model/tiny", 405),
        ("GET", "/logs/", 403),
        ("GET", "/logs/gpu", 403),
        ("POST", "/reload", 403),
        ("GET", "/proxy/dicom/system", 404),
        ("GET", "/proxy/dicom/../system", 400),
        ("POST", "/proxy/dicom/%2e%2e/tools/execute-script", 400),
        ("GET", "/static/../../app.py", 400),
        ("GET", "/static/%2e%2e/%2e%2e/app.py", 400),
        ("GET", "/static//etc/passwd", 400),
        ("TRACE", "/info/", 405),
        ("PATCH", "/info/", 405),
    ],
)
def test_closed_doors(server, method: str, path: str, status: int) -> None:
    found, body = raw(server, method, path)
    assert found == status
    assert set(json.loads(body)["error"]) == {"message", "kind"}


def test_other_web_pages_are_kept_out(server, kit: SimpleNamespace) -> None:
    evil = {"Origin": "https://evil.example"}
    for send, path in (
        (server.get, "/info/"),
        (server.delete, "/datastore/image?id=s00"),
        (server.post, "/train/tiny"),
    ):
        reply = send(path, headers=evil)
        assert reply.status_code == 403
        assert "access-control-allow-origin" not in reply.headers
        kit.error_of(reply)
    ask = {**evil, "Access-Control-Request-Method": "DELETE"}
    assert requests.options(server.url + "/info/", headers=ask, timeout=30).status_code == 403
    own = {"Origin": "http://localhost:3000", "Access-Control-Request-Method": "POST"}
    reply = requests.options(server.url + "/train/tiny", headers=own, timeout=30)
    assert reply.headers["access-control-allow-origin"] == own["Origin"]
    assert "access-control-allow-credentials" not in reply.headers
    status, _ = raw(server, "GET", "/info/", {"Host": "evil.example"})
    assert status == 400


def test_oversized_body_is_refused(server) -> None:
    status, body = raw(server, "POST", "/train/tiny", {"Content-Length": str(2**20 + 1)})
    assert (status, json.loads(body)["error"]["kind"]) == (413, "TooLarge")


def test_no_reply_names_the_servers_folders(server, tmp_path: Path) -> None:
    replies = [
        server.get("/info/"),
        server.get("/datastore/", params={"output": "all"}),
        server.get("/datastore/", params={"output": "train"}),
        server.post("/activelearning/random", json={}),
        server.get("/datastore/image/info", params={"image": "s00"}),
        server.post("/infer/tiny", params={"image": "s00", "output": "json"}),
        server.get("/"),
    ]
    with (server.studies / "s00.nii.gz").open("rb") as handle:
        replies.append(server.put("/session/", files={"files": ("s00.nii.gz", handle)}))
    session = replies[-1].json()["session_id"]
    replies.append(server.get(f"/session/{session}"))
    replies.append(server.delete(f"/session/{session}"))
    for reply in replies:
        assert reply.status_code == 200, reply.text
        assert str(server.folder) not in reply.text
        assert "/tmp" not in reply.text
