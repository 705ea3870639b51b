"""The next study over HTTP: who asks, and the reply.

MONAI Label's own endpoint collects all of `/info/` for each request, which takes seconds with many studies.
"""

from __future__ import annotations

import os
import re
import secrets
import time
from contextvars import ContextVar
from typing import Any

from monailabel.interfaces.app import MONAILabelApp
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from radloop.apps.guard import parse_object
from radloop.recipes.errors import BadInput, RadloopError

ROUTE = "/activelearning/"
COOKIE = "radloop_reader"
COOKIE_SECONDS = 90 * 24 * 3600
asked_reader: ContextVar[str] = ContextVar("asked_reader", default="")
"""Who asks, where the request has no `client_id`."""


async def next_case(scope: Scope, receive: Receive, send: Send, app: MONAILabelApp, name: str) -> None:
    """Answers `POST /activelearning/{name}`: the study's id, why, and what is known of its image.

    A browser that sends no `client_id` gets a cookie, so that two readers are not taken for one.
    """
    request = Request(scope, receive)
    values = parse_object(await request.body(), "the body")
    cookie = request.cookies.get(COOKIE, "")
    fresh = not re.fullmatch(r"[0-9a-f]{32}", cookie)
    reader = secrets.token_hex(16) if fresh else cookie
    asked_reader.set(f"browser {reader[:12]}")
    found: dict[str, Any] = app.next_sample({**values, "strategy": name})
    if found:
        found |= _noted(app, found["id"], name, values)
    reply = JSONResponse(found)
    if fresh and not values.get("client_id"):
        reply.set_cookie(COOKIE, reader, max_age=COOKIE_SECONDS, httponly=True, samesite="strict")
    await reply(scope, request.receive, send)


def _noted(app: MONAILabelApp, study: str, name: str, values: dict[str, Any]) -> dict[str, Any]:
    """What is known of an image; as MONAI Label does, it is noted there who was given it by which strategy."""
    known: dict[str, Any] = app.datastore().get_image_info(study)
    given = {"ts": int(time.time()), "client_id": values.get("client_id") or asked_reader.get()}
    noted = {**known.get("strategy", {}), name: given}
    try:
        app.datastore().update_image_info(study, {"strategy": noted})
    except RadloopError:  # a full disk keeps nobody from reading
        return known
    return {**known, "strategy": noted}


def desk_settings() -> dict[str, Any]:
    """What `radloop serve` was told of strategies: RADLOOP_STRATEGY, RADLOOP_HELD_OUT_EVERY and RADLOOP_SEED.

    Raises:
        BadInput: a number is none.
    """
    found: dict[str, Any] = {}
    if name := os.environ.get("RADLOOP_STRATEGY"):
        found["later"] = name
    for key, variable in (("held_out_every", "RADLOOP_HELD_OUT_EVERY"), ("seed", "RADLOOP_SEED")):
        if text := os.environ.get(variable):
            if not text.isdigit():
                msg = f"{variable} = {text!r} is no whole number"
                raise BadInput(msg)
            found[key] = int(text)
    return found
