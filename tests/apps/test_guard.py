"""The guard's rules, without a server: what passes, what is refused, and that a refusal says what is allowed."""

from __future__ import annotations

import asyncio
import json
from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from radloop.apps import guard
from radloop.apps.bridge import Body, check_length
from radloop.apps.guard_rules import Closed, MethodClosed, TooLarge
from radloop.recipes.errors import BadInput, NotFound, RadloopError


def scope(
    path: str, method: str = "GET", query: str = "", headers: dict[str, str] | None = None, raw: str = ""
) -> dict:
    """An ASGI request to a loopback server."""
    given = {"host": "127.0.0.1:8000", **(headers or {})}
    return {
        "type": "http",
        "method": method,
        "path": path,
        "raw_path": (raw or path).encode(),
        "query_string": query.encode(),
        "server": ("127.0.0.1", 8000),
        "headers": [(k.encode(), v.encode()) for k, v in given.items()],
    }


def body_of(path: str, method: str, content: bytes, kind: str = "application/json", tasks=("tiny",)) -> list[str]:
    asked = scope(path, method, headers={"content-type": kind})
    _, call, _ = guard.check_path(asked)

    async def check() -> list[str]:
        async def receive() -> dict:
            return {"type": "http.request", "body": content, "more_body": False}

        return await guard.check_body(asked, receive, call, tasks)

    return asyncio.run(check())


def form(fields: list[tuple[str, str | tuple[str, bytes]]]) -> tuple[bytes, str]:
    parts = []
    for key, value in fields:
        head = f'--b\r\nContent-Disposition: form-data; name="{key}"'
        content = value[1] if isinstance(value, tuple) else value.encode()
        head += f'; filename="{value[0]}"' if isinstance(value, tuple) else ""
        parts.append(head.encode() + b"\r\n\r\n" + content + b"\r\n")
    return b"".join(parts) + b"--b--\r\n", "multipart/form-data; boundary=b"


@pytest.mark.parametrize(
    ("path", "canonical", "name"),
    [
        ("/info", "/info/", ""),
        ("/info/", "/info/", ""),
        ("/train/tiny", "/train/tiny", "tiny"),
        ("/train", "/train/", ""),
        ("/datastore", "/datastore/", ""),
        ("/batch/infer", "/batch/infer", ""),
        ("/model/info/tiny", "/model/info/tiny", "tiny"),
        ("/static/x.css", "/static/x.css", ""),
    ],
)
def test_open_paths(path: str, canonical: str, name: str) -> None:
    method = "GET" if path != "/train/tiny" else "POST"
    found, _, found_name = guard.check_path(scope(path, method))
    assert (found, found_name) == (canonical, name)


@pytest.mark.parametrize(
    ("path", "method", "error"),
    [
        ("/model/tiny", "PUT", MethodClosed),
        ("/model/tiny", "DELETE", MethodClosed),
        ("/model/tiny", "GET", MethodClosed),
        ("/logs/", "GET", Closed),
        ("/logs", "GET", Closed),
        ("/logs/gpu", "GET", Closed),
        ("/reload", "POST", Closed),
        ("/infer/wsi/tiny", "POST", Closed),
        ("/proxy/dicom/system", "GET", NotFound),
        ("/auth/token", "POST", NotFound),
        ("/datastore/image", "POST", MethodClosed),
        ("/session/..", "DELETE", BadInput),
        ("/infer/a/b", "POST", NotFound),
        ("/infer/a\\b", "POST", BadInput),
        ("/infer/a\x00b", "POST", BadInput),
        ("/static/../app.py", "GET", BadInput),
        ("//info/", "GET", BadInput),
        ("/session/meta.info", "GET", NotFound),
    ],
)
def test_closed_paths(path: str, method: str, error: type[RadloopError]) -> None:
    with pytest.raises(error):
        guard.check_path(scope(path, method))


