"""How many processor cores this process may use, and how many a training takes of them."""

from __future__ import annotations

import os


def usable_cores() -> int:
    """Cores that this process may use; a container may have fewer than the machine."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def training_cores(serving: bool) -> int:
    """Cores for a training: all, or all but one where a server gives answers beside it."""
    return max(1, usable_cores() - 1) if serving else usable_cores()
