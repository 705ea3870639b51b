"""MLflow kept quiet: nothing is sent anywhere, and opening a database is not news."""

from __future__ import annotations

import importlib.util
import logging

from radloop.recipes import quiet as quiet  # sets what MLflow reads at its import


def silence() -> None:
    """Undo what an MLflow imported too early decided, and drop its reports of every schema step; needs MLflow."""
    if importlib.util.find_spec("mlflow.telemetry"):  # absent before 3.2
        from mlflow.telemetry import set_telemetry_client

        set_telemetry_client()  # looks at the variables again; none is made when they forbid it
    for name in ("mlflow.store.db", "alembic.runtime"):
        logging.getLogger(name).setLevel(logging.WARNING)
