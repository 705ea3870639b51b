"""Runs MONAI Label's endpoints off the event loop: each request in a worker thread with a loop of its own.

MONAI Label's endpoints are coroutines that compute: run on the server's loop, one inference would hold up every other
request. Requests have lanes, each with its own threads, so that waiting inferences cannot starve `/info/`.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import IO

from starlette.types import Message, Receive, Send

from radloop.apps.guard_rules import MIB, TooLarge
from radloop.recipes.errors import BadInput

THREADS = {"info": 4, "infer": 16, "next": 8, "other": 24}
SEND_SECONDS = 120.0  # a client that takes nothing for so long is gone
CHUNK = 64 * 1024


class Lanes:
    """Worker threads by lane."""

    def __init__(self) -> None:
        self._pools = {
            lane: ThreadPoolExecutor(count, thread_name_prefix=f"radloop-{lane}") for lane, count in THREADS.items()
        }

    async def run(self, lane: str, call: Callable[[], Awaitable[None]]) -> None:
        """Runs a coroutine function to its end in a thread of the lane, on that thread's own loop."""

        async def alone() -> None:
            await call()

        await asyncio.get_running_loop().run_in_executor(self._pools[lane], lambda: asyncio.run(alone()))

    def close(self) -> None:
        """Lets the threads end; requests that wait are dropped."""
        for pool in self._pools.values():
            pool.shutdown(wait=False, cancel_futures=True)


def forwarded(send: Send) -> Send:
    """A `send` for a worker thread's loop that hands each message to the server's loop and waits until it is sent."""
    loop = asyncio.get_running_loop()

    async def forward(message: Message) -> None:
        asyncio.run_coroutine_threadsafe(_sent(send, message), loop).result(SEND_SECONDS)

    return forward


async def _sent(send: Send, message: Message) -> None:
    await send(message)


class Body:
    """A request's body, spooled to disk above 1 MiB, that can be read more than once."""

    def __init__(self, spool: IO[bytes]) -> None:
        self._spool = spool

    @classmethod
    async def read(cls, receive: Receive, limit: int) -> Body:
        """Takes the whole body from the client.

        Raises:
            TooLarge: it is longer than `limit` bytes.
        """
        spool = tempfile.SpooledTemporaryFile(max_size=MIB)  # noqa: SIM115 - closed by `close`
        size, more = 0, True
        try:
            while more:
                message = await receive()
                check_connected(message)
                chunk, more = message.get("body", b""), message.get("more_body", False)
                size += len(chunk)
                check_length(size, limit)
                if size > MIB:
                    await asyncio.to_thread(spool.write, chunk)
                else:
                    spool.write(chunk)
        except BaseException:
            spool.close()
            raise
        return cls(spool)  # type: ignore[arg-type]

    def replay(self) -> Receive:
        """A `receive` that gives the body from its start."""
        self._spool.seek(0)
        ended = False

        async def receive() -> Message:
            nonlocal ended
            if ended:
                await asyncio.Event().wait()  # what a client that stays connected sends: nothing
            chunk = self._spool.read(CHUNK)
            ended = len(chunk) < CHUNK
            return {"type": "http.request", "body": chunk, "more_body": not ended}

        return receive

    def close(self) -> None:
        """Frees the disk."""
        self._spool.close()


def check_connected(message: Message) -> None:
    """Refuses a body that ends because its client went away; a part of a file must not be taken for the file.

    Raises:
        BadInput: the client is gone.
    """
    if message["type"] == "http.disconnect":
        msg = "the connection ended before the body did; send it again"
        raise BadInput(msg)


def check_length(size: int | str, limit: int) -> None:
    """Refuses a body, or a content length, that is above the limit.

    Raises:
        TooLarge: it is longer than `limit` bytes, or no length at all.
    """
    if not str(size or 0).isdigit() or int(size or 0) > limit:
        msg = f"the body is larger than {limit / MIB:g} MiB; RADLOOP_MAX_BODY sets the limit for uploads, in bytes"
        raise TooLarge(msg)
