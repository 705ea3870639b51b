"""MONAI Label's server as a child process: one a home, ready when it answers, gone with its trainings when stopped."""

from __future__ import annotations

import fcntl
import functools
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import NoReturn

from radloop.recipes.errors import Conflict, RadloopError
from radloop.studies.home import Home
from radloop.trainers.lifeline import Lifeline

READY_WITHIN = 300.0
"""Seconds until the server must answer; imports alone take half a minute on two slow cores."""
STOPS_WITHIN = 10.0
"""Seconds for open answers to end before the process group is killed."""


PARENT = "RADLOOP_SERVED_BY"
"""Environment variable with the process id of `radloop serve`, for the server that belongs to it."""
SERVER = "RADLOOP_SERVER"
"""Environment variable with the process id of the server, for its trainings and batch jobs."""


class ServerFailed(RadloopError):
    """The server ended by itself, or never answered."""


@dataclass(frozen=True)
class Address:
    """Where the server listens."""

    host: str
    port: int

    @property
    def url(self) -> str:
        """What viewers are given."""
        return f"http://[{self.host}]:{self.port}" if ":" in self.host else f"http://{self.host}:{self.port}"

    def check_free(self) -> None:
        """Raises Conflict where somebody listens already.

        The child binds the address itself a moment later; should somebody take it in between, it ends with a message.
        """
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as uvicorn does: a port in TIME_WAIT is free
            try:
                probe.bind((self.host, self.port))
            except OSError as error:
                msg = f"port {self.port} on {self.host} cannot be used ({error.strerror}); choose another with --port"
                raise Conflict(msg) from error


class ServerProcess:
    """A running server; leaving the `with` block ends it and everything it started.

    Args:
        home: whose state it serves; a second server on the same home is refused.
        address: where it listens.
        arguments: of `monailabel start_server`, without host and port.
        env: the whole environment of the child.
        show: let the child write to this terminal instead of `<home>/logs/server.log`.

    Raises:
        Conflict: the port is taken, or a server of this home is running.
        ServerFailed: from `start`; the message has the log's last line and where the log is.
    """

    def __init__(
        self, home: Home, address: Address, arguments: Sequence[str], env: Mapping[str, str], show: bool = False
    ) -> None:
        self.home = home
        self.address = address
        self.log = home.logs / "server.log"
        self._arguments = arguments
        self._env = dict(env)
        self._show = show
        self._lock = -1
        self._child: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> ServerProcess:
        self._lock = _lock_home(self.home)
        try:
            self.address.check_free()
            self._child = self._spawn()
            _sign_lock(self._lock, self._child.pid)
            self._wait_until_ready(self._child)
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def wait(self) -> None:
        """Returns never while the server runs; raises ServerFailed when it ends by itself."""
        if self._child is not None:
            self._child.wait()
            self._fail("ended")

    def stop(self) -> None:
        """Ends the server and its trainings: asked first, killed after `STOPS_WITHIN` seconds."""
        child, self._child = self._child, None
        try:
            if child is not None:
                _end_group(child)
        finally:
            if self._lock >= 0:
                os.close(self._lock)
                self._lock = -1

    def _spawn(self) -> subprocess.Popen[bytes]:
        # -m and not the script `monailabel`, which runs whatever `python` comes first in PATH and does not quote
        command = [sys.executable, "-m", "monailabel.main", "start_server", *self._arguments]
        command += ["--host", self.address.host, "--port", str(self.address.port)]
        out = None if self._show else _fresh_log(self.log)
        try:
            return subprocess.Popen(
                command,
                env={**self._env, PARENT: str(os.getpid()), SERVER: ""},
                cwd=self.home.path,  # MONAI Label reads a `.env` of its working directory: never the user's
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT if out is not None else None,
                start_new_session=True,  # Ctrl-C reaches this process only, which then ends the group in order
                pass_fds=(self._lock,),  # the home stays locked for as long as the server lives, even without us
            )
        finally:
            if out is not None:
                os.close(out)

    def _wait_until_ready(self, child: subprocess.Popen[bytes]) -> None:
        import requests

        session = requests.Session()
        session.trust_env = False  # a proxy of the environment must not stand between us and loopback
        until = time.monotonic() + READY_WITHIN
        while time.monotonic() < until:
            if child.poll() is not None:
                self._fail("could not start")
            try:
                reply = session.get(f"{self.address.url}/info/", timeout=30)
            except requests.RequestException:
                time.sleep(0.3)
                continue
            if reply.ok:
                return
            self._fail(f"answers /info/ with {reply.status_code}")
        self._fail(f"did not answer within {READY_WITHIN:.0f} s")

    def _fail(self, what: str) -> NoReturn:
        if self._show:
            msg = f"the server {what}; see above"
            raise ServerFailed(msg)
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines() if self.log.exists() else []
        last = next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")
        msg = f"the server {what}: {last[-300:]} (log: {self.log})"
        raise ServerFailed(msg)


