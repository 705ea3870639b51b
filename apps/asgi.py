"""The server's application: MONAI Label's own, behind the guard and off the event loop.

    python -m monailabel.main start_server --uvicorn_app radloop.apps.asgi:app ...

`radloop serve` starts it so. One request goes: host and origin -> path, query -> body (spooled) -> worker thread ->
form, JSON and names -> MONAI Label -> reply without paths.
"""

from __future__ import annotations

import functools
import logging
from typing import Any
from urllib.parse import parse_qsl, urlencode

from monailabel.app import app as host
from monailabel.interfaces.utils.app import app_instance
from monailabel.utils.async_tasks import utils as background
from starlette.responses import HTMLResponse
from starlette.types import Receive, Scope, Send

from radloop.apps import guard
from radloop.apps.bridge import Body, Lanes, check_length, forwarded
from radloop.apps.guard_rules import Call
from radloop.apps.next_case import ROUTE, next_case
from radloop.apps.page import status_page
from radloop.apps.replies import Reply, answer_errors, error_reply, hidden_folders, is_expected, preflight
from radloop.apps.sessions import asked_image
from radloop.recipes.errors import BadInput, Conflict, NotFound, closest
from radloop.studies.folder import valid_id
from radloop.studies.label_tags import asked_recipe

logger = logging.getLogger(__name__)
TASKS = ("train", "batch_infer", "scoring")
BUSY = ("SUBMITTED", "RUNNING")


class GuardedServer:
    """MONAI Label's application behind the guard."""

    def __init__(self) -> None:
        answer_errors(host)
        self._lanes = Lanes()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request; the start and the end of the server go to MONAI Label as they are."""
        if scope["type"] == "lifespan":
            try:
                await host(scope, receive, send)
            finally:
                stop_children()
                self._lanes.close()
        elif scope["type"] == "http":
            await self._answer(scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": 1008})

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        reply = Reply(send, "", hidden())
        body = None
        try:
            guard.check_host(scope)
            origin = guard.check_origin(scope)
            reply = Reply(send, origin, hidden())
            if scope["method"] == "OPTIONS":
                await preflight(origin)(scope, receive, reply)
                return
            path, call, name = guard.check_path(scope)
            inner = _clean(scope, path)
            query = guard.check_query(inner, call)
            limit = guard.body_limit(call)
            check_length(guard.header(scope, b"content-length"), limit)
            body = await Body.read(receive, limit)
            job = functools.partial(_serve, inner, body, forwarded(reply), call, name, query)
            await self._lanes.run(call.lane, job)
        except Exception as error:
            if not is_expected(error):
                logger.error("%s %s failed", scope["method"], scope["path"], exc_info=error)  # noqa: TRY400
            if not reply.started:
                await error_reply(error)(scope, receive, reply)
        finally:
            if body:
                body.close()


async def _serve(scope: Scope, body: Body, send: Send, call: Call, name: str, query: dict[str, str]) -> None:
    """Checks the rest of a request and lets MONAI Label answer it; runs in a worker thread."""
    instance = app_instance()
    if scope["path"] == "/":
        page = HTMLResponse(status_page(instance) if scope["method"] == "GET" else "")
        await page(scope, body.replay(), send)
        return
    tasks = instance.task_names(call.task) if call.task else ()
    if call.task and name and name not in tasks:
        msg = f"there is no {name!r} in {call.task}; there is: {', '.join(tasks) or 'none'}{closest(name, tasks)}"
        raise NotFound(msg)
    files = await guard.check_body(scope, body.replay(), call, tasks)
    _check_state(scope, name, query, instance, files)
    if scope["method"] == "PUT" and scope["path"] in ("/datastore/", "/datastore/image") and not query.get("image"):
        scope = guard.with_query(scope, image=_checked_name(files))
    asked_image.set(scope["radloop.image"])  # this thread's loop is for this request alone
    asked_recipe.set(query.get("recipe", ""))
    if scope["path"].startswith(ROUTE):
        await next_case(scope, body.replay(), send, instance, name)
        return
    stops = _running() if scope["path"] == "/train/" and scope["method"] == "DELETE" else None
    try:
        await host(scope, body.replay(), send)
    finally:
        instance.datastore().finish_reply()
        if stops:
            instance.stopped(*stops)


def _running() -> tuple[dict[str, Any], int] | None:
    """What was asked of the training that MONAI Label would stop, as `stop_background_task` chooses it, and its pid."""
    for number, process in list(background.processes("train").items())[:1]:
        return next(((t["request"], process.pid) for t in background.tasks("train") if t["id"] == number), None)
    return None


def _check_state(scope: Scope, name: str, query: dict[str, str], instance: object, files: list[str]) -> None:
    """What depends on the server's state: sessions that exist, one training at a time."""
    path, method = scope["path"], scope["method"]
    if path.startswith("/infer/"):
        if not (files or query.get("image") or query.get("session_id")):
            msg = "give an image, a session_id or a file"
            raise BadInput(msg)
        if query.get("session_id"):
            instance.sessions().require(query["session_id"])  # type: ignore[attr-defined]
    if path.startswith("/train/") and method == "POST":
        wanted = {name} if name else set(instance.task_names("trainers"))  # type: ignore[attr-defined]
        busy = sorted(wanted & {t["request"].get("model") for t in background.tasks("train") if t["status"] in BUSY})
        if busy:
            msg = f"{', '.join(busy)} is being trained; wait, or stop it with DELETE /train/"
            raise Conflict(msg)


def _checked_name(files: list[str]) -> str:
    name = guard.named_after(files[0]) if files else ""
    if not files or not valid_id(name):
        msg = f"file name {name!r} gives no study id; name the study with ?image=ID"
        raise BadInput(msg)
    return name


def _clean(scope: Scope, path: str) -> Scope:
    """The request for MONAI Label: canonical path, no origin; a session's image name is kept aside."""
    headers = [(k, v) for k, v in scope["headers"] if k != b"origin"]
    pairs = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
    query = scope["query_string"]
    named = next((v for k, v in pairs if k == "image" and valid_id(v)), "")
    if any(k == "session_id" and v for k, v in pairs):
        query = urlencode([(k, v) for k, v in pairs if k != "image"]).encode()
    return {
        **scope,
        "path": path,
        "raw_path": path.encode(),
        "headers": headers,
        "query_string": query,
        "radloop.image": named,
    }


@functools.lru_cache(maxsize=1)
def _hidden_of(app_dir: str, studies: str, home: str) -> tuple[str, ...]:
    return hidden_folders(app_dir, studies, home)


def hidden() -> tuple[str, ...]:
    """Folders that no JSON reply may show."""
    instance = app_instance()
    return _hidden_of(str(instance.app_dir), str(instance.studies), str(instance.home.path))


def stop_children() -> None:
    """Ends trainings and batch jobs with the server, the waiting ones first; they belong to it."""
    for method in TASKS:
        executor = background.background_executors.get(method)
        if executor:
            executor.shutdown(wait=False, cancel_futures=True)
        while background.processes(method):
            background.stop_background_task(method)


app = GuardedServer()