@pytest.mark.parametrize(
    "raw", ["/static/%2e%2e/app.py", "/infer/a%2Fb", "/proxy/dicom/%2E%2E%2Fsystem", "/a%00", "/%252e"]
)
def test_encoded_separators_are_refused(raw: str) -> None:
    with pytest.raises(BadInput, match="encoded separator"):
        guard.check_path(scope("/info/", raw=raw))


def test_foreign_host_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for host in ("127.0.0.1:8000", "localhost", "[::1]:80"):
        guard.check_host(scope("/info/", headers={"host": host}))
    with pytest.raises(BadInput, match=r"evil\.example"):
        guard.check_host(scope("/info/", headers={"host": "evil.example:8000"}))
    monkeypatch.setenv("RADLOOP_ALLOWED_HOSTS", "pacs.example")
    guard.check_host(scope("/info/", headers={"host": "pacs.example"}))


def test_foreign_origin_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert guard.check_origin(scope("/info/")) == ""
    assert guard.check_origin(scope("/info/", headers={"origin": "http://localhost:3000"})) == "http://localhost:3000"
    for origin in ("https://evil.example", "null", "http://127.0.0.1.evil.example"):
        with pytest.raises(Closed):
            guard.check_origin(scope("/info/", headers={"origin": origin}))
    monkeypatch.setenv("MONAI_LABEL_CORS_ORIGINS", '["https://viewer.example/"]')
    assert guard.check_origin(scope("/info/", headers={"origin": "https://viewer.example"}))


@pytest.mark.parametrize(
    ("path", "query"),
    [
        ("/datastore/image", {"image": "../etc/passwd"}),
        ("/datastore/image", {"image": "/etc/passwd"}),
        ("/datastore/image", {"image": "a\\b"}),
        ("/datastore/image", {"image": "a\nb"}),
        ("/datastore/image", {"image": ".hidden"}),
        ("/datastore/image", {"image": "x" * 201}),
        ("/datastore/image", {}),
        ("/datastore/image", {"image": "a", "path": "b"}),
        ("/datastore/label", {"label": "a", "tag": "../../x"}),
        ("/datastore/label", {"label": "a", "tag": ""}),
        ("/datastore/dataset", {"limit_cases": "-1"}),
    ],
)
def test_bad_queries(path: str, query: dict[str, str]) -> None:
    asked = scope(path, query=urlencode(query))
    _, call, _ = guard.check_path(asked)
    with pytest.raises(BadInput, match="query"):
        guard.check_query(asked, call)


def test_repeated_query_key_is_refused() -> None:
    asked = scope("/datastore/image", query="image=a&image=b")
    with pytest.raises(BadInput, match="twice"):
        guard.check_query(asked, guard.check_path(asked)[1])


@given(st.text(min_size=1, max_size=40))
def test_an_id_that_passes_is_a_plain_name(text: str) -> None:
    asked = scope("/datastore/image", query=urlencode({"image": text}))
    _, call, _ = guard.check_path(asked)
    try:
        found = guard.check_query(asked, call)["image"]
    except BadInput:
        return
    assert not set(found) & set("/\\\0\n\r\t")
    assert ".." not in found
    assert not found.startswith(".")


@pytest.mark.parametrize("image", ["患者一", "Müller 2", "a.b-c_(1)", "Ⅳ期"])
def test_ids_of_any_script_pass(image: str) -> None:
    asked = scope("/datastore/image", query=urlencode({"image": image}))
    assert guard.check_query(asked, guard.check_path(asked)[1]) == {"image": image}


DANGEROUS = {
    "bundle_path": "/tmp/x",
    "train_ds": "/tmp/x.json",
    "val_ds": "/tmp/x.json",
    "tracking_uri": "http://evil.example",
    "tracking": "mlflow",
    "name": "../x",
    "gpus": "0",
    "model": "other",
    "pretrained": True,
    "multi_gpu": True,
    "local_rank": 1,
}