def _fresh_log(path: Path) -> int:
    """An open log; the one before is kept as `<name>.1`."""
    if path.exists():
        path.replace(path.with_name(f"{path.name}.1"))
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)


def _lock_home(home: Home) -> int:
    """Holds `<home>/server.lock` for this process and its child; returns the open file.

    Raises:
        Conflict: a server of this home is running.
    """
    home.path.mkdir(parents=True, exist_ok=True)
    lock = os.open(home.path / "server.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        holder = os.pread(lock, 32, 0).decode(errors="replace").strip()
        os.close(lock)
        msg = f"a server of {home.path} is running (process {holder or 'unknown'}); stop it, or use another --home"
        raise Conflict(msg) from error
    return lock


def claim(home: Home) -> None:
    """Called by the server itself: makes sure that it is the only one of its home, and ends with what started it.

    `radloop serve` has locked the home for its server already; one started otherwise locks it here, until it ends.

    Raises:
        Conflict: another server of this home is running.
    """
    global _claimed
    if _holder(home) != os.getpid():
        _claimed = _lock_home(home)
        _sign_lock(_claimed, os.getpid())
    started_by = os.environ.get(PARENT)
    if started_by and _holder(home) == os.getpid() and _claimed < 0:
        Lifeline(int(started_by))
    os.environ[SERVER] = str(os.getpid())


_claimed = -1  # the lock, held for as long as the process lives


@functools.cache
def server_lifeline() -> Lifeline | None:
    """In a training or batch job of a server, what ends it with that server; None in any other process."""
    server = os.environ.get(SERVER, "")
    return Lifeline(int(server)) if server.isdecimal() and int(server) != os.getpid() else None


def _holder(home: Home) -> int:
    """The process that the lock is signed with; 0 where nobody holds it."""
    if not is_serving(home):
        return 0
    text = (home.path / "server.lock").read_text(errors="replace").strip()
    return int(text) if text.isdecimal() else 0


def is_serving(home: Home) -> bool:
    """Whether a server of this home is running."""
    try:
        lock = os.open(home.path / "server.lock", os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(lock)
    return False


def _sign_lock(lock: int, pid: int) -> None:
    os.ftruncate(lock, 0)
    os.pwrite(lock, f"{pid}\n".encode(), 0)


def _end_group(child: subprocess.Popen[bytes]) -> None:
    try:
        _signal_group(child, signal.SIGTERM)
        child.wait(STOPS_WITHIN)
    except subprocess.TimeoutExpired:
        pass  # killed below, like trainings that outlive the server
    finally:
        _signal_group(child, signal.SIGKILL)
        child.wait()


def _signal_group(child: subprocess.Popen[bytes], number: signal.Signals) -> None:
    try:
        os.killpg(child.pid, number)
    except ProcessLookupError:
        return  # all of them have ended
