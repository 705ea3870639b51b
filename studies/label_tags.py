"""How viewers name a label: its tag, and the recipe that a request asks for."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any

from radloop.recipes.errors import BadInput, NotFound, closest
from radloop.studies.given_labels import DRAFT, FINAL

ORIGINAL = "original"
TAGS = (FINAL, ORIGINAL, DRAFT)
#: The recipe whose label a request asks for, where it names one: MONAI Label's datastore has no word for it.
asked_recipe: ContextVar[str] = ContextVar("asked_recipe", default="")


def known_tag(tag: Any) -> str:
    """A tag, also MONAI Label's own value for it, as text.

    Raises:
        BadInput: it is not kept here; names the closest.
    """
    value = getattr(tag, "value", tag)
    if value not in TAGS:
        msg = f"label tag {value!r} is not kept here; use {', '.join(TAGS)}{closest(value, TAGS)}"
        raise BadInput(msg)
    return str(value)


def no_label(study_id: str, tag: str, recipe: str | None = None) -> NotFound:
    """What to say where a study has no label of a tag, or none of a recipe."""
    return NotFound(f"study {study_id!r} has no label of tag {tag!r}{f' of recipe {recipe}' if recipe else ''}")
