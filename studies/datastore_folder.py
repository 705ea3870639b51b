"""MONAI Label's datastore over a studies folder and the ledger: ids are checked, no label is ever overwritten."""

from __future__ import annotations

import functools
import logging
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from monailabel.interfaces.datastore import Datastore, DefaultLabelTag

from radloop.recipes.errors import BadInput, BadLabel, Conflict, NoSpace, NotFound, closest
from radloop.recipes.recipe import Recipe
from radloop.studies.accept import accept_label, sync_view
from radloop.studies.archive import row_info, write_archive
from radloop.studies.display import display_file
from radloop.studies.files import write_whole, writing
from radloop.studies.fitting import fit_mask
from radloop.studies.folder import MASK_ENDINGS, StudiesFolder, Study, split_ending, valid_id
from radloop.studies.home import Home
from radloop.studies.images import read_volume
from radloop.studies.info_store import InfoStore
from radloop.studies.ledger import Ledger
from radloop.studies.proposals import Proposals
from radloop.studies.rows import LabelRow
from radloop.studies.uploads import as_upload, recipes_of
from radloop.studies.view import View

logger = logging.getLogger(__name__)
FINAL, ORIGINAL = DefaultLabelTag.FINAL.value, DefaultLabelTag.ORIGINAL.value
UPLOADS = (".nii.gz", ".nii", ".nrrd", ".mha", ".png", ".jpg", ".jpeg")


