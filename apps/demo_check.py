"""Once around the loop, over HTTP, as a viewer would: answer, correct, train again, let the gate decide."""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from radloop.apps.demo import HOST, RECIPE, prepare
from radloop.apps.serve import server
from radloop.apps.server_process import Address
from radloop.apps.terminal import NOTICE, plural, say
from radloop.recipes.errors import RadloopError
from radloop.studies.folder import StudiesFolder
from radloop.studies.home import Home

if TYPE_CHECKING:
    from requests import Response

    from radloop.registry.version import Version

EPOCHS = 4
"""Of the second training, which starts from the version that serves."""
TRAINING_WITHIN = 600.0
CLIENT = "radloop-demo-check"
ASKS = 20
"""Times the strategy is asked for a study that has something to mark."""


class CheckFailed(RadloopError):
    """A step of the loop did not do what it should."""


def go_round(path: Path, options: argparse.Namespace) -> int:
    """Prepares the studies, serves them and goes once around; 0 when every step did what it should."""
    begun = time.monotonic()
    folder, home = prepare(path, options)
    before = _serving(home)
    if before is None:
        msg = "the first model did not pass the gate, so there is nothing to go around with"
        raise CheckFailed(msg)
    scores = before.manifest["held_out"]
    say(f"first model  version {before.number}, held-out Dice {_mean(scores)}")
    options.recipes = (RECIPE,)
    started = time.monotonic()
    with server(folder, home, Address(HOST, options.port), options) as running:
        say(f"server       {running.address.url} after {time.monotonic() - started:.0f} s")
        viewer = Viewer(running.address.url)
        _round(viewer, folder, home, before)
    say(f"once around the loop in {time.monotonic() - begun:.0f} s ({NOTICE})")
    return 0


def _round(viewer: Viewer, folder: StudiesFolder, home: Home, before: Version) -> None:
    say(f"studies      {viewer.studies()}")
    study = _study_to_correct(viewer)
    for attempt in ("first", "again"):
        params, size, seconds = viewer.answer(study)
        if params.get("withheld"):  # a held-out study; whoever asks again gets the answer
            say(f"answer       {study}: {params['message']}")
            params, size, seconds = viewer.answer(study)
        say(f"answer       {study}, {attempt}: {seconds:.2f} s, version {params['version']}, {size // 1024} kB")
    if params["version"] != before.number:
        msg = f"version {params['version']} answers, but version {before.number} serves"
        raise CheckFailed(msg)
    viewer.correct(study, folder)
    row = _newest_label(home, study)
    say(
        f"correction   {study} by {row.author!r}, label {row.id} ({row.state}), seen version {row.shown_version or '-'}"
    )
    with _step("training"):
        viewer.train()
    after = _last(home)
    if after.number == before.number:
        msg = "the training ended without a new version"
        raise CheckFailed(msg)
    gate = after.manifest["gate"]
    say(f"gate         version {after.number}, held-out Dice {_mean(after.manifest['held_out'])}: {gate['reason']}")
    time.sleep(1.5)  # the server looks at most once a second which version serves
    params, _, _ = viewer.answer(study)
    expected = after.number if gate["serves"] else before.number
    if params["version"] != expected:
        msg = f"version {params['version']} answers, but after this decision version {expected} should"
        raise CheckFailed(msg)
    say(f"serves       version {params['version']}")


