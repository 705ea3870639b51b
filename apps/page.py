"""The page at `/`: what this server has, what serves and what to open where; one file, no scripts, no downloads."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import TYPE_CHECKING, Any

from radloop.evaluation.intervals import bootstrap_mean
from radloop.infers.segmentation import NOTICE
from radloop.recipes.errors import RadloopError
from radloop.recipes.recipe import Recipe
from radloop.strategies.judged import accuracy

if TYPE_CHECKING:
    from radloop.apps.app import RadloopApp
    from radloop.registry.version import Version

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #1c2733 }
table { border-collapse: collapse; width: 100% } th, td { text-align: left; padding: .4rem .8rem .4rem 0;
border-bottom: 1px solid #d5dce4; vertical-align: top } .notice { background: #fff3d6; padding: .5rem .8rem;
border-radius: .3rem } @media (prefers-color-scheme: dark) { body { background: #14191f; color: #dde4ec }
th, td { border-color: #37424f } .notice { background: #4a3c14 } a { color: #8ab8ff } }
"""


def status_page(app: RadloopApp) -> str:
    """The page as HTML.

    Args:
        app: the running app.
    """
    status = app.datastore().status()
    rows = "".join(_row(app, recipe) for recipe in app.recipes)
    return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>radloop</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><style>{STYLE}</style></head><body>
<h1>radloop</h1>
<p class="notice">For research; {escape(NOTICE)}.</p>
<p>{status.get("total", 0)} studies, {status.get("completed", 0)} with a reader's label.</p>
<table><thead><tr><th>Recipe</th><th>Labels</th><th>Labelled</th><th>Serves</th><th>Held out</th></tr></thead>
<tbody>{rows}</tbody></table>
<h2>What to open</h2>
<ul>
<li><b>3D Slicer</b>: module <i>MONAI Label</i>, server = this page's address; press <i>Next Sample</i>, correct the
mask, press <i>Submit Label</i>.</li>
<li><b>Scripts</b>: <a href="info/">info/</a> says what is offered, <a href="docs">docs</a> lists the interface.</li>
</ul></body></html>"""


def _row(app: RadloopApp, recipe: Recipe) -> str:
    labels = ", ".join(f"{number} {name}" for name, number in recipe.labels.items())
    labelled = len(app.ledger.current(recipe.name))
    try:
        version = app.champions.of(recipe.name)
        served = f"version {version.number} ({version.state})" if version else "no model yet"
        score = _score(version)
        running = accuracy(version, app.ledger) if version and version.serves else {}
    except RadloopError as error:
        served, score, running = str(error), "-", {}
    title = recipe.title or recipe.name
    lines = [score, *(of.told(name, recipe.figure) for name, of in running.items())]
    lines += [f"Drift: {of.alarm(name)}" for name, of in running.items() if of.drift]
    cells = (f"{title} ({recipe.name})", labels, f"{labelled} studies", served, "\n".join(lines))
    return "<tr>" + "".join(f"<td>{escape(cell).replace(chr(10), '<br>')}</td>" for cell in cells) + "</tr>"


def _score(version: Version | None) -> str:
    """Mean figure over held-out patients, with its 95 % interval."""
    scores: Mapping[str, Any] = (version.manifest.get("held_out") or {}) if version else {}
    if not scores:
        return "-"
    interval = bootstrap_mean(scores)
    low, high = interval.low, interval.high
    between = f" ({low:.3f} to {high:.3f})" if low is not None and high is not None else ""
    figure = version.figure if version else ""
    return f"{figure} {interval.value:.3f}{between}, {len(scores)} patients"
