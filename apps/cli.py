"""The `radloop` command: runs what the grammar names, and says failures in one line.

Exit codes: 0 done, 1 failed (one line on stderr says why), 2 wrong use, 130 interrupted. Rooms are imported by the
commands, not here, so that `radloop --help` answers at once.
"""

from __future__ import annotations

import argparse
import importlib
import logging
import os
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from pathlib import Path

from radloop.apps.grammar import build_parser
from radloop.apps.terminal import WrongUse, complain
from radloop.recipes.errors import RadloopError


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit code. Arguments default to those of the process."""
    options = build_parser().parse_args(argv)
    _set_loudness(options.verbose)
    # Waiting threads sleep instead of spinning; read when torch is loaded, inherited by the server and its trainings.
    # On two cores that others use too, a training took 14 s instead of 61 s.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        return _command(options.run)(options) or 0
    except WrongUse as error:
        complain(str(error))
        return 2
    except RadloopError as error:
        complain(str(error))
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # the reader (head, less) has enough; stdout goes nowhere, so that closing it at exit does not complain
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        complain(f"{error.filename or 'the system'}: {error.strerror or error}")
        return _keep_trace(error, options)
    except Exception as error:  # noqa: BLE001 the outermost boundary: a user never sees a traceback unasked
        complain(f"unexpected {type(error).__name__}: {error}")
        return _keep_trace(error, options)


def _command(name: str) -> Callable[[argparse.Namespace], int | None]:
    module, _, function = name.partition(":")
    command: Callable[[argparse.Namespace], int | None] = getattr(
        importlib.import_module(f"radloop.apps.{module}"), function
    )
    return command


def _set_loudness(verbose: bool) -> None:
    logging.basicConfig(
        level=logging.INFO if verbose else logging.ERROR, format="%(asctime)s %(name)s %(levelname)s: %(message)s"
    )
    if not verbose and not sys.warnoptions:
        warnings.simplefilter("ignore")  # of libraries; what concerns the user is said by the commands themselves


def _keep_trace(error: Exception, options: argparse.Namespace) -> int:
    """Writes the traceback to a file and says where; to stderr as well with --verbose."""
    trace = "".join(traceback.format_exception(error))
    if options.verbose:
        sys.stderr.write(trace)
    entry = f"{datetime.now(timezone.utc).isoformat()} radloop {options.command}\n{trace}\n"
    for log in _log_files(options):
        try:
            with log.open("a", encoding="utf-8") as file:
                file.write(entry)
        except OSError:
            continue  # a full or read-only disk may be why we are here; the next place may do
        complain(f"details are in {log}")
        break
    return 1


def _log_files(options: argparse.Namespace) -> list[Path]:
    """Where a traceback may go: the logs of a home that is already there, else the folder for temporary files."""
    homes = [options.home, os.environ.get("RADLOOP_HOME")]
    studies = getattr(options, "studies", None)
    if studies:
        homes.append(Path(studies) / ".radloop")
    logs = [Path(home) / "logs" / "cli.log" for home in homes if home and (Path(home) / "logs").is_dir()]
    return [*logs, Path(tempfile.gettempdir()) / "radloop-error.log"]


if __name__ == "__main__":
    sys.exit(main())