class Viewer:
    """What 3D Slicer's module sends, and no more.

    Args:
        url: of the server.
    """

    def __init__(self, url: str) -> None:
        import requests

        self._url = url
        self._session = requests.Session()
        self._session.trust_env = False  # no proxy between us and loopback

    def studies(self) -> str:
        """How many studies there are, and how many have a label."""
        stats = self._call("GET", "/info/").json()["datastore"]
        return f"{stats['total']}, of which {stats['completed']} have a label"

    def next_study(self) -> str:
        """What the strategy wants labelled next."""
        return str(self._call("POST", "/activelearning/random", json={"client_id": CLIENT}).json()["id"])

    def answer(self, study: str) -> tuple[dict[str, Any], int, float]:
        """What the server says of a study: its parameters, the mask's size in bytes, seconds until it was here."""
        from requests_toolbelt import MultipartDecoder

        wanted = {"result_extension": ".nrrd", "result_dtype": "uint8", "client_id": CLIENT}
        begun = time.monotonic()
        reply = self._call(
            "POST", f"/infer/{RECIPE}", params={"image": study, "output": "all"}, data={"params": json.dumps(wanted)}
        )
        seconds = time.monotonic() - begun
        parts = {_part_name(part.headers): part.content for part in MultipartDecoder.from_response(reply).parts}
        return json.loads(parts["params"]), len(parts["file"]), seconds

    def correct(self, study: str, folder: StudiesFolder) -> None:
        """Sends the true mask of a study as the reader's label."""
        from radloop.sample_studies.make import LABELS, true_mask
        from radloop.studies.images import read_header, write_mask

        _, affine = read_header(folder.study(study).channels[0])
        params = {
            "label_info": [{"name": name, "idx": number} for name, number in LABELS.items()],
            "model": RECIPE,
            "client_id": CLIENT,
        }
        with tempfile.TemporaryDirectory(prefix="radloop-") as place:
            path = Path(place) / f"{study}.nii.gz"
            write_mask(path, true_mask(study), affine)
            with path.open("rb") as file:
                query = {"image": study, "tag": "final"}
                data = {"params": json.dumps(params)}
                self._call("PUT", "/datastore/label", params=query, data=data, files={"label": (path.name, file)})

    def train(self) -> None:
        """Starts a training and waits for its end."""
        self._call("POST", f"/train/{RECIPE}", json={"epochs": EPOCHS, "client_id": CLIENT})
        until = time.monotonic() + TRAINING_WITHIN
        while time.monotonic() < until:
            task = self._call("GET", "/train/").json()
            if task["status"] == "DONE":
                return
            if task["status"] not in ("SUBMITTED", "RUNNING"):
                last = (task.get("details") or [{}])[-1]
                msg = f"the training ended as {task['status']}: {last.get('message', last) or 'no details'}"
                raise CheckFailed(msg)
            time.sleep(1.0)
        msg = f"the training did not end within {TRAINING_WITHIN:.0f} s"
        raise CheckFailed(msg)

    def _call(self, method: str, path: str, **arguments: Any) -> Response:
        reply = self._session.request(method, f"{self._url}{path}", timeout=TRAINING_WITHIN, **arguments)
        if not reply.ok:
            msg = f"{method} {path} was answered with {reply.status_code}: {reply.text[:300]}"
            raise CheckFailed(msg)
        return reply


def _part_name(headers: Any) -> str:
    """`params` or `file`, from a part's Content-Disposition."""
    described = headers[b"Content-Disposition"].decode()
    return "params" if 'name="params"' in described else "file"


def _study_to_correct(viewer: Viewer) -> str:
    """What the strategy proposes, once it proposes a study that has something to mark."""
    from radloop.sample_studies.make import true_mask

    for _ in range(ASKS):
        study = viewer.next_study()
        if true_mask(study).any():
            say(f"next         {study}")
            return study
        say(f"next         {study} has nothing to mark; asked for another")
        time.sleep(1.0)
    msg = f"the strategy proposed no study with a nodule in {ASKS} tries"
    raise CheckFailed(msg)


def _newest_label(home: Home, study: str) -> Any:
    from radloop.studies.ledger import Ledger

    rows = Ledger(home).history(study=study, recipe=RECIPE)
    if not rows or rows[-1].state != "final":
        msg = f"the correction of {study} is not in the ledger as a final label"
        raise CheckFailed(msg)
    return rows[-1]


def _serving(home: Home) -> Version | None:
    from radloop.registry.registry import Registry

    return Registry(home).champion(RECIPE)


def _last(home: Home) -> Version:
    from radloop.registry.registry import Registry

    return Registry(home).versions(RECIPE)[-1]


def _mean(scores: dict[str, float]) -> str:
    return f"{fmean(scores.values()):.3f} ({plural(len(scores), 'patient')})" if scores else "none (no patients)"


@contextmanager
def _step(what: str) -> Iterator[None]:
    begun = time.monotonic()
    yield
    say(f"{what:<12} {time.monotonic() - begun:.0f} s")
