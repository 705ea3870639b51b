"""The MONAI Label app: `monailabel start_server --app apps/radiology --studies DIR` finds `RadloopApp` here."""

from __future__ import annotations

from radloop.apps.app import RadloopApp

__all__ = ["RadloopApp"]
