"""What the server accepts: every open route with its query, form and JSON keys; everything else is closed.

The keys are those that the stock viewers send (3D Slicer's MONAI Label module, OHIF's extension, MONAI Label's own
client) and radloop's own. A key that would name a path, a model file, a data list or a tracking server is not here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from radloop.recipes.errors import BadInput, RadloopError
from radloop.studies.folder import valid_id

Check = Callable[[Any], str | None]  # the reason why a value is refused, or None
Lane = Literal["info", "infer", "next", "other"]

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
SESSION = re.compile(r"[A-Za-z0-9-]{8,64}")
TAG = re.compile(r"[A-Za-z0-9_-]{1,32}")
STUDIES = (".nii.gz", ".nii", ".nrrd", ".mha", ".png", ".jpg", ".jpeg")
IMAGES = (*STUDIES, ".dcm", ".ima")
LABELS = (".nii.gz", ".nii", ".nrrd", ".png", ".json")
RESULTS = (".nii.gz", ".nii", ".nrrd", ".seg.nrrd", ".png")
ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz")
MIB = 2**20


class Closed(RadloopError):
    """The route exists in MONAI Label and is closed here."""

    http_status = 403


class MethodClosed(Closed):
    """The route is open, but not for this method."""

    http_status = 405


class TooLarge(BadInput):
    """The request's body is larger than the server takes."""

    http_status = 413


def study_id(value: Any) -> str | None:
    """A study's id: letters of any script, digits and `._- ()+=@,`."""
    return None if isinstance(value, str) and valid_id(value) else "is not a study id (letters, digits, ._- and spaces)"


def optional_id(value: Any) -> str | None:
    """A study's id, or empty where a session or a file stands for it."""
    return None if value == "" else study_id(value)


def matches(pattern: re.Pattern[str], meaning: str) -> Check:
    """A check that the whole value matches a pattern."""
    return lambda value: None if isinstance(value, str) and pattern.fullmatch(value) else f"is not {meaning}"


def one_of(*allowed: Any) -> Check:
    """A check that the value is one of a few."""
    return lambda value: None if value in allowed else f"must be one of {', '.join(map(str, allowed))}"


def number(low: float, high: float) -> Check:
    """A check that the value is a number within limits."""

    def check(value: Any) -> str | None:
        fine = isinstance(value, int | float) and not isinstance(value, bool)
        return None if fine and low <= value <= high else f"must be a number in {low:g}..{high:g}"

    return check


def digits(low: int, high: int) -> Check:
    """A check that a query's text is an integer within limits."""

    def check(value: Any) -> str | None:
        fine = isinstance(value, str) and re.fullmatch(r"\d{1,9}", value) and low <= int(value) <= high
        return None if fine else f"must be an integer in {low}..{high}"

    return check


def text(value: Any) -> str | None:
    """A short line of text, as a client's or a reader's name; null is fine."""
    fine = value is None or (isinstance(value, str) and len(value) <= 200 and value.isprintable())
    return None if fine else "must be one line of at most 200 characters"


def label_info(value: Any) -> str | None:
    """Slicer's list of segments, `[{"name": ..., "idx": ...}]`."""
    entries = value if isinstance(value, list) and len(value) <= 255 else [None]
    fine = all(
        isinstance(e, dict) and isinstance(e.get("name"), str) and isinstance(e.get("idx"), int) for e in entries
    )
    return None if fine else 'must be a list of {"name": text, "idx": integer}'


model = matches(NAME, "a name (letters, digits, ._-)")
session = matches(SESSION, "a session id")
tag = matches(TAG, "a label tag (letters, digits, _-)")
flag = one_of("true", "false", "True", "False", "0", "1")
false_flag = one_of("false", "False", "0")
boolean = one_of(True, False)
CLIENT: dict[str, Check] = {"client_id": text}
INFO_RESERVED = ("id", "path", "strategy", "checksum", "name", "label_names")


def free_info(value: Any) -> str | None:
    """Any key of an image's or a label's info, except those that the server itself answers with."""
    return None if len(repr(value)) <= 64 * 1024 else "is longer than 64 KiB"


INFER: dict[str, Check] = {
    **CLIENT,
    "result_extension": one_of(*RESULTS),
    "result_dtype": one_of("uint8", "uint16", "int16", "int32"),
    "result_compress": boolean,
    "restore_label_idx": boolean,
    "device": one_of("cpu", "cuda"),
    "save_label": boolean,
    "label_tag": one_of("original"),
}
BATCH: dict[str, Check] = {
    **INFER,
    "multi_gpu": boolean,
    "gpus": one_of("all"),
    "logging": one_of("DEBUG", "INFO", "WARNING", "ERROR"),
    "max_workers": number(0, 64),
    "max_batch_size": number(0, 1_000_000),
    "images": lambda v: None if isinstance(v, list) and not any(map(study_id, v)) else "must be a list of study ids",
}
TRAIN: dict[str, Check] = {
    **CLIENT,
    "minutes": number(0, 7 * 24 * 60),
    "epochs": number(0, 100_000),
    "seed": number(0, 2**31 - 1),
    "device": one_of("cpu", "cuda"),
}
LABEL: dict[str, Check] = {**CLIENT, "label_info": label_info, "model": model, "user": text, "comment": text}


