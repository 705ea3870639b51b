"""What radloop says when it cannot do what was asked.

    RadloopError            something the user can mend; one line, never a traceback
    ├── BadInput            a file, value or parameter is not usable (HTTP 400)
    │   ├── BadImage        an image cannot be read or has a form we refuse
    │   ├── BadLabel        a label does not fit its study or its recipe
    │   └── BadRecipe       a recipe file has mistakes
    ├── NotFound            a study, recipe, version or file that is not there (HTTP 404)
    ├── Conflict            the state of the house forbids it now (HTTP 409)
    └── NoSpace             the disk is full or read-only; nothing was changed (HTTP 507)

Messages name the thing, its value, what is allowed and what to do.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class RadloopError(Exception):
    """A failure that the user can mend; the message is one line that says how."""

    http_status = 400


class BadInput(RadloopError):
    """A file, value or parameter is not usable."""


class BadImage(BadInput):
    """An image cannot be read, or has a form that radloop refuses."""


class BadLabel(BadInput):
    """A label does not fit its study or its recipe."""


class BadRecipe(BadInput):
    """A recipe file has mistakes."""


class NotFound(RadloopError):
    """A study, recipe, version or file is not there."""

    http_status = 404


class Conflict(RadloopError):
    """The state of the studies or of the server forbids the request now."""

    http_status = 409


class NoSpace(RadloopError):
    """The disk is full or read-only; nothing was changed."""

    http_status = 507


def closest(word: str, allowed: Iterable[str]) -> str:
    """A hint `; did you mean 'x'?` for a mistyped word, or an empty string."""
    found = difflib.get_close_matches(word, list(allowed), n=1)
    return f"; did you mean {found[0]!r}?" if found else ""
