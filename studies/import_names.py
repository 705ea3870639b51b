"""One mapping of label names to ids 1..N for a studies folder, whatever its masks were numbered before.

And the names of its channels, `labels/channels.json`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from radloop.recipes.errors import BadInput, BadLabel
from radloop.studies.files import write_whole

KEEP_NUMBER_UP_TO = 64
"""Values without names up to this keep their number in a folder without names; larger ones (255) are renumbered."""


class LabelNames:
    """`labels/names.json`: grows by new names, never renumbers old ones.

    Raises:
        BadLabel: the file there is no JSON object of name -> id with ids 1..N.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.ids = read_names(path)

    def merge(self, told: Mapping[str, int]) -> dict[int, int]:
        """Takes names in and returns voxel value -> id here; 0 stays background.

        Raises:
            BadLabel: two names have one value, so that the mask cannot say which is meant.
        """
        if len(set(told.values())) < len(told):
            msg = f"names {dict(told)} give one value to two labels; give each its own"
            raise BadLabel(msg)
        before = len(self.ids)
        for name, _ in sorted(told.items(), key=lambda item: item[1]):
            self.ids.setdefault(name, len(self.ids) + 1)
        if len(self.ids) > before:
            self._save()
        return {0: 0, **{value: self.ids[name] for name, value in told.items()}}

    def merge_nameless(self, values: set[int]) -> dict[int, int]:
        """The same for a mask without names: value v is called `label_v`."""
        small = [v for v in values if v <= KEEP_NUMBER_UP_TO]
        reserved = range(1, max(small, default=0) + 1)
        return self.merge({f"label_{v}": v for v in {*reserved, *values}})

    def _save(self) -> None:
        text = json.dumps(self.ids, ensure_ascii=False, indent=1) + "\n"
        self.path.parent.mkdir(parents=True, exist_ok=True)

        def write(temporary: Path) -> None:
            temporary.write_text(text, encoding="utf-8")

        write_whole(self.path, write)


def read_names(path: Path) -> dict[str, int]:
    """Name -> id of a `names.json`, in the order of the ids and without background; empty where there is no file.

    Raises:
        BadLabel: it is not {"name": 1, ...} with ids 1..N.
    """
    if not path.is_file():
        return {}
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        msg = f'labels/{path.name} cannot be read ({error}); write it as {{"name": 1, "other name": 2}}'
        raise BadLabel(msg) from error
    if not isinstance(told, dict) or not all(type(value) is int for value in told.values()):
        msg = f'labels/{path.name} must be {{"name": 1, "other name": 2}}, one whole number a name'
        raise BadLabel(msg)
    names = {name: value for name, value in told.items() if value != 0}
    if sorted(names.values()) != list(range(1, len(names) + 1)):
        msg = f"labels/{path.name} has ids {sorted(names.values())}; they must be exactly 1..{len(names)}"
        raise BadLabel(msg)
    return dict(sorted(names.items(), key=lambda item: item[1]))


def read_channels(path: Path) -> tuple[str, ...]:
    """What a studies folder's channels are called, in order; empty where there is no such file.

    Raises:
        BadInput: it is not ["name", "other name"], each once.
    """
    if not path.is_file():
        return ()
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        msg = f'labels/{path.name} cannot be read ({error}); write it as ["T1", "FLAIR"]'
        raise BadInput(msg) from error
    named = isinstance(told, list) and all(isinstance(name, str) and name.strip() for name in told)
    if not named or len(set(told)) < len(told):
        msg = f'labels/{path.name} must be a list of names such as ["T1", "FLAIR"], each once'
        raise BadInput(msg)
    return tuple(told)


def keep_channels(path: Path, names: Sequence[str]) -> None:
    """Writes the names of channels, unless a file of them is there already or they are no distinct names.

    Raises:
        NoSpace: the disk is full or read-only.
    """
    if path.exists() or not names or len(set(names)) < len(names) or not all(name.strip() for name in names):
        return
    text = json.dumps(list(names), ensure_ascii=False) + "\n"
    path.parent.mkdir(parents=True, exist_ok=True)

    def write(temporary: Path) -> None:
        temporary.write_text(text, encoding="utf-8")

    write_whole(path, write)


def renumber(mask: np.ndarray, ids: Mapping[int, int]) -> np.ndarray:
    """The mask with values replaced by ids, uint8.

    Raises:
        BadLabel: a value has no name, or there are more ids than a mask holds.
    """
    values = [int(v) for v in np.unique(mask)]
    strange = [v for v in values if v not in ids]
    if strange:
        msg = f"the mask has the values {strange[:8]}, which have no name; name them or take them out"
        raise BadLabel(msg)
    if max((ids[v] for v in values), default=0) > 255:
        msg = f"there are {max(ids.values())} label names; a mask holds 255"
        raise BadLabel(msg)
    table = np.zeros(max(values, default=0) + 1, np.uint8)
    table[values] = [ids[v] for v in values]
    return table[mask]