class FolderDatastore(Datastore):
    """Images from a studies folder, `final` labels from the ledger, `original` ones (proposals) from a folder.

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
        self.proposals = Proposals(folder, home)
        self._found = champion_found
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
        names = [recipe] if recipe else [r.name for r in self.recipes]
        return {study for name in names for study in self.ledger.current(name)}

    def get_labeled_images(self, label_tag: str | None = None, labels: list[str] | None = None) -> list[str]:
        """Ids with a label of a tag; `final` where none is given. Proposals count only where asked for."""
        studies = self.list_images()
        having = self.proposals.ids() if label_tag == ORIGINAL else self.labelled()
        return [i for i in studies if i in having]

    def get_unlabeled_images(self, label_tag: str | None = None, labels: list[str] | None = None) -> list[str]:
        """Ids without a label of a tag; `final` where none is given."""
        having = set(self.get_labeled_images(label_tag, labels))
        return [i for i in self.list_images() if i not in having]

    def datalist(self) -> list[dict[str, Any]]:
        """Image and label pairs, as paths inside the studies folder (what the server's disk looks like is hidden)."""
        studies = self.folder.studies()
        pairs = []
        for study_id in self.get_labeled_images():
            image = studies[study_id].channels[0].name
            pairs.append({"image": image, "label": f"labels/{FINAL}/{Path(self.get_label_uri(study_id, FINAL)).name}"})
        return pairs

    def status(self) -> dict[str, Any]:
        """How many images there are and how many have labels."""
        studies = set(self.list_images())
        final, original = len(self.labelled() & studies), len(self.proposals.ids() & studies)
        return {"total": len(studies), "completed": final, "label_tags": {FINAL: final, ORIGINAL: original}}

    def json(self) -> dict[str, Any]:
        """Everything, in the form that viewers know from MONAI Label's own store."""
        studies, labelled, proposals = self.folder.studies(), self.labelled(), self.proposals.ids()
        objects = {}
        for study_id, study in studies.items():
            tags = [FINAL] * (study_id in labelled) + [ORIGINAL] * (study_id in proposals)
            labels = {tag: self._label_entry(study_id, tag) for tag in tags}
            ending = split_ending(study.channels[0].name)[1]
            objects[study_id] = {"image": {"ext": ending, "info": self.get_image_info(study_id)}, "labels": labels}
        return {"name": self._name, "description": self._description, "objects": objects}

    def _label_entry(self, study_id: str, tag: str) -> dict[str, Any]:
        ending = split_ending(self.get_label_uri(study_id, tag), MASK_ENDINGS)[1]
        return {"ext": ending, "info": self.get_label_info(study_id, tag)}

    # -- images

    def get_image(self, image_id: str, params: Any = None) -> Any:
        """The image's bytes."""
        return Path(self.get_image_uri(image_id)).read_bytes()

    def get_image_uri(self, image_id: str) -> str:
        """The file that viewers show: the main recipe's display channel; a DICOM folder as one NIfTI file."""
        study = self.folder.study(image_id)
        number = min(self.recipes[0].display_channel if self.recipes else 0, len(study.channels) - 1)
        return str(display_file(study.channels[number], self.home))

    def get_image_info(self, image_id: str) -> dict[str, Any]:
        """What is known of an image, and the name under which it is downloaded."""
        study = self.folder.study(image_id)
        name = study.channels[0].name
        shown = f"{study.id}{split_ending(name)[1] or '.nii.gz'}"
        return {**self._info.get("images", image_id), "name": shown}

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
        ending = split_ending(image_filename, UPLOADS)[1].lower()
        if not valid_id(image_id) or not ending or image_id.endswith("_0000"):
            msg = f"image {image_id!r} cannot be added; give an id of letters, digits, ._- that does not end in _0000"
            raise BadInput(msg)
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
        tags = {FINAL: image_id in self.labelled(), ORIGINAL: self.proposals.find(image_id) is not None}
        return {tag: image_id for tag, there in tags.items() if there}

    def get_label_by_image_id(self, image_id: str, tag: str) -> str:
        """The label's id, or an empty string."""
        return self.get_labels_by_image_id(image_id).get(_known_tag(tag), "")

    def get_label(self, label_id: str, label_tag: str, params: Any = None) -> Any:
        """The label's bytes."""
        return Path(self.get_label_uri(label_id, label_tag)).read_bytes()

    def get_label_uri(self, label_id: str, label_tag: str) -> str:
        """The label's file.

        Raises:
            NotFound: the study has no such label.
        """
        self.folder.study(label_id)
        if _known_tag(label_tag) == ORIGINAL:
            found = self.proposals.find(label_id)
        else:
            rows = self._rows(label_id)
            found = (self._view(label_id) or self.ledger.file(rows[0])) if rows else None
        if found is None:
            msg = f"study {label_id!r} has no label of tag {label_tag!r}"
            raise NotFound(msg)
        return str(found)

    def get_label_info(self, label_id: str, label_tag: str) -> dict[str, Any]:
        """What is known of a label: for readers' labels who, when and for which recipe, from the ledger."""
        path = self.get_label_uri(label_id, label_tag)
        known = self._info.get(f"labels-{_known_tag(label_tag)}", label_id)
        if label_tag == ORIGINAL:
            names = known.get("params", {}).get("label_names") or (self.recipes[0].labels if self.recipes else {})
            return known | {"name": Path(path).name, "params": {**known.get("params", {}), "label_names": names}}
        rows = self._rows(label_id)
        names = next((r.labels for r in self.recipes if r.name == rows[0].recipe), {})
        return known | {
            "name": Path(path).name,
            "params": {"label_names": names},
            "labels": [row_info(r) for r in rows],
        }

    def update_label_info(self, label_id: str, label_tag: str, info: dict[str, Any]) -> None:
        """Adds to what is known of a label; what the ledger says stays."""
        self.get_label_uri(label_id, label_tag)
        self._info.update(f"labels-{_known_tag(label_tag)}", label_id, info)

    def save_label(self, image_id: str, label_filename: str, label_tag: str, label_info: dict[str, Any]) -> str:
        """Takes a reader's label (`final`) into the ledger, or a proposal (`original`) into its folder.

        Raises:
            BadLabel: the mask does not fit its study or the recipes.
            BadInput: another tag.
            NotFound: no such study or recipe.
            NoSpace: the disk is full or read-only; nothing was changed.
        """
        self.save_rows(image_id, label_filename, label_tag, label_info)
        return image_id

    def save_rows(self, image_id: str, file: str, tag: str, info: dict[str, Any]) -> list[LabelRow]:
        """As `save_label`; says which rows the ledger got, one a recipe that the mask speaks for."""
        self._after_reply.saved = []
        study, ending = self.folder.study(image_id), split_ending(file, MASK_ENDINGS)[1].lower()
        if not ending:
            msg = f"the label of {image_id!r} is not a mask file; send one of {', '.join(MASK_ENDINGS)}"
            raise BadLabel(msg)
        with as_upload(file, study.id, ending) as upload:
            if _known_tag(tag) == ORIGINAL:
                self._save_proposal(image_id, upload, info or {})
                return []
            rows = self._accept(study, upload, info or {})
        self._after_reply.saved = rows
        try:
            self._info.update(f"labels-{FINAL}", image_id, {k: info[k] for k in ("comment", "client_id") if k in info})
        except NoSpace as error:  # the label itself is safe
            logger.warning("the comment on %s is not kept: %s", image_id, error)
        return rows

    def last_saved(self) -> list[LabelRow]:
        """Rows of the label that this thread saved last."""
        return getattr(self._after_reply, "saved", [])

    def _accept(self, study: Study, upload: Path, info: dict[str, Any]) -> list[LabelRow]:
        author, names = str(info.get("client_id") or "unknown"), info.get("label_info")
        shown = {r.name: self._shown(study.id, r, author) for r in self.recipes}
        chosen = recipes_of(upload, names, self.recipes, info.get("model"), shown)
        others = {r.name: [o for o in self.recipes if o.name != r.name] for r in chosen}
        for recipe in chosen[1:]:  # none is kept unless all fit
            fit_mask(study, recipe, upload, names, others[recipe.name])
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
                others=others[recipe.name],
                champion_found=self._found and functools.partial(self._found, recipe, study.id),
            )
            for recipe in chosen
        ]

    def _shown(self, study_id: str, recipe: Recipe, author: str) -> str:
        """What the reader saw: an answer asked for, or a proposal, which Slicer loads with the study."""
        asked = self.ledger.shown(study_id, recipe.name, author)
        if asked or self.proposals.find(study_id) is None:
            return asked
        known = self._info.get(f"labels-{ORIGINAL}", study_id)
        of_recipe = known.get("model") in (None, recipe.name)
        return str(known.get("params", {}).get("version") or "proposal") if of_recipe else ""

    def _save_proposal(self, image_id: str, upload: Path, info: dict[str, Any]) -> None:
        recipe = next((r for r in self.recipes if r.name == info.get("model")), self.recipes[0])
        self.proposals.save(image_id, recipe, upload)
        self._info.update(f"labels-{ORIGINAL}", image_id, {k: info[k] for k in ("model", "params") if k in info})

    def remove_label(self, label_id: str, label_tag: str) -> None:
        """Retracts a study's labels by one more row each, or puts its proposal aside; content is never deleted.

        Raises:
            NotFound: the study has no such label.
        """
        self.get_label_uri(label_id, label_tag)
        if label_tag == ORIGINAL:
            self.proposals.remove(label_id)
            return
        while rows := self._rows(label_id):
            self.ledger.revoke(ids=[r.id for r in rows])
        sync_view(self.folder, self.ledger, self.recipes)

    def _rows(self, study_id: str) -> list[LabelRow]:
        """A study's current labels, the main recipe's first."""
        rows = (self.ledger.current(r.name).get(study_id) for r in self.recipes)
        return [row for row in rows if row]

    def _view(self, study_id: str) -> Path | None:
        return next(iter(View(self.folder, self.ledger).of_study(study_id)), None)

    # -- the rest

    def refresh(self) -> None:
        """Nothing: the folder is looked at with every question."""

    def get_dataset_archive(self, limit_cases: int | None) -> str:
        """A ZIP of labelled images, their labels and `metadata.json`; `finish_reply` deletes it."""
        cases = self.get_labeled_images()[: limit_cases or None]
        handle, name = tempfile.mkstemp(prefix="radloop-", suffix=".zip")
        os.close(handle)
        self._after_reply.file = Path(name)
        files = {i: (Path(self.get_image_uri(i)), Path(self.get_label_uri(i, FINAL))) for i in cases}
        known = {i: self.get_label_info(i, FINAL) for i in cases}
        write_archive(Path(name), files, {"cases": known, "labels": {r.name: r.labels for r in self.recipes}})
        return name

    def finish_reply(self) -> None:
        """Deletes what this thread made only to be sent."""
        file = getattr(self._after_reply, "file", None)
        if file:
            file.unlink(missing_ok=True)
            self._after_reply.file = None


def _known_tag(tag: str) -> str:
    value = tag.value if isinstance(tag, DefaultLabelTag) else tag
    if value not in (FINAL, ORIGINAL):
        msg = f"label tag {value!r} is not kept here; use {FINAL} or {ORIGINAL}{closest(value, (FINAL, ORIGINAL))}"
        raise BadInput(msg)
    return value


def _copy(source: Path, target: Path) -> None:
    shutil.copyfile(source, target)
