"""Checks every request before MONAI Label sees it: host, origin, path, query, form, JSON and file names.

MONAI Label takes whatever a request names: any path of the server as an image, any key as a parameter, any tag as a
folder. Nothing of that passes here: the rules (`guard_rules`) say what each route takes, anything else is refused with
one line that names the key and what is allowed.
"""

from __future__ import annotations

import ipaddress
import json
import math
import os
import re
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import SplitResult, parse_qsl, urlencode, urlsplit

from starlette.datastructures import FormData, UploadFile
from starlette.requests import Request
from starlette.types import Receive, Scope

from radloop.apps.guard_rules import (
    CLOSED,
    INFO_RESERVED,
    MIB,
    NAME,
    OPEN,
    SESSION,
    STUDIES,
    Call,
    Closed,
    MethodClosed,
    free_info,
)
from radloop.recipes.errors import BadInput, NotFound, closest

LOOPBACK = ("localhost", "127.0.0.1", "::1")
FORM_FILES = 1000  # more of them MONAI Label's form reader refuses
JSON_LIMIT = MIB
BODY_LIMIT = 2048 * MIB
ENCODED = re.compile(rb"%(2e|2f|5c|00|25)", re.IGNORECASE)


def body_limit(call: Call) -> int:
    """The largest body that a call may have, bytes (`RADLOOP_MAX_BODY` sets it for uploads)."""
    return int(os.environ.get("RADLOOP_MAX_BODY", BODY_LIMIT)) if call.body == "form" else JSON_LIMIT


def header(scope: Scope, name: bytes) -> str:
    """A request header, or an empty string."""
    return next((value.decode("latin-1") for key, value in scope["headers"] if key == name), "")


def check_host(scope: Scope) -> None:
    """Refuses a foreign `Host` on a loopback server, so that no web page can reach it by rebinding its own name.

    Raises:
        BadInput: the host is neither loopback nor in `RADLOOP_ALLOWED_HOSTS` (comma list).
    """
    server = (scope.get("server") or ("",))[0]
    name = _split(f"//{header(scope, b'host')}", "host").hostname or ""
    configured = [h.strip() for h in os.environ.get("RADLOOP_ALLOWED_HOSTS", "").split(",")]
    allowed = tuple(dict.fromkeys([*LOOPBACK, server, *filter(None, configured)]))
    if _is_loopback(server) and name not in allowed:
        msg = f"host {name!r} is not served; use one of {', '.join(allowed)} or set RADLOOP_ALLOWED_HOSTS"
        raise BadInput(msg)


def _is_loopback(server: str) -> bool:
    """Whether the server listens on this machine only: on `localhost` or any of 127.0.0.0/8 and ::1."""
    try:
        address = ipaddress.ip_address(server)
    except ValueError:
        return server == "localhost"
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback


def _split(url: str, what: str) -> SplitResult:
    try:
        return urlsplit(url)
    except ValueError as error:
        msg = f"the {what} {url[:80]!r} is not valid: {error}"
        raise BadInput(msg) from error


def check_origin(scope: Scope) -> str:
    """Lets pages of this server and of this machine in, and those of `MONAI_LABEL_CORS_ORIGINS` (a JSON list).

    Returns:
        The origin to allow in the reply, empty where the request names none.

    Raises:
        Closed: another web page's script sent the request.
    """
    origin = header(scope, b"origin")
    if not origin:
        return ""
    parts = _split(origin, "origin")
    configured = [o.rstrip("/") for o in json.loads(os.environ.get("MONAI_LABEL_CORS_ORIGINS") or "[]")]
    if parts.hostname in LOOPBACK or parts.netloc == header(scope, b"host") or origin in configured:
        return origin
    msg = f"origin {origin!r} may not use this server; add it to MONAI_LABEL_CORS_ORIGINS"
    raise Closed(msg)


