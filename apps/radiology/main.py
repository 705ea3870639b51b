"""The MONAI Label app: `monailabel start_server --app apps/radiology --studies DIR` finds `RadloopApp` here."""

from __future__ import annotations

from radloop.apps.server_process import server_lifeline

server_lifeline()  # first: what a training imports next takes seconds, in which its server may be killed

from radloop.apps.app import RadloopApp  # noqa: E402

__all__ = ["RadloopApp"]