@dataclass(frozen=True)
class Call:
    """What one method of one route accepts.

    Attributes:
        query: query keys and their checks.
        required: query keys that must be there.
        body: `none`, `json` (an object, may be empty), `form` (multipart with a JSON text field) or `nested` (JSON
            with one object of `keys` a task).
        json_field: the form's JSON text field.
        keys: keys of the JSON and their checks; `None` takes any key that is not reserved.
        texts: further plain text fields of the form.
        files: file fields and the file name endings each takes.
        many: whether file fields may repeat.
        task: which of the app's task tables the path's name must be in.
        lane: the worker threads that serve it.
    """

    query: Mapping[str, Check] = field(default_factory=dict)
    required: tuple[str, ...] = ()
    body: Literal["none", "json", "form", "nested"] = "none"
    json_field: str = "params"
    keys: Mapping[str, Check] | None = field(default_factory=dict)
    texts: tuple[str, ...] = ()
    files: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    many: bool = False
    task: str = ""
    lane: Lane = "other"


RUN = {"all": flag, "check_if_running": flag}
ADD_IMAGE = Call({"image": study_id}, (), "form", keys=CLIENT, files={"file": STUDIES})
REMOVE_IMAGE = Call({"id": study_id}, ("id",))
SCORE = {**CLIENT, "recipe": model}
LABEL_OF = {"label": study_id, "tag": tag, "recipe": model}

OPEN: dict[str, dict[str, Call]] = {
    "/": {"GET": Call(lane="info")},
    "/docs": {"GET": Call()},
    "/openapi.json": {"GET": Call()},
    "/favicon.ico": {"GET": Call()},
    "/info/": {"GET": Call(lane="info")},
    "/infer/{name}": {
        "POST": Call(
            {"image": optional_id, "session_id": session, "output": one_of("image", "json", "all")},
            (),
            "form",
            keys=INFER,
            files={"file": IMAGES},
            task="infers",
            lane="infer",
        )
    },
    "/batch/infer": {"GET": Call(RUN), "DELETE": Call()},
    "/batch/infer/{name}": {
        "POST": Call(
            {"images": one_of("all", "labeled", "unlabeled"), "run_sync": flag},
            body="json",
            keys=BATCH,
            task="infers",
            lane="infer",
        )
    },
    "/train/": {
        "GET": Call(RUN),
        "DELETE": Call(),
        "POST": Call({"run_sync": false_flag}, body="nested", keys=TRAIN, task="trainers"),
    },
    "/train/{name}": {
        "POST": Call({"run_sync": false_flag, "enqueue": flag}, body="json", keys=TRAIN, task="trainers")
    },
    "/activelearning/{name}": {
        "POST": Call(
            body="json",
            keys={**CLIENT, "recipe": model, "skip": study_id, "release": study_id},
            task="strategies",
            lane="next",
        ),
    },
    "/scoring/": {
        "GET": Call(RUN),
        "DELETE": Call(),
        "POST": Call({"run_sync": flag}, body="nested", keys=SCORE, task="scoring", lane="infer"),
    },
    "/scoring/{name}": {"POST": Call({"run_sync": flag}, body="json", keys=SCORE, task="scoring", lane="infer")},
    "/datastore/": {
        "GET": Call({"output": one_of("stats", "train", "all")}),
        "PUT": ADD_IMAGE,
        "DELETE": REMOVE_IMAGE,
    },
    "/datastore/image": {
        "GET": Call({"image": study_id}, ("image",)),
        "HEAD": Call({"image": study_id, "check_sum": text}, ("image",)),
        "PUT": ADD_IMAGE,
        "DELETE": REMOVE_IMAGE,
    },
    "/datastore/image/info": {
        "GET": Call({"image": study_id}, ("image",)),
        "PUT": Call({"image": study_id}, ("image",), "form", json_field="info", keys=None),
    },
    "/datastore/label": {
        "GET": Call(LABEL_OF, ("label", "tag")),
        "HEAD": Call({"image": study_id, "tag": tag, "recipe": model}, ("image", "tag")),
        "PUT": Call({"image": study_id, "tag": tag}, ("image",), "form", keys=LABEL, files={"label": LABELS}),
        "DELETE": Call({"id": study_id, "tag": tag, "recipe": model}, ("id", "tag")),
    },
    "/datastore/label/info": {
        "GET": Call(LABEL_OF, ("label", "tag")),
        "PUT": Call(LABEL_OF, ("label", "tag"), "form", json_field="info", keys=None),
    },
    "/datastore/updatelabelinfo": {"PUT": Call(LABEL_OF, ("label", "tag"), "form", keys=None)},
    "/datastore/dataset": {"GET": Call({"limit_cases": digits(1, 1_000_000)})},
    "/model/info/{name}": {"GET": Call(task="infers")},
    "/session/": {
        "PUT": Call(
            {"uncompress": flag, "expiry": digits(0, 7 * 24 * 3600)},
            body="form",
            texts=("client_id",),
            files={"files": (*IMAGES, *ARCHIVES)},
            many=True,
        )
    },
    "/session/{session}": {"GET": Call({"update_ts": flag, "image": flag}), "DELETE": Call()},
    "/static/{rest}": {"GET": Call(), "HEAD": Call()},
}

CLOSED: tuple[tuple[str, type[RadloopError], str], ...] = (
    ("/model/", MethodClosed, "model files are neither served nor taken over HTTP; versions are made by training"),
    ("/logs/", Closed, "logs are read on the server, in the app's logs folder"),
    ("/reload", Closed, "restart the server to reload it"),
    ("/infer/wsi", Closed, "whole-slide images are not served"),
)
