"""What a version says about itself: `manifest.json` beside its weights, and the tags that MLflow shows."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

from radloop.recipes.errors import BadInput
from radloop.recipes.recipe import Recipe
from radloop.registry.folders import MANIFEST
from radloop.registry.version import CHALLENGER, CHAMPION, STATES


def full_manifest(recipe: Recipe, checksum: str, manifest: Mapping[str, Any]) -> dict[str, Any]:
    """The manifest as it is published: what was given, and what the registry knows by itself.

    Raises:
        BadInput: the state is not one of `STATES`.
    """
    full = {"created": now(), "code_version": metadata.version("radloop"), "state": CHALLENGER, **manifest}
    if full["state"] not in STATES:
        msg = f"manifest has state {full['state']!r}; allowed are {', '.join(STATES)}"
        raise BadInput(msg)
    # A version is champion by the alias alone.
    if full["state"] == CHAMPION:
        full["state"] = CHALLENGER
    return full | {"recipe": recipe.name, "recipe_hash": recipe.hash(), "checksum": checksum}


def write_manifest(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Write `manifest.json` into a staged folder.

    Raises:
        BadInput: a value has no form in JSON.
    """
    try:
        text = json.dumps(manifest, ensure_ascii=False, indent=1, allow_nan=False)
    except (TypeError, ValueError) as error:
        msg = f"manifest cannot be written as JSON: {error}; give plain finite numbers, strings, lists and tables"
        raise BadInput(msg) from error
    (folder / MANIFEST).write_text(text, encoding="utf-8")


def tags_of(manifest: Mapping[str, Any]) -> dict[str, str]:
    """What MLflow shows of a version: state, lineage and the figures of its gate."""
    gate = manifest.get("gate") or {}
    shown = {key: manifest[key] for key in ("state", "recipe_hash", "checksum", "created", "code_version")}
    shown |= {"labels": len(manifest.get("labels") or []), "reason": manifest.get("reason") or gate.get("reason", "")}
    shown |= {f"gate.{key}": gate[key] for key in ("n", "difference", "lower") if gate.get(key) is not None}
    return {key: str(value) for key, value in shown.items()}


def now() -> str:
    """The time, UTC ISO to the second."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