def check_path(scope: Scope) -> tuple[str, Call, str]:
    """Finds the call that a request means.

    Returns:
        The canonical path, the call, and the name in the path (a model, strategy or session), if any.

    Raises:
        BadInput: the path holds `..`, an encoded separator or a control character.
        NotFound, Closed, MethodClosed: no such route, or a route closed here.
    """
    path: str = scope["path"]
    bad = ".." in path or "\\" in path or "//" in path or "%" in path or not path.isprintable()
    if bad or ENCODED.search(scope.get("raw_path") or b""):
        msg = "the path holds '..', an encoded separator or a control character"
        raise BadInput(msg)
    for prefix, error, reason in CLOSED:
        if (path.startswith(prefix) or f"{path}/" == prefix) and not path.startswith("/model/info/"):
            msg = f"{scope['method']} {path} is closed: {reason}"
            raise error(msg)
    found = _route(path)
    if not found:
        msg = f"there is no {path} here; GET / says what there is, GET /docs lists the interface"
        raise NotFound(msg)
    canonical, methods, name = found
    if scope["method"] not in methods:
        msg = f"{scope['method']} {path} is closed; open here: {', '.join(methods)}"
        raise MethodClosed(msg)
    return canonical, methods[scope["method"]], name


def _route(path: str) -> tuple[str, dict[str, Call], str] | None:
    """The canonical path (MONAI Label's own slashes), its methods and the name in it."""
    for candidate in (path, path.rstrip("/"), f"{path}/"):
        if candidate in OPEN:
            return candidate, OPEN[candidate], ""
    path = path.rstrip("/")
    parent, _, name = path.rpartition("/")
    for hole, pattern in (("{name}", NAME), ("{session}", SESSION)):
        if f"{parent}/{hole}" in OPEN and pattern.fullmatch(name):
            return path, OPEN[f"{parent}/{hole}"], name
    if path.startswith("/static/"):
        return path, OPEN["/static/{rest}"], ""
    return None


def check_query(scope: Scope, call: Call) -> dict[str, str]:
    """Checks the query's keys and values.

    Returns:
        The query.

    Raises:
        BadInput: an unknown, repeated or missing key, or a value that is not allowed.
    """
    try:
        pairs = parse_qsl(
            scope["query_string"].decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=20
        )
    except ValueError as error:
        msg = "the query is not valid UTF-8, or has more than 20 fields"
        raise BadInput(msg) from error
    query = dict(pairs)
    if len(query) != len(pairs):
        msg = "a query key is given twice"
        raise BadInput(msg)
    check_keys(query, call.query, "query")
    for key in call.required:
        if key not in query:
            msg = f"query key {key!r} is missing"
            raise BadInput(msg)
    return query


def check_keys(values: Mapping[str, Any], allowed: Mapping[str, Any] | None, where: str) -> None:
    """Checks keys and values against a call's rules; `None` takes any key that is not reserved.

    Raises:
        BadInput: names the key, what is wrong with it, and what is allowed.
    """
    for key, value in values.items():
        if allowed is None:
            reason = f"is reserved ({', '.join(INFO_RESERVED)} are)" if key in INFO_RESERVED else free_info(value)
        elif key in allowed:
            reason = allowed[key](value)
        else:
            reason = f"is not allowed; allowed: {', '.join(sorted(allowed)) or 'none'}{closest(key, allowed)}"
        if reason:
            msg = f"{where} key {key[:80]!r} {reason}"
            raise BadInput(msg)


def parse_object(content: bytes | str, where: str) -> dict[str, Any]:
    """A JSON object; empty content is an empty object.

    Raises:
        BadInput: not JSON, or not an object; NaN, infinity and half characters are no JSON, though Python takes them.
    """
    try:
        value = json.loads(content, parse_constant=_finite, parse_float=_finite) if content.strip() else {}
        json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        msg = f"{where} is not JSON: {error}"
        raise BadInput(msg) from error
    if not isinstance(value, dict):
        msg = f"{where} must be a JSON object"
        raise BadInput(msg)
    return value


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        msg = f"{text[:20]} is not a finite number"
        raise ValueError(msg)
    return value


