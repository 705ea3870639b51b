"""What replies look like: errors as JSON that say what to do, no paths of the server, headers for browsers."""

from __future__ import annotations

import errno
import json
import logging
import tempfile
from collections.abc import Iterable
from pathlib import Path

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from monailabel.interfaces.exception import MONAILabelError, MONAILabelException
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Message, Send

from radloop.recipes.errors import BadInput, NoSpace, RadloopError

logger = logging.getLogger(__name__)
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


def error_reply(error: Exception) -> Response:
    """The reply to a failure: `{"error": {"message", "kind"}}` with its HTTP status; the unexpected is a bare 500."""
    status, message = 500, "the server failed; its log says why"
    kind = type(error).__name__
    if isinstance(error, RadloopError):
        status, message = error.http_status, str(error)
    elif isinstance(error, MONAILabelException):
        known = error.error in (MONAILabelError.INVALID_INPUT, MONAILabelError.APP_INIT_ERROR)
        status, kind = (400, "BadInput") if known else (500, "ServerError")
        message = str(error.msg) if known else message
    elif isinstance(error, RequestValidationError):
        found = error.errors()[0]
        status, kind = 400, BadInput.__name__
        message = f"{'.'.join(map(str, found.get('loc', ())))}: {found.get('msg', 'is not valid')}"
    elif isinstance(error, HTTPException):
        status, message = error.status_code, str(error.detail)
    elif is_full(error):
        status, kind, message = (
            NoSpace.http_status,
            NoSpace.__name__,
            "the server's disk is full or read-only; nothing was saved",
        )
    else:
        kind = "ServerError"
    return JSONResponse({"error": {"message": " ".join(message.split()), "kind": kind}}, status)


def is_full(error: BaseException) -> bool:
    """Whether a failure means that the disk is full or read-only, also as SQLite says it."""
    if isinstance(error, OSError) and error.errno in FULL:
        return True
    text = str(error)
    return "database or disk is full" in text or "attempt to write a readonly database" in text


def is_expected(error: BaseException) -> bool:
    """Whether a failure is an answer to the client rather than a fault to log in full."""
    return isinstance(error, RadloopError | MONAILabelException | HTTPException | RequestValidationError)


def answer_errors(host: FastAPI) -> None:
    """Makes MONAI Label answer failures with `error_reply` instead of plain text and a traceback."""

    async def handle(request: Request, error: Exception) -> Response:
        if not is_expected(error):
            logger.error("%s %s failed", request.method, request.url.path, exc_info=error)
        return error_reply(error)

    for kind in (RadloopError, MONAILabelException, HTTPException, RequestValidationError, OSError, Exception):
        host.add_exception_handler(kind, handle)


class Reply:
    """Sends a reply on, with the headers browsers need and without the server's paths in JSON.

    Args:
        send: takes the messages.
        origin: the origin that may read the reply, or empty.
        hidden: folders of the server that no JSON reply may show, longest first.
    """

    def __init__(self, send: Send, origin: str, hidden: Iterable[str] = ()) -> None:
        self._send, self._origin, self._hidden = send, origin, tuple(hidden)
        self._start: Message | None = None
        self._body = b""
        self.started = False

    async def __call__(self, message: Message) -> None:
        """Takes one ASGI message."""
        if message["type"] == "http.response.start":
            self.started = True
            headers = [(k, v) for k, v in message["headers"] if not k.lower().startswith(b"access-control-")]
            message = {**message, "headers": [*headers, *self._headers()]}
            if dict(headers).get(b"content-type", b"").startswith(b"application/json"):
                self._start = message
                return
        elif self._start and message["type"] == "http.response.body":
            self._body += message.get("body", b"")
            if not message.get("more_body"):
                await self._send_scrubbed()
            return
        await self._send(message)

    def _headers(self) -> list[tuple[bytes, bytes]]:
        headers = [(b"x-content-type-options", b"nosniff"), (b"cache-control", b"no-store")]
        if self._origin:
            headers += [(b"access-control-allow-origin", self._origin.encode("latin-1")), (b"vary", b"Origin")]
        return headers

    async def _send_scrubbed(self) -> None:
        start, body = self._start or {}, self._body
        self._start = None
        for folder in self._hidden:
            body = body.replace(folder.encode(), b"<server>").replace(json.dumps(folder)[1:-1].encode(), b"<server>")
        if len(body) != len(self._body):
            headers = [(k, str(len(body)).encode() if k == b"content-length" else v) for k, v in start["headers"]]
            start = {**start, "headers": headers}
        await self._send(start)
        await self._send({"type": "http.response.body", "body": body})


def hidden_folders(*folders: str | Path) -> tuple[str, ...]:
    """The folders to hide from replies: those given, the interpreter's and the temp folder; longest first."""
    import sys

    names = {str(f) for f in (*folders, sys.prefix, tempfile.gettempdir(), Path.home()) if len(str(f)) > 1}
    names |= {str(Path(n).resolve()) for n in names}
    return tuple(sorted(names - {"/"}, key=len, reverse=True))


def preflight(origin: str) -> Response:
    """The reply to a browser's question whether it may send a request."""
    headers = {
        "access-control-allow-methods": "GET, HEAD, POST, PUT, DELETE",
        "access-control-allow-headers": "content-type, accept",
        "access-control-max-age": "600",
    }
    return Response(status_code=204 if origin else 405, headers=headers if origin else {"allow": "GET"})
