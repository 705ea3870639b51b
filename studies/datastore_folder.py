"""MONAI Label's datastore over a studies folder and the ledger: ids are checked, no label is ever overwritten."""

from __future__ import annotations

import functools
import logging
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

from monailabel.interfaces.datastore import Datastore

from radloop.recipes.errors import BadLabel, Conflict, NoSpace
from radloop.recipes.recipe import JSON_KINDS, Recipe
from radloop.studies.accept import accept_label, sync_view
from radloop.studies.answers import ENDING, drawn_recipes, is_answer, mask_recipes
from radloop.studies.archive import write_archive
from radloop.studies.blind import BlindReading
from radloop.studies.display import display_file
from radloop.studies.files import write_whole, writing
from radloop.studies.fitting import fit_mask
from radloop.studies.folder import MASK_ENDINGS, StudiesFolder, Study, split_ending
from radloop.studies.given_labels import DRAFT, FINAL, GivenLabels
from radloop.studies.home import Home
from radloop.studies.images import read_volume
from radloop.studies.info_store import InfoStore
from radloop.studies.label_tags import ORIGINAL, TAGS, asked_recipe, known_tag, no_label
from radloop.studies.ledger import Ledger
from radloop.studies.pool import Pool
from radloop.studies.proposals import Proposals
from radloop.studies.rows import LabelRow
from radloop.studies.shown import ShownAnswers
from radloop.studies.uploads import as_upload, image_ending, recipes_of, served

logger = logging.getLogger(__name__)


