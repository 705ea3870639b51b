"""Imported before MONAI: nothing is reported to anybody.

`import monai` imports MLflow, and MLflow decides at its own import whether to report usage, which it does by default
(from 3.2). It switches itself off under CI and pytest, so only a plain process shows whether this works. Children
inherit the variables.
"""

from __future__ import annotations

import os

os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
os.environ["DO_NOT_TRACK"] = "true"