@pytest.mark.parametrize("key", DANGEROUS)
@pytest.mark.parametrize("path", ["/train/tiny", "/train/"])
def test_dangerous_train_keys_are_named(path: str, key: str) -> None:
    values = {key: DANGEROUS[key]}
    body = values if path == "/train/tiny" else {"tiny": values}
    with pytest.raises(
        BadInput, match=rf"key '{key}' is not allowed; allowed: client_id, device, epochs, minutes, seed"
    ):
        body_of(path, "POST", json.dumps(body).encode())


@pytest.mark.parametrize(
    "key", ["image", "label", "model_filename", "session", "study", "bundle_path", "result_write_to_file"]
)
def test_dangerous_infer_keys_are_named(key: str) -> None:
    content, kind = form([("params", json.dumps({key: "/etc/passwd"}))])
    with pytest.raises(BadInput, match=f"'{key}' is not allowed"):
        body_of("/infer/tiny", "POST", content, kind)


@pytest.mark.parametrize(
    "body",
    [b"[]", b"3", b'"x"', b"{", b'{"minutes": NaN}', b'{"minutes": 1e999}', b'{"minutes": "1"}', b'{"minutes": true}',
     b'{"minutes": -1}', b'{"seed": [1]}', b"\xff\xfe", b"[" * 100_000],
)  # fmt: skip
def test_bad_json_is_refused(body: bytes) -> None:
    with pytest.raises(BadInput):
        body_of("/train/tiny", "POST", body)


def test_what_the_viewers_send_passes() -> None:
    slicer = {"minutes": 0.0, "epochs": 12, "seed": 0, "client_id": "user-xyz"}
    assert body_of("/train/tiny", "POST", json.dumps(slicer).encode()) == []
    assert body_of("/train/", "POST", json.dumps({"tiny": slicer, "client_id": None}).encode()) == []
    assert body_of("/train/tiny", "POST", b"") == []
    ohif = {"result_extension": ".nrrd", "result_dtype": "uint8", "result_compress": False, "restore_label_idx": False}
    content, kind = form([("params", json.dumps(ohif))])
    assert body_of("/infer/tiny", "POST", content, kind) == []
    info = {"label_info": [{"name": "lesion", "idx": 1}], "client_id": "user-xyz", "model": "tiny"}
    content, kind = form([("params", json.dumps(info)), ("label", ("/tmp/tmpabc.nii.gz", b"x"))])
    assert body_of("/datastore/label", "PUT", content, kind) == ["tmpabc.nii.gz"]
    content, kind = form(
        [("client_id", "user-xyz"), ("files", ("a", b"\0" * 128 + b"DICM")), ("files", ("b.dcm", b""))]
    )
    assert body_of("/session/", "PUT", content, kind) == ["a", "b.dcm"]


@pytest.mark.parametrize(
    ("path", "field", "name"),
    [
        ("/session/", "files", "sitecustomize.py"),
        ("/session/", "files", ".."),
        ("/session/", "files", "a.so"),
        ("/session/", "file", "a.nii.gz"),
        ("/datastore/label", "label", "label.py"),
        ("/datastore/label", "label", "label.bin"),
        ("/datastore/image", "file", "a.pt"),
        ("/infer/tiny", "label", "a.nii.gz"),
        ("/infer/tiny", "file", "x" * 300 + ".nii.gz"),
    ],
)
def test_files_that_are_no_images_are_refused(path: str, field: str, name: str) -> None:
    content, kind = form([(field, (name, b"import os"))])
    with pytest.raises(BadInput):
        body_of(path, "POST" if path.startswith("/infer") else "PUT", content, kind)


def test_reserved_info_keys_are_refused() -> None:
    content, kind = form([("info", '{"path": "/etc/passwd"}')])
    with pytest.raises(BadInput, match="'path' is reserved"):
        body_of("/datastore/image/info", "PUT", content, kind)