class FolderDatastore(Datastore):
    """Images from a studies folder, `final` and `draft` labels from the ledger, proposals (`original`) from a folder.

    A label's id is its study's id. Labels of several recipes may stand under one study and tag.

    Args:
        folder: the studies.
        home: where everything is kept.
        ledger: every label ever given.
        recipes: the questions served, the main one first.
        champion_found: whether the serving version of a recipe finds something in a study; asked for empty masks.
    """

    def __init__(
        self,
        folder: StudiesFolder,
        home: Home,
        ledger: Ledger,
        recipes: Sequence[Recipe],
        champion_found: Callable[[Recipe, str], bool] | None = None,
    ) -> None:
        self.folder, self.home, self.ledger, self.recipes = folder, home, ledger, tuple(recipes)
        self.pool = Pool(folder, ledger, [recipe.name for recipe in self.recipes])
        self.blind = BlindReading(folder, ledger, self.recipes, self.pool)
        self.proposals = Proposals(folder, home, self._read_blind)
        self.given = GivenLabels(folder, ledger, self.recipes)
        self._found, self._shown = champion_found, ShownAnswers(ledger, self.proposals)
        self._info = InfoStore(home.path / "info")
        self._lock = threading.Lock()
        self._after_reply = threading.local()
        self._name, self._description = folder.path.name, "radloop: a studies folder with a label ledger"

    def name(self) -> str:
        """The folder's name."""
        return self._name

    def set_name(self, name: str) -> None:
        """Renames it for this run."""
        self._name = name

    def description(self) -> str:
        """What this store is."""
        return self._description

    def set_description(self, description: str) -> None:
        """Describes it for this run."""
        self._description = description

    # -- lists

    def list_images(self) -> list[str]:
        """Every study's id."""
        return list(self.folder.studies())

    def labelled(self, recipe: str | None = None) -> set[str]:
        """Ids with a current label, of one recipe or of any that is served."""
        return self.given.studies(recipe)

    def get_labeled_images(self, label_tag: str | None = None, labels: list[str] | None = None) -> list[str]:
        """Ids with a mask of a tag; `final` where none is given. Proposals count only where asked for.

        Answers about whole studies count where no recipe that takes masks is served.
        """
        studies = self.list_images()
        having = self.proposals.ids() if label_tag == ORIGINAL else self.given.shown()
        return [i for i in studies if i in having]

    def get_unlabeled_images(self, label_tag: str | None = None, labels: list[str] | None = None) -> list[str]:
        """Ids without a label of a tag; `final` where none is given."""
        having = set(self.get_labeled_images(label_tag, labels))
        return [i for i in self.list_images() if i not in having]

    def datalist(self) -> list[dict[str, Any]]:
        """Image and mask pairs, as paths inside the studies folder (what the server's disk looks like is hidden)."""
        given, seen = self.given.all(), self.given.seen()
        return [
            {
                "image": study.channels[0].name,
                "label": f"labels/{FINAL}/{seen.get(study.id) or study.id + given[study.id][0].ext}",
            }
            for study in self.folder.studies().values()
            if study.id in given and not given[study.id][0].is_answer
        ]

    def status(self) -> dict[str, Any]:
        """How many images there are and how many have labels."""
        studies = set(self.list_images())
        final, original = len(self.given.shown() & studies), len(self.proposals.ids() & studies)
        return {"total": len(studies), "completed": final, "label_tags": {FINAL: final, ORIGINAL: original}}

    def json(self) -> dict[str, Any]:
        """Everything, in the form that viewers know from MONAI Label's own store."""
        given, proposals = self.given.all(), self.proposals.files()
        objects = {}
        for study in self.folder.studies().values():
            labels = {}
            if study.id in given:
                rows = given[study.id]
                known = self._info.get(f"labels-{FINAL}", study.id)
                labels[FINAL] = {"ext": rows[0].ext, "info": known | self.given.info(rows)}
            if study.id in proposals:
                ending = split_ending(proposals[study.id].name, MASK_ENDINGS)[1]
                labels[ORIGINAL] = {"ext": ending, "info": self._info.get(f"labels-{ORIGINAL}", study.id)}
            ending = split_ending(study.channels[0].name)[1]
            objects[study.id] = {"image": {"ext": ending, "info": self._image_info(study)}, "labels": labels}
        return {"name": self._name, "description": self._description, "objects": objects}

    # -- images

    def get_image(self, image_id: str, params: Any = None) -> Any:
        """The image's bytes."""
        return Path(self.get_image_uri(image_id)).read_bytes()

    def get_image_uri(self, image_id: str) -> str:
        """The file that viewers show: the main recipe's display channel; a DICOM folder as one NIfTI file."""
        return str(self._display(self.folder.study(image_id)))

    def _display(self, study: Study) -> Path:
        number = min(self.recipes[0].display_channel if self.recipes else 0, len(study.channels) - 1)
        return display_file(study.channels[number], self.home)

    def get_image_info(self, image_id: str) -> dict[str, Any]:
        """What is known of an image, and the name under which it is downloaded."""
        return self._image_info(self.folder.study(image_id))

    def _image_info(self, study: Study) -> dict[str, Any]:
        shown = f"{study.id}{split_ending(study.channels[0].name)[1] or '.nii.gz'}"
        return {**self._info.get("images", study.id), "name": shown}

    def update_image_info(self, image_id: str, info: dict[str, Any]) -> None:
        """Adds to what is known of an image."""
        self._info.update("images", self.folder.study(image_id).id, info)

    def add_image(self, image_id: str, image_filename: str, image_info: dict[str, Any]) -> str:
        """Takes a new image into the studies folder.

        Raises:
            BadInput: the id cannot name a study, or the file is of no kind that studies have.
            BadImage: the file cannot be read as an image.
            Conflict: there is a study of this id.
            NoSpace: the studies folder is full or read-only.
        """
        ending = image_ending(image_id, image_filename)
        with as_upload(image_filename, image_id, ending) as upload:
            read_volume(upload)
            with self._lock, writing(f"image {image_id}"):
                if image_id in self.folder.studies() or (self.folder.path / image_id).exists():
                    msg = f"study {image_id!r} is here already; give the new image another id"
                    raise Conflict(msg)
                write_whole(self.folder.path / f"{image_id}{ending}", lambda to: _copy(upload, to), ending)
        known = {k: v for k, v in (image_info or {}).items() if k in ("client_id", "user")}
        self._info.update("images", image_id, known | {"added": int(time.time())})
        return image_id

    def remove_image(self, image_id: str) -> None:
        """Never: images belong to the studies folder.

        Raises:
            NotFound: there is no such study.
            Conflict: always for one that is there.
        """
        self.folder.study(image_id)
        msg = f"study {image_id!r} is not removed over HTTP; take its file out of the studies folder"
        raise Conflict(msg)

    # -- labels

    def get_labels_by_image_id(self, image_id: str) -> dict[str, str]:
        """The tags under which a study has a label."""
        self.folder.study(image_id)
        return {tag: image_id for tag in TAGS if self._has(image_id, tag, None)}

    def get_label_by_image_id(self, image_id: str, tag: str) -> str:
        """The label's id, or an empty string."""
        return self.get_labels_by_image_id(image_id).get(known_tag(tag), "")

    def get_label(self, label_id: str, label_tag: str, params: Any = None) -> Any:
        """The label's bytes."""
        return Path(self.get_label_uri(label_id, label_tag)).read_bytes()

    def get_label_uri(self, label_id: str, label_tag: str) -> str:
        """The label's file.

        Raises:
            NotFound: the study has no such label.
        """
        return str(self._label(label_id, label_tag)[0])

    def get_label_info(self, label_id: str, label_tag: str) -> dict[str, Any]:
        """What is known of a label, and what its ids mean; of readers' labels also who, when and for which recipe."""
        path, told = self._label(label_id, label_tag)
        known = self._info.get(f"labels-{known_tag(label_tag)}", label_id)
        return {**known, **told, "name": path.name, "params": {**known.get("params", {}), **told["params"]}}

    def _label(self, study_id: str, tag: str) -> tuple[Path, dict[str, Any]]:
        """The file that a viewer gets and what it is told of it, of one and the same label."""
        self.folder.study(study_id)
        recipe = self._asked()
        if not self._has(study_id, tag, recipe):
            raise no_label(study_id, tag, recipe)
        if known_tag(tag) != ORIGINAL:
            rows = self.given.of(study_id, tag, recipe=recipe)
            return self.given.file(rows[0]), self.given.info(rows)
        if found := self.proposals.readable(study_id, self._made_for(study_id)):
            return found.file, {"params": {"label_names": found.names}, "message": found.message}
        raise no_label(study_id, tag)

    def _has(self, study_id: str, tag: str, recipe: str | None) -> bool:
        if known_tag(tag) == ORIGINAL:
            made_for = self._info.get(f"labels-{ORIGINAL}", study_id).get("model")
            return self.proposals.find(study_id) is not None and recipe in (None, made_for)
        return bool(self.given.of(study_id, tag, recipe=recipe))

    def _asked(self) -> str | None:
        """The recipe that the request names, or None; one that is not served is not found."""
        name = asked_recipe.get()
        return served(self.recipes, name).name if name else None

    def _read_blind(self, studies: Collection[str]) -> set[str]:
        """Those of these studies whose proposal is of a recipe that they are to be read blind for."""
        made_for: dict[str | None, set[str]] = {}
        for study_id in studies:
            made_for.setdefault(self._info.get(f"labels-{ORIGINAL}", study_id).get("model"), set()).add(study_id)
        return {one for recipe, those in made_for.items() for one in self.blind.due(those, recipe)}

    def _made_for(self, study_id: str) -> list[Recipe]:
        """The recipes served that take masks, that of a study's proposal first."""
        model = self._info.get(f"labels-{ORIGINAL}", study_id).get("model")
        return sorted(mask_recipes(self.recipes), key=lambda r: r.name != model)

    def update_label_info(self, label_id: str, label_tag: str, info: dict[str, Any]) -> None:
        """Adds to what is known of a label; what the ledger says stays."""
        self.get_label_uri(label_id, label_tag)
        self._info.update(f"labels-{known_tag(label_tag)}", label_id, info)

    def save_label(self, image_id: str, label_filename: str, label_tag: str, label_info: dict[str, Any]) -> str:
        """Takes a reader's label (`final`) or `draft` into the ledger, or a proposal (`original`) into its folder.

        Raises:
            BadLabel: the mask or answer does not fit its study or the recipes.
            BadInput: another tag.
            NotFound: no such study or recipe.
            NoSpace: the disk is full or read-only; of a mask for several recipes, the first labels may be kept.
        """
        self.save_rows(image_id, label_filename, label_tag, label_info)
        return image_id

    def save_rows(self, image_id: str, file: str, tag: str, info: dict[str, Any]) -> list[LabelRow]:
        """As `save_label`; says which rows the ledger got, one a recipe that the mask or answer speaks for."""
        self._after_reply.saved = []
        endings = (*MASK_ENDINGS, ENDING)
        study, ending = self.folder.study(image_id), split_ending(file, endings)[1].lower()
        if not ending:
            msg = f"the label of {image_id!r} is neither mask nor answer; send one of {', '.join(endings)}"
            raise BadLabel(msg)
        with as_upload(file, study.id, ending) as upload:
            if known_tag(tag) == ORIGINAL:
                self._save_proposal(image_id, upload, info or {})
                return []
            rows = self._accept(study, upload, info or {}, known_tag(tag))
        self._after_reply.saved = rows
        try:
            told: dict[str, Any] = {k: info[k] for k in ("comment", "client_id") if k in info}
            self._info.update(f"labels-{known_tag(tag)}", image_id, told)
        except NoSpace as error:  # the label itself is safe
            logger.warning("the comment on %s is not kept: %s", image_id, error)
        return rows

    def last_saved(self) -> list[LabelRow]:
        """Rows of the label that this thread saved last."""
        return getattr(self._after_reply, "saved", [])

    def _accept(self, study: Study, upload: Path, info: dict[str, Any], tag: str) -> list[LabelRow]:
        author, names = str(info.get("client_id") or "unknown"), info.get("label_info")
        # A proposal is a mask: it says nothing of what is asked about the whole study.
        seen = {True: self.ledger.shown, False: self._shown.version}
        shown = {r.name: seen[r.kind in JSON_KINDS](study.id, r.name, author) for r in self.recipes}
        made_for = self._shown.made_for(study.id, author)
        chosen = recipes_of(upload, names, self.recipes, info.get("model"), shown, made_for)
        others = {r.name: [o for o in drawn_recipes(self.recipes) if o.name != r.name] for r in chosen}
        if len(chosen) > 1:  # none is kept unless all fit
            masks = [(r, fit_mask(study, r, upload, names, others[r.name]).mask) for r in chosen]
            chosen = self._shown.drawn(study.id, author, masks, made_for)
        return [
            accept_label(
                self.folder,
                self.ledger,
                recipe,
                study.id,
                upload,
                author=author,
                label_info=names,
                shown_version=shown[recipe.name],
                state="draft" if tag == DRAFT else "final",
                others=others[recipe.name],
                champion_found=self._found and functools.partial(self._found, recipe, study.id),
            )
            for recipe in chosen
        ]

    def _save_proposal(self, image_id: str, upload: Path, info: dict[str, Any]) -> None:
        names = info.get("label_info")
        masks = mask_recipes(self.recipes)
        recipe = recipes_of(upload, names, self.recipes, info.get("model"), {})[0]
        if is_answer(upload) or recipe not in masks:
            msg = f"a label of tag {ORIGINAL!r} is a mask; recipe {recipe.name} is of kind {recipe.kind}: send a mask"
            raise BadLabel(msg)
        others = [r for r in drawn_recipes(self.recipes) if r.name != recipe.name]
        note = self.proposals.save(image_id, recipe, upload, names, others)
        params = info.get("params") or {}
        self._info.update(f"labels-{ORIGINAL}", image_id, {"model": recipe.name, "params": params, "note": note})

    def remove_label(self, label_id: str, label_tag: str, *, recipe: str | None = None, by: str | None = None) -> None:
        """Retracts a study's labels by one more row each, or puts its proposal aside; content is never deleted.

        Args:
            recipe: only labels of this one; else of the one that the request names, else of all.
            by: who asks for it, as far as it is known.

        Raises:
            NotFound: the study has no such label.
        """
        recipe = recipe or self._asked()
        if not self._has(self.folder.study(label_id).id, label_tag, recipe):
            raise no_label(label_id, label_tag, recipe)
        if known_tag(label_tag) == ORIGINAL:
            self.proposals.remove(label_id)
            return
        self.given.retract(label_id, known_tag(label_tag), by=by or "unknown", recipe=recipe)
        sync_view(self.folder, self.ledger, self.recipes)

    # -- the rest

    def refresh(self) -> None:
        """Nothing: the folder is looked at with every question."""

    def get_dataset_archive(self, limit_cases: int | None) -> str:
        """A ZIP of labelled images, their masks and answers and `metadata.json`; `finish_reply` deletes it."""
        given = self.given.all()
        studies = [study for study in self.folder.studies().values() if study.id in given][: limit_cases or None]
        handle, name = tempfile.mkstemp(prefix="radloop-", suffix=".zip")
        os.close(handle)
        self._after_reply.file = Path(name)
        files = {s.id: (self._display(s), self.given.files(given[s.id])) for s in studies}
        known = {s.id: self._info.get(f"labels-{FINAL}", s.id) | self.given.info(given[s.id]) for s in studies}
        write_archive(Path(name), files, {"cases": known, "labels": {r.name: r.labels for r in self.recipes}})
        return name

    def finish_reply(self) -> None:
        """Deletes what this thread made only to be sent."""
        if file := getattr(self._after_reply, "file", None):
            file.unlink(missing_ok=True)
            self._after_reply.file = None


def _copy(source: Path, target: Path) -> None:
    shutil.copyfile(source, target)
