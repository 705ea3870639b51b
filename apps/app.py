"""radloop as a MONAI Label app: its datastore, tasks and hooks over the studies, the ledger and the registry."""

from __future__ import annotations

import copy
import functools
import json
import logging
import math
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from monailabel.interfaces.app import MONAILabelApp
from monailabel.interfaces.tasks.infer_v2 import InferTask
from monailabel.interfaces.tasks.scoring import ScoringMethod
from monailabel.interfaces.tasks.strategy import Strategy
from monailabel.interfaces.tasks.train import TrainTask
from monailabel.utils.async_tasks import utils as background
from monailabel.utils.sessions import Sessions

from radloop.apps.champions import Champions
from radloop.apps.next_case import asked_reader, desk_settings
from radloop.apps.retrain import Retraining
from radloop.apps.scratch import sweep, sweep_leftovers
from radloop.apps.server_process import claim, server_lifeline
from radloop.apps.sessions import SafeSessions, asked_image
from radloop.engine.running import cancel, mark_ended, resumable
from radloop.infers.answers import AnswerInfer
from radloop.infers.boxes import BoxInfer
from radloop.infers.risks import RiskInfer
from radloop.infers.segmentation import NOTICE, ONE_AT_A_TIME, SegmentationInfer
from radloop.recipes.errors import BadInput, NotFound, RadloopError, closest
from radloop.recipes.load import load_recipe
from radloop.recipes.recipe import STUDY_KINDS, Recipe
from radloop.registry.lineage import used_retracted
from radloop.strategies.background import Scoring
from radloop.strategies.batch import SerialBatch
from radloop.strategies.desk import Desk
from radloop.strategies.judged import JudgedLabels
from radloop.strategies.judging import Judging
from radloop.strategies.next_study import AUTO, NextStudy, names
from radloop.strategies.score_cache import ScoreCache
from radloop.strategies.scoring import DiceScoring
from radloop.strategies.study_input import StudyInput
from radloop.studies import snapshots
from radloop.studies.accept import sync_view
from radloop.studies.contents import about_unnamed
from radloop.studies.datastore_folder import FINAL, FolderDatastore
from radloop.studies.folder import StudiesFolder
from radloop.studies.home import Home
from radloop.studies.images import write_mask
from radloop.studies.ledger import Ledger
from radloop.trainers.segmentation import SegmentationTrain

logger = logging.getLogger(__name__)
DEFAULT_RECIPE = "sample_lesions"
BUSY = ("SUBMITTED", "RUNNING")


def read_recipes(home: Home, conf: Mapping[str, str]) -> tuple[Recipe, ...]:
    """The recipes to serve: those named in `conf` or RADLOOP_RECIPES, else the home's own, else the sample's.

    Raises:
        NotFound, BadRecipe: one is not there or has mistakes.
    """
    named = conf.get("recipes") or os.environ.get("RADLOOP_RECIPES") or ""
    names = [n.strip() for n in named.split(",") if n.strip()]
    own = home.path / "recipes"
    if not names and own.is_dir():
        names = [str(path) for path in sorted(own.glob("*.toml"))]
    return tuple(load_recipe(name, home.path) for name in names or [DEFAULT_RECIPE])