def test_repeated_form_field_is_refused() -> None:
    content, kind = form([("params", "{}"), ("params", '{"image": "/etc"}')])
    with pytest.raises(BadInput, match="twice"):
        body_of("/infer/tiny", "POST", content, kind)


def test_body_above_the_limit_is_refused_while_it_arrives() -> None:
    async def receive() -> dict:
        return {"type": "http.request", "body": b"x" * 1000, "more_body": True}

    with pytest.raises(TooLarge):
        asyncio.run(Body.read(receive, 10_000))
    for size in (10_001, "10001", "-1", "x"):
        with pytest.raises(TooLarge):
            check_length(size, 10_000)


def test_half_a_body_is_not_taken_for_the_whole() -> None:
    messages = iter([{"type": "http.request", "body": b"half", "more_body": True}, {"type": "http.disconnect"}])

    async def receive() -> dict:
        return next(messages)

    with pytest.raises(BadInput, match="connection ended"):
        asyncio.run(Body.read(receive, 1000))


def test_body_can_be_read_twice() -> None:
    content = bytes(range(256)) * 10_000
    chunks = [content[i : i + 70_000] for i in range(0, len(content), 70_000)]

    async def read(receive) -> bytes:
        found, more = b"", True
        while more:
            message = await receive()
            found, more = found + message["body"], message["more_body"]
        return found

    async def check() -> None:
        left = iter(chunks)
        last = chunks[-1]

        async def receive() -> dict:
            chunk = next(left)
            return {"type": "http.request", "body": chunk, "more_body": chunk is not last}

        body = await Body.read(receive, 10**9)
        assert await read(body.replay()) == content
        assert await read(body.replay()) == content
        body.close()

    asyncio.run(check())


@pytest.mark.parametrize("server", ["127.0.0.2", "127.255.0.1", "::1", "::ffff:127.0.0.1", "localhost"])
def test_every_loopback_address_refuses_foreign_hosts(server: str) -> None:
    named = f"[{server}]" if ":" in server else server
    for host, fine in ((named, True), ("localhost", True), ("evil.example", False)):
        asked = scope("/info/", headers={"host": f"{host}:8000"}) | {"server": (server, 8000)}
        if fine:
            guard.check_host(asked)
        else:
            with pytest.raises(BadInput, match=r"evil\.example"):
                guard.check_host(asked)


def test_broken_host_and_origin_are_refused() -> None:
    with pytest.raises(BadInput, match="host"):
        guard.check_host(scope("/info/", headers={"host": "["}))
    with pytest.raises(BadInput, match="origin"):
        guard.check_origin(scope("/info/", headers={"origin": "http://["}))


@pytest.mark.parametrize(
    "text", ['{"a": NaN}', '{"a": [-Infinity]}', '{"a": 1e999}', '{"a": "\\ud800"}', '{"\\udfff": 1}']
)
def test_what_only_python_takes_for_json_is_refused(text: str) -> None:
    content, kind = form([("info", text)])
    with pytest.raises(BadInput, match="is not JSON"):
        body_of("/datastore/image/info", "PUT", content, kind)


def test_a_number_without_end_is_refused() -> None:
    with pytest.raises(BadInput, match="epochs"):
        body_of("/train/tiny", "POST", b'{"epochs": ' + b"1" * 400 + b"}")


@pytest.mark.parametrize("upload", [("slice.dcm", b"x"), ("IM0001", b"\0" * 128 + b"DICM")])
def test_dicom_as_a_study_says_where_to_send_it(upload: tuple[str, bytes]) -> None:
    content, kind = form([("file", upload)])
    with pytest.raises(BadInput, match=r"radloop import.*session"):
        body_of("/datastore/image", "PUT", content, kind)


def test_too_many_files_are_to_be_a_zip() -> None:
    content, kind = form([("files", (f"{n}.dcm", b"")) for n in range(1001)])
    with pytest.raises(BadInput, match="ZIP"):
        body_of("/session/", "PUT", content, kind)
