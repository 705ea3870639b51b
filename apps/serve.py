"""`radloop serve`: checks what it is given, starts MONAI Label's server with our app, says what to open where."""

from __future__ import annotations

import argparse
import ipaddress
import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import radloop.apps
from radloop.apps.place import open_folder, take_recipe
from radloop.apps.server_process import Address, ServerProcess
from radloop.apps.terminal import NOTICE, WrongUse, plural, say
from radloop.recipes.errors import NotFound
from radloop.studies.folder import StudiesFolder
from radloop.studies.home import Home

SHIPPED_APP = Path(radloop.apps.__file__).parent / "radiology"
ASGI = "radloop.apps.asgi:app"


class Terminated(KeyboardInterrupt):
    """Somebody asked this process to end (SIGTERM, or its terminal closed)."""


def run(options: argparse.Namespace) -> int:
    """The command; returns when the server is stopped."""
    if options.write_back:
        msg = "--write-back: writing to a PACS comes later; accepted labels stay in the ledger"
        raise WrongUse(msg)
    folder = open_folder(options.studies)
    home = Home.find(folder.path, options.home)
    with terminable():
        try:
            with server(folder, home, Address(check_host(options.host), options.port), options) as running:
                say_what_to_open(folder, running)
                running.wait()
        except Terminated:
            return 0
    return 0


def check_host(host: str) -> str:
    """The host, if it is this machine's loopback.

    Raises:
        WrongUse: any other address, which would open the studies to a network without access control.
    """
    try:
        loopback = host == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        loopback = False
    if not loopback:
        msg = (
            f"--host {host} is refused: there is no access control yet, so everybody who reaches that address could "
            "read the studies; use 127.0.0.1 and an SSH tunnel"
        )
        raise WrongUse(msg)
    return "127.0.0.1" if host == "localhost" else host.strip("[]")


def server(folder: StudiesFolder, home: Home, address: Address, options: argparse.Namespace) -> ServerProcess:
    """The server process for these studies, ready to be started; options are those of `serve` that apply."""
    from radloop.apps.host_settings import host_env
    from radloop.studies.ledger import Ledger

    Ledger(home).database.close()  # damaged or too new: said here in one line, not by a server that does not start
    app = copy_app(getattr(options, "app", None) or SHIPPED_APP, home)
    recipes = [take_recipe(given, home).name for given in getattr(options, "recipes", None) or ()]
    env = {**os.environ, **host_env(folder.path, home, list(dict.fromkeys(recipes))), **_about_strategies(options)}
    arguments = ["--app", str(app), "--studies", str(folder.path), "--uvicorn_app", ASGI]
    return ServerProcess(home, address, arguments, env, show=options.verbose)


def _about_strategies(options: argparse.Namespace) -> dict[str, str]:
    """What the server is told of strategies; a name that is none is refused here, in one line."""
    from radloop.strategies.choose import strategy

    name, every = (getattr(options, key, None) for key in ("strategy", "held_out_every"))
    said = {"RADLOOP_STRATEGY": strategy(name).name} if name else {}
    return said | ({"RADLOOP_HELD_OUT_EVERY": str(every)} if every else {})


def copy_app(source: Path, home: Home) -> Path:
    """Copies an app folder to `<home>/app`, because MONAI Label writes into it; returns the copy.

    Raises:
        NotFound: the folder has no `main.py`.
    """
    if not (source / "main.py").is_file():
        msg = f"--app {source}: there is no main.py in it, which every MONAI Label app has"
        raise NotFound(msg)
    written_by_host = shutil.ignore_patterns("__pycache__", "model", "logs", "bin")
    shutil.copytree(source, home.app, ignore=written_by_host, dirs_exist_ok=True)
    return home.app


def say_what_to_open(folder: StudiesFolder, running: ServerProcess) -> None:
    """Writes how to reach the server from the viewers."""
    url = running.address.url
    say(f"serving {plural(len(folder.studies()), 'study', 'studies')} of {folder.path} ({NOTICE})")
    say(f"  3D Slicer   module MONAI Label (from the Extensions Manager), server {url}")
    say(f"  browser     {url}/ shows what is served; OHIF needs studies on DICOMweb, which comes later")
    say(f"  log         {running.log}")
    say("stop with Ctrl-C")


@contextmanager
def terminable() -> Iterator[None]:
    """Turns SIGTERM and SIGHUP into `Terminated`, so that the child is ended in order."""

    def terminate(_number: int, _frame: FrameType | None) -> None:
        raise Terminated

    before = {number: signal.signal(number, terminate) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
