"""The settings under which MONAI Label runs here: no tracking, no telemetry, no downloads, sessions in the home."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from radloop.apps.scratch import scratch_folder
from radloop.studies.home import Home


def host_env(studies: Path, home: Home, recipes: Sequence[str] = ()) -> dict[str, str]:
    """The environment of the server process; its trainings and batch jobs inherit it.

    Args:
        studies: the studies folder.
        home: where state lives.
        recipes: names of the recipes to serve; empty takes the home's own.
    """
    return {
        "RADLOOP_HOME": str(home.path),
        "TMPDIR": str(scratch_folder(home)),  # MONAI Label leaves an upload behind when the request fails
        "RADLOOP_RECIPES": ",".join(recipes),
        "MONAI_LABEL_STUDIES": str(studies),
        "MONAI_LABEL_AUTH_ENABLE": "false",
        "MONAI_LABEL_AUTO_UPDATE_SCORING": "false",  # it starts a process a click, without bound
        "MONAI_LABEL_DATASTORE_AUTO_RELOAD": "false",
        "MONAI_LABEL_INFER_CONCURRENCY": "-1",  # answers are kept off the event loop by radloop.apps.bridge
        "MONAI_LABEL_SESSIONS": "true",
        "MONAI_LABEL_SESSION_PATH": str(home.sessions),
        "MONAI_LABEL_TASKS_TRAIN": "true",
        "MONAI_LABEL_TASKS_STRATEGY": "true",
        "MONAI_LABEL_TASKS_SCORING": "true",
        "MONAI_LABEL_TASKS_BATCH_INFER": "true",
        "MONAI_LABEL_TRACKING_ENABLED": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "true",
        "PYTHONPATH": "",  # MONAI Label appends to it; nothing of the user's is to shadow our packages
    }