class RadloopApp(MONAILabelApp):
    """The app; made once in the server and again in each of its training, scoring and batch processes.

    Args:
        app_dir: MONAI Label's app folder; it writes logs there.
        studies: the studies folder.
        conf: `home` and `recipes` (comma list), else RADLOOP_HOME and RADLOOP_RECIPES.
    """

    def __init__(self, app_dir: str, studies: str, conf: dict[str, str]) -> None:
        self._lifeline = server_lifeline()
        self.home = Home.find(studies, conf.get("home"))
        self.recipes = read_recipes(self.home, conf)
        self.folder = StudiesFolder(studies, max(len(r.channels) for r in self.recipes))
        self.ledger = Ledger(self.home)
        self.champions = Champions(self.home)
        self._needed: dict[str, int] = {}
        self._retraining = Retraining(
            self.folder,
            self.home,
            self.ledger,
            lambda name: bool(self.champions.known(name)),
            self._start_training,
            self._champion_used_retracted,
        )
        super().__init__(
            app_dir,
            studies,
            conf,
            name="radloop",
            description=f"radloop: learns your question from your corrections; {NOTICE}",
            version="0.1.0",
            # viewers make an empty segment of each, which is no use for what is said in words
            labels=list(dict.fromkeys(n for r in self.recipes if r.kind not in STUDY_KINDS for n in r.labels)),
        )
        self._auto_update_scoring = False  # MONAI Label would start a scoring process a click

    # -- what MONAI Label asks for

    def init_datastore(self) -> FolderDatastore:
        """The studies folder with its ledger."""
        return FolderDatastore(self.folder, self.home, self.ledger, self.recipes, self._champion_found)

    def init_infers(self) -> dict[str, InferTask]:
        """One infer task a recipe, by its kind of answer."""
        withholds = self._datastore.blind.withholds  # type: ignore[attr-defined]
        tasks = {"segmentation": SegmentationInfer, "detection": BoxInfer, "risk": RiskInfer}
        return {
            r.name: tasks.get(r.kind, AnswerInfer)(r, self.folder, self.ledger, self.champions, withholds)
            for r in self.recipes
        }

    def init_trainers(self) -> dict[str, TrainTask]:
        """One train task a recipe, the main one first: viewers show its progress."""
        given = (self.folder, self.home, self.ledger, self.champions.known, self._lifeline)
        return {r.name: SegmentationTrain(r, *given) for r in self.recipes}

    def init_strategies(self) -> dict[str, Strategy]:
        """What picks the next study."""
        self._scoring = Scoring(
            self._datastore.pool,  # type: ignore[attr-defined]
            ScoreCache(self.home),
            self.recipes,
            self.champions.known,
            StudyInput(self.folder, self.ledger, self.champions.or_none, self.champions.predictor),
            ONE_AT_A_TIME,
        )
        desk = Desk(
            self._datastore.pool,  # type: ignore[attr-defined]
            [recipe.name for recipe in self.recipes],
            self._scoring,
            needed=self._held_out_needed,
            **desk_settings(),
        )
        return {name: NextStudy(desk, name) for name in names()}

    def init_scoring_methods(self) -> dict[str, ScoringMethod]:
        """What scores labelled studies."""
        return {"dice": DiceScoring(self.champions.or_none, self.champions.predictor)}

    def init_batch_infer(self) -> Callable[..., Any]:
        """Proposals for many studies."""
        return SerialBatch()

    def _load_sessions(self, load: bool = False) -> Sessions | None:
        return SafeSessions(str(self.home.path / "sessions")) if load else None

    def task_names(self, table: str) -> tuple[str, ...]:
        """The names in one of the tables `infers`, `trainers`, `strategies`, `scoring`."""
        tables = {
            "infers": self._infers,
            "trainers": self._trainers,
            "strategies": self._strategies,
            "scoring": self._scoring_methods,
        }
        return tuple(tables[table])

    # -- requests

    def info(self) -> dict[str, Any]:
        """What viewers are told; a part that fails is left out rather than keeping every viewer away."""
        models = {k: _guarded(v.info, k) for k, v in self._infers.items()}
        return finite(
            {
                "name": self.name,
                "description": self.description,
                "version": self.version,
                "labels": list(self.labels),
                "models": {k: v for k, v in models.items() if v},
                "trainers": {k: _guarded(v.info, k) for k, v in self._trainers.items()},
                "strategies": {k: _guarded(v.info, k) for k, v in self._strategies.items()},
                "scoring": {k: _guarded(v.info, k) for k, v in self._scoring_methods.items()},
                "train_stats": {k: _guarded(v.stats, k) for k, v in self._trainers.items()},
                "datastore": _guarded(self._datastore.status, "datastore"),
            }
        )

    def infer(self, request: dict[str, Any], datastore: FolderDatastore | None = None) -> dict[str, Any]:
        """Answers for a study of the folder, a session or an uploaded file.

        Raises:
            NotFound: no such recipe or study.
            BadInput: the request asks to keep the answer as a label.
        """
        task = self._task(self._infers, "model", request.get("model"))
        store = datastore or self.datastore()
        image = str(request.get("image") or "")
        inner = {**request, "study": None}
        if os.path.isabs(image):
            inner |= {"image": self._uploaded(image), "shown_as": asked_image.get()}
        else:
            inner["study"] = self.folder.study(image).id
        tag = request.get("label_tag") or "original"
        if request.get("save_label") and tag == FINAL:
            msg = "label_tag 'final' is a reader's; an answer is kept as 'original', a proposal"
            raise BadInput(msg)
        file, params = task(inner)
        label = file
        if request.get("save_label") and inner["study"] and params.get("version"):
            label = store.save_label(image, file, tag, {"model": request["model"], "params": params})
        return {"label": label, "tag": tag, "file": file, "params": params}

    def next_sample(self, request: dict[str, Any]) -> dict[str, Any]:
        """The next study to read; without a path, viewers download it by its id."""
        ONE_AT_A_TIME.notice()
        strategy = self._task(self._strategies, "strategy", request.get("strategy") or AUTO)
        return dict(
            strategy({**request, "client_id": request.get("client_id") or asked_reader.get()}, self.datastore())
        )

    def train(self, request: dict[str, Any]) -> Any:
        """Trains, in a process that MONAI Label started for it.

        Raises:
            BadInput: it would run inside the server.
        """
        if self._server_mode:
            msg = "a training runs in a process of its own; leave run_sync out"
            raise BadInput(msg)
        return self._task(self._trainers, "model", request.get("model"))(copy.deepcopy(request), self.datastore())

    def scoring(self, request: dict[str, Any], datastore: FolderDatastore | None = None) -> Any:
        """Scores labelled studies by a method."""
        task = self._task(self._scoring_methods, "method", request.get("method"))
        return task(copy.deepcopy(request), datastore or self.datastore())

    def _task(self, table: Mapping[str, Any], kind: str, name: str | None) -> Any:
        if name is None or name not in table:
            msg = f"there is no {kind} {name!r}; there is: {', '.join(table) or 'none'}{closest(str(name), table)}"
            raise NotFound(msg)
        return table[name]

    def _uploaded(self, image: str) -> str:
        """A path that the server itself made for an upload or a session.

        Raises:
            NotFound: any other path.
        """
        path = Path(image).resolve()
        allowed = (self.home.path / "sessions", Path(tempfile.gettempdir()))
        inside = any(path.is_relative_to(folder.resolve()) for folder in allowed)
        if not inside or path.is_relative_to(self.folder.path.resolve() / "labels") or not path.exists():
            msg = "the image is neither in the studies nor uploaded; name a study or send the file"
            raise NotFound(msg)
        return str(path)

    def _champion_found(self, recipe: Recipe, study: str) -> bool:
        return bool(self._infers[recipe.name].finds_something(study))

    def _champion_used_retracted(self, recipe: str) -> bool:
        version = self.champions.known(recipe)
        used = used_retracted(self.champions.registry(), self.ledger, recipe)
        return version is not None and version.number in {one.number for one in used}

    def _held_out_needed(self, recipe: str) -> int:
        """How many more held-out patients the gate asked for when it judged a recipe last."""
        if recipe not in self._needed:
            self._ask_needed(recipe)
        return self._needed[recipe]

    def _ask_needed(self, recipe: str) -> None:
        judged = [v.manifest["gate"] for v in self.champions.registry().versions(recipe) if v.manifest.get("gate")]
        self._needed[recipe] = int(judged[-1].get("needed", 0)) if judged else 0

    # -- hooks

    def on_init_complete(self) -> None:
        """The server has loaded: tidies what the last one left and shows the ledger's labels in the folder."""
        super().on_init_complete()
        claim(self.home)
        if "radloop.apps.asgi" not in sys.modules:
            logger.warning("this server has no guard: anybody who reaches it can read and write; use `radloop serve`")
        sweep(self.home, older_than=time.time() - psutil.Process().create_time())
        sweep_leftovers(self.folder.path, self.home)
        self._mark_ended()
        if lost := about_unnamed(self.ledger):  # before labels/final is taken in
            logger.warning(lost)
        for name, reason in sync_view(self.folder, self.ledger, self.recipes):
            logger.warning("%s is not shown or not imported: %s", name, reason)
        chores: list[Callable[[], object]] = [functools.partial(self._retrain, recipe.name) for recipe in self.recipes]
        chores += [functools.partial(self._ask_needed, recipe.name) for recipe in self.recipes]
        snapshots.attempt(self.home)
        tidying: list[Callable[[], object]] = [
            functools.partial(sweep, self.home),
            snapshots.regularly(self.home),
            self._mark_ended,
        ]
        self._resume()
        self.champions.watch([recipe.name for recipe in self.recipes], [*tidying, *chores])
        threading.Thread(target=self._warm_up, name="radloop-warm-up", daemon=True).start()
        self._scoring.start(self._judging().step)
        logger.info("serving %s; %s", ", ".join(r.name for r in self.recipes), NOTICE)

    def _judging(self) -> Judging:
        pool = self._datastore.pool  # type: ignore[attr-defined]
        given = (pool, self.folder, self.ledger, JudgedLabels(self.home), self.recipes)
        return Judging(*given, self.champions.known, self.champions.predictor, ONE_AT_A_TIME)

    def _mark_ended(self) -> None:
        for training in mark_ended(self.home, self.ledger, [recipe.name for recipe in self.recipes]):
            logger.warning("the process of training %d of %s was killed", training.id, training.recipe)

    def _resume(self) -> None:
        """Lets trainings go on that a server began and that were killed, with it or alone."""
        for recipe in self.recipes:
            lost = resumable(self.home, self.ledger, recipe.name)
            if lost:
                logger.info("training %d of %s goes on from its checkpoint", lost.id, recipe.name)
                background.run_background_task({"model": recipe.name, "resume": lost.id}, "train")

    def stopped(self, request: Mapping[str, Any], pid: int) -> None:
        """Called after MONAI Label killed the process of a training because somebody asked."""
        resume = int(request.get("resume") or 0)
        cancel(self.home, self.ledger, str(request.get("model")), "stopped by a client", pid, resume)

    def _warm_up(self) -> None:
        """Loads what the first click would wait for: the registry, ITK and the serving weights."""
        for recipe in self.recipes:
            version = self.champions.or_none(recipe.name)
            if version:
                _guarded(
                    functools.partial(self.champions.predictor, version), f"version {version.number} of {recipe.name}"
                )
        with tempfile.TemporaryDirectory(prefix="radloop-") as folder:
            write_mask(Path(folder) / "warm.nrrd", np.zeros((2, 2, 2), np.uint8), np.eye(4))

    def on_save_label(self, image_id: str, label_id: str) -> dict[str, Any]:
        """Tells the viewer what the ledger got, and starts a training where the recipe asks for one."""
        ONE_AT_A_TIME.notice()
        rows = self.datastore().last_saved()
        saved = [{"recipe": r.recipe, "row": r.id, "state": r.state, "names": list(r.names)} for r in rows]
        reply: dict[str, Any] = {"saved": saved}
        held = next((r for r in rows if r.state == "held"), None)
        if held:
            reply["message"] = f"kept, but held: {held.note}; sending the same mask once more confirms it"
        started = [
            r.recipe for r in rows if _guarded(functools.partial(self._retrain, r.recipe), f"training of {r.recipe}")
        ]
        return {**reply, "training_started": started} if started else reply

    def _retrain(self, name: str) -> bool:
        """Starts a training of a recipe that wants one after so many new labels; never a second one."""
        waiting = any(t["status"] in BUSY and t["request"].get("model") == name for t in background.tasks("train"))
        return not waiting and self._retraining.look(next(r for r in self.recipes if r.name == name))

    def _start_training(self, name: str) -> None:
        self.async_training(name, enqueue=True)


def _guarded(ask: Callable[[], Any], name: str) -> Any:
    try:
        return ask()
    except RadloopError as error:
        logger.warning("%s: %s", name, error)
    except Exception:  # one part that fails must not cost `/info/`, or a saved label its reply
        logger.exception("%s failed", name)
    return {}


def finite(value: Any) -> Any:
    """A JSON value with every number that is not finite replaced by null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(k): finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [finite(v) for v in value]
    return value if isinstance(value, str | int | bool | None) else json.loads(json.dumps(value, default=str))
