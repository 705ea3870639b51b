"""Takes a patient's id out of what versions say about themselves; their weights stay as they are."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from radloop.registry.folders import MANIFEST
from radloop.registry.registry import Registry
from radloop.studies.files import write_whole
from radloop.studies.forget import renamed
from radloop.studies.home import Home

log = logging.getLogger(__name__)

_PEOPLE = ("patients", "held_out", "champion", "baseline", "gate", "skipped")


def rename_in_manifests(home: Home, names: Mapping[str, str]) -> int:
    """Put new names for patients and studies into every manifest, each written whole; gives how many changed."""
    changed = 0
    for file in sorted(home.versions.glob(f"*/*/{MANIFEST}")):
        try:
            manifest = json.loads(file.read_text(encoding="utf-8"))
            told = manifest | {key: renamed(manifest[key], names) for key in _PEOPLE if key in manifest}
            told = _reworded(told, names)
            for skip in (one for one in told.get("skipped") or () if one.get("study") in names.values()):
                skip["reason"] = "forgotten"
        except (ValueError, TypeError, AttributeError):
            log.warning("%s cannot be read and is left as it is", file)
            continue
        if told != manifest:
            write_whole(file, lambda temporary, told=told: _write(temporary, told), ".json")  # type: ignore[misc]
            changed += 1
    return changed


def rename_in_reasons(registry: Registry, names: Mapping[str, str]) -> None:
    """The same in the reasons that MLflow keeps; only older releases wrote patients into them.

    Raises:
        Conflict: the registry does not answer.
    """
    for version in (version for recipe in registry.recipes() for version in registry.versions(recipe)):
        reason = _reworded(version.reason, names)
        if reason != version.reason:
            registry.reword(version, reason)


def _reworded(value: Any, names: Mapping[str, str]) -> Any:
    """Plain data with every `patient 'NAME'` inside a text under the new name."""
    if isinstance(value, Mapping):
        return {key: _reworded(inner, names) for key, inner in value.items()}
    if isinstance(value, list):
        return [_reworded(inner, names) for inner in value]
    if isinstance(value, str):
        for name, new in names.items():
            value = value.replace(f"patient {name!r}", f"patient {new!r}")
    return value


def _write(file: Path, manifest: Mapping[str, object]) -> None:
    file.write_text(json.dumps(manifest, ensure_ascii=False, indent=1, allow_nan=False), encoding="utf-8")
