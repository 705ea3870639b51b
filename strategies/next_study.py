"""MONAI Label's strategies: each asks the desk for the next study under the name of one of ours."""

from __future__ import annotations

from typing import Any

from monailabel.interfaces.tasks.strategy import Strategy

from radloop.recipes.errors import BadInput
from radloop.strategies.choose import strategy_names
from radloop.strategies.desk import ANY, Desk
from radloop.studies.datastore_folder import FolderDatastore

AUTO = "auto"


class NextStudy(Strategy):
    """One strategy as viewers list it.

    Args:
        desk: gives out the studies.
        name: of a strategy, or `auto`: images that cover all, and once a model serves what the server was told.
    """

    def __init__(self, desk: Desk, name: str) -> None:
        what = "what suits the moment" if name == AUTO else f"strategy {name}"
        super().__init__(f"a study without a label: {what}; one in five from the held-out patients")
        self._desk, self._name = desk, name

    def info(self) -> dict[str, Any]:
        """What viewers list, and the recipe to choose for, where several are served."""
        several = len(self._desk.recipes) > 1
        return {**super().info(), "config": {"recipe": [ANY, *self._desk.recipes]} if several else {}}

    def __call__(self, request: dict[str, Any], datastore: FolderDatastore) -> dict[str, Any]:
        """The next study for a reader.

        Args:
            request: `client_id`; `recipe` to count only its labels (`any`: those of all that are served); `skip`, a
                study that the reader does not want; `release`, one that they give back without asking for another.
            datastore: the studies.

        Returns:
            `{"id": ...}`, with `reason` where the gate needs the study and `blind` where it is to be read without an
            answer first; an empty dict where there is none, or one was given back.

        Raises:
            BadInput: the recipe is not served, or both `skip` and `release` are given.
            NotFound: there is no study of that id.
        """
        reader = str(request.get("client_id") or "unknown")
        skip, release, recipe = (request.get(key) for key in ("skip", "release", "recipe"))
        if skip and release:
            msg = "give skip, to be given another study, or release, to give one back; not both"
            raise BadInput(msg)
        if skip or release:
            self._desk.release(reader, datastore.folder.study(str(skip or release)).id, skip=bool(skip))
        if release:
            return {}
        offer = self._desk.next(reader, None if self._name == AUTO else self._name, recipe)
        if not offer:
            return {}
        datastore.blind.offer(offer["id"], reader)
        blind = datastore.blind.due([offer["id"]], recipe if recipe in self._desk.recipes else None)
        return {**offer, "blind": True} if blind else offer


def names() -> tuple[str, ...]:
    """`auto`, then every strategy."""
    return AUTO, *strategy_names()