async def check_body(scope: Scope, receive: Receive, call: Call, tasks: Iterable[str]) -> list[str]:
    """Checks a request's body.

    Args:
        scope: the request.
        receive: gives the body from its start.
        call: what the route takes.
        tasks: names of the tasks that a `nested` body may hold parameters for.

    Returns:
        The names of the uploaded files.

    Raises:
        BadInput: names the key, field or file and what is allowed.
    """
    request = Request(scope, receive)
    if call.body in ("json", "nested"):
        values = parse_object(await request.body(), "the body")
        _check_json(values, call, list(tasks))
    elif call.body == "form":
        async with request.form(max_files=20_000, max_fields=100) as form:
            return await _check_form(form, call)
    return []


def _check_json(values: dict[str, Any], call: Call, tasks: list[str]) -> None:
    if call.body == "json":
        check_keys(values, call.keys, "body")
        return
    for name, value in values.items():
        if name not in tasks:
            check_keys({name: value}, {**dict.fromkeys(tasks), "client_id": (call.keys or {})["client_id"]}, "body")
        elif isinstance(value, dict):
            check_keys(value, call.keys, f"body {name!r}")
        else:
            msg = f"body key {name!r} must be an object of parameters"
            raise BadInput(msg)


async def _check_form(form: FormData, call: Call) -> list[str]:
    names: list[str] = []
    seen: set[str] = set()
    if sum(isinstance(value, UploadFile) for _, value in form.multi_items()) > FORM_FILES:
        msg = f"a form takes at most {FORM_FILES} files; send them as one ZIP, with ?uncompress=true"
        raise BadInput(msg)
    for key, value in form.multi_items():
        if key in seen and not (call.many and key in call.files):
            msg = f"form field {key!r} is given twice"
            raise BadInput(msg)
        seen.add(key)
        if isinstance(value, UploadFile):
            names.append(await _check_file(key, value, call))
        elif key == call.json_field:
            check_keys(parse_object(value, f"form field {key!r}"), call.keys, f"form field {key!r}:")
        elif key not in call.texts:
            allowed = sorted({call.json_field, *call.texts, *call.files})
            msg = f"form field {key[:80]!r} is not allowed; allowed: {', '.join(allowed)}"
            raise BadInput(msg)
    return names


async def _check_file(key: str, upload: UploadFile, call: Call) -> str:
    if key not in call.files:
        msg = f"file field {key[:80]!r} is not allowed; allowed: {', '.join(call.files) or 'none'}"
        raise BadInput(msg)
    name = re.split(r"[/\\]", upload.filename or "")[-1]
    endings = call.files[key]
    if not name.strip(". ") or not name.isprintable() or len(name.encode()) > 250:
        msg = f"file name {name[:80]!r} cannot be used; give a plain name that ends with one of {', '.join(endings)}"
        raise BadInput(msg)
    if endings == STUDIES and (name.lower().endswith((".dcm", ".ima")) or await is_dicom(upload)):
        msg = f"{name!r} is DICOM, which is no study by itself; `radloop import` its series, or send it to /session/"
        raise BadInput(msg)
    if not name.lower().endswith(endings) and not (".dcm" in endings and await is_dicom(upload)):
        msg = f"{name!r} is not taken; {key} must be a file ending with one of {', '.join(endings)}"
        raise BadInput(msg)
    return name


async def is_dicom(upload: UploadFile) -> bool:
    """Whether a file without a known ending starts as a DICOM file does (PS3.10: `DICM` after 128 bytes)."""
    start = await upload.read(132)
    await upload.seek(0)
    return start[128:132] == b"DICM"


def named_after(name: str) -> str:
    """The study id that an uploaded file's name stands for: without its known ending."""
    from radloop.apps.guard_rules import IMAGES

    return next((name[: -len(e)] for e in IMAGES if name.lower().endswith(e)), name)


def with_query(scope: Scope, **more: str) -> Scope:
    """The request with query keys added."""
    pairs = parse_qsl(scope["query_string"].decode("ascii"), keep_blank_values=True)
    return {**scope, "query_string": urlencode([*pairs, *more.items()]).encode()}
