"""A clinical question as data: one frozen model, read from one TOML, saved beside every version.

The fields follow nnU-Net's plans (Isensee et al., Nature Methods 2021): target spacing, normalisation, patch,
network topology. Lengths are mm, spacing is in the order of the RAS axes (right-left, back-front, foot-head).
"""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, field_validator, model_validator
from pydantic_core import PydanticCustomError

Kind = Literal["segmentation", "detection", "classification", "multilabel", "ordinal", "risk"]
Unit = Literal["days", "months", "years"]
Modality = Literal["CT", "MR", "XR", "US", "PT", "OT"]

MAX_LABELS = 255
CLASS_KINDS: tuple[Kind, ...] = ("classification", "multilabel", "ordinal")
"""Kinds whose answer is about the whole study, in words."""
STUDY_KINDS: tuple[Kind, ...] = (*CLASS_KINDS, "risk")
"""Kinds whose answer is about the whole study: words, or a risk over time."""
JSON_KINDS: tuple[Kind, ...] = (*STUDY_KINDS, "detection")
"""Kinds whose label is a small JSON file and not a mask."""


class Part(BaseModel):
    """A table of the recipe: frozen, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Answer(Part):
    """What an answer about a whole study is, and what is known beside the image.

    Attributes:
        column: the column of `answers.csv` that holds it; empty takes the recipe's name. A `multilabel` recipe has one
            column a finding, named as its label.
        region: a mask recipe whose mask says where in the study to look: a crop around it, with the mask as one more
            channel; empty looks at the whole image.
        border: mm kept around the region on every side.
        per: `lesion` answers for each connected component of the region by itself, `study` for all of it.
        covariates: columns of `answers.csv` with numbers that the network is told too, such as age.
        event: the column of `answers.csv` that says whether the event of a `risk` recipe came, 1 or 0.
        time: the column with the time of the event, or until when the patient was known to be without it.
        unit: of times.
        times: when a `risk` recipe tells the risk, in ascending order.
        intervals: pieces of time that a risk is learned for; their bounds come from the training events.
        sequence: `visits` looks at the patient's earlier dated studies too, with the time since each in `unit`.
    """

    column: str = ""
    region: str = Field(default="", pattern=r"^([a-z][a-z0-9_]{0,63})?$")
    border: float = Field(default=10.0, ge=0)
    per: Literal["study", "lesion"] = "study"
    covariates: tuple[str, ...] = ()
    event: str = "event"
    time: str = "time"
    unit: Unit = "days"
    times: tuple[PositiveFloat, ...] = ()
    intervals: int = Field(default=6, ge=1, le=100)
    sequence: Literal["", "visits"] = ""


class Preprocess(Part):
    """How an image becomes the network's input; the same for prediction, training and validation.

    Attributes:
        spacing: target voxel size in mm along R, A, S; a 2D recipe gives two (in-plane); empty keeps the file's.
        size: in place of `spacing`, voxels along R, A, S that an image is made to fit into, its proportions kept: for
            pictures that do not say how large their pixels are. A 2D recipe gives two.
        normalise: `zscore` by each image's own mean and deviation; `ct` clips to `window` (HU), then subtracts
            `mean` and divides by `deviation`; `rescale` maps the image's 0.5-99.5 percentiles to 0-1.
        window: lower and upper limit for `ct`, HU.
        mean: HU subtracted for `ct`.
        deviation: HU divided by for `ct`.
    """

    spacing: tuple[PositiveFloat, ...] = ()
    size: tuple[PositiveInt, ...] = ()
    normalise: Literal["zscore", "ct", "rescale"] = "zscore"
    window: tuple[float, float] = (-1000.0, 1000.0)
    mean: float = 0.0
    deviation: float = Field(default=500.0, gt=0)


class Network(Part):
    """The architecture, by its registered name, and its size.

    Attributes:
        name: a name registered in `radloop.networks`.
        features: channels at each resolution, from the finest; empty takes the network's own.
        strides: downsampling before each resolution (the first is 1s), along R, A, S (two numbers in 2D).
        weights: a local file with starting weights, or empty.
        deep_supervision: whether the loss also looks at coarser resolutions of a mask's network, half as much at each.
        mirror: whether an answer is the mean over the image and its mirrors along `fit.mirror`.
    """

    name: str = "unet"
    features: tuple[PositiveInt, ...] = ()
    strides: tuple[tuple[PositiveInt, ...], ...] = ()
    weights: str = ""
    deep_supervision: bool = False
    mirror: bool = False


class Fit(Part):
    """How a network is trained.

    Attributes:
        patch: voxels along R, A, S (two numbers in 2D) at the target spacing.
        batch: patches a step.
        steps: steps an epoch.
        epochs: the budget where neither `--epochs` nor `--minutes` is given and `minutes` is 0.
        minutes: the budget in minutes; 0 means `epochs` decide.
        learning_rate: the peak of the schedule.
        foreground: share of patches centred on a labelled voxel.
        mirror: RAS axes (0, 1, 2) that may be mirrored in augmentation; leave out where sides differ.
        dice: whether a mask's soft Dice in the loss is of all patches of a step together (`batch`) or the mean of each
            patch's that has the label (`patch`), so that small lesions count as much as large ones.
        ema: decay of the averaged weights that serve.
        channel_dropout: share of the patches in which an optional channel is taken away, each channel for itself.
        balance: how rare classes are made up for: `loss` weighs them, `sampler` draws them more often, `none` does not.
    """

    patch: tuple[PositiveInt, ...] = (64, 64, 64)
    batch: int = Field(default=2, ge=1)
    steps: int = Field(default=50, ge=1)
    epochs: int = Field(default=20, ge=1)
    minutes: float = Field(default=0.0, ge=0)
    learning_rate: float = Field(default=1e-3, gt=0)
    foreground: float = Field(default=0.5, ge=0, le=1)
    mirror: tuple[int, ...] = ()
    dice: Literal["batch", "patch"] = "batch"
    ema: float = Field(default=0.99, ge=0, lt=1)
    channel_dropout: float = Field(default=0.25, ge=0, le=1)
    balance: Literal["none", "loss", "sampler"] = "none"


class Evaluate(Part):
    """What is measured beside the figures that every recipe of a kind has.

    Attributes:
        lesions: labels of a mask that are lesions, each component one, to be found or missed; organs are none.
        smallest: mm³ that a lesion has at least; smaller components, the reader's and the model's, are not counted.
    """

    lesions: tuple[str, ...] = ()
    smallest: float = Field(default=0.0, ge=0)


class Gate(Part):
    """When a new version may serve.

    Attributes:
        margin: how much worse (in the recipe's metric, Dice for masks) still counts as not worse.
        first_model_after: labels before a first model is trained.
        retrain_after: new labels that start a training by themselves; 0 never does.
        label_margins: label -> margin of its own, where one label may fall further, or less far, than the mean over
            labels; `margin` for the others.
        blind: whether readers meet held-out studies without a proposal until they have labelled them.
    """

    margin: float = Field(default=0.02, gt=0, lt=1)
    label_margins: dict[str, Annotated[float, Field(gt=0, lt=1)]] = Field(default_factory=dict)
    first_model_after: int = Field(default=5, ge=1)
    retrain_after: int = Field(default=0, ge=0)
    blind: bool = True


class Recipe(Part):
    """A clinical question: what is asked, of which images, by which network, and when a new version serves.

    Attributes:
        labels: name -> id; ids are exactly 1..N, 0 is background. What an answer can say: structures of a mask,
            classes of boxes (`detection`), classes that exclude each other (`classification`), findings (`multilabel`),
            grades from the lowest (`ordinal`), the one event (`risk`).
        channels: names of a study's channels in the order `_0000`, `_0001`; one for an ordinary study.
        optional: those of the channels that a study may lack.
        display_channel: the channel that viewers show.
    """

    format: Literal[1] = 1
    name: str = Field(pattern=r"^[a-z][a-z0-9_]{0,63}$")
    title: str = ""
    kind: Kind = "segmentation"
    modality: Modality = "CT"
    dimension: Literal[2, 3] = 3
    channels: tuple[str, ...] = ("image",)
    optional: tuple[str, ...] = ()
    display_channel: int = Field(default=0, ge=0)
    labels: dict[str, int]
    answer: Answer = Answer()
    preprocess: Preprocess = Preprocess()
    network: Network = Network()
    fit: Fit = Fit()
    gate: Gate = Gate()
    evaluate: Evaluate = Evaluate()

    @field_validator("labels")
    @classmethod
    def _ids_are_one_to_n(cls, labels: dict[str, int]) -> dict[str, int]:
        if sorted(labels.values()) != list(range(1, len(labels) + 1)) or not labels:
            ids = sorted(labels.values())
            msg = f"label ids are {ids}; they must be exactly 1..{max(len(labels), 1)} (0 is background)"
            raise ValueError(msg)
        if len(labels) > MAX_LABELS:
            msg = f"there are {len(labels)} labels; a mask of bytes holds at most {MAX_LABELS}"
            raise ValueError(msg)
        for name in labels:
            if name.strip() != name or not name.isprintable() or name.lower() in ("", "background"):
                msg = f"{name!r} cannot name a label; use printable text without outer spaces, and not 'background'"
                raise ValueError(msg)
        return dict(sorted(labels.items(), key=lambda item: item[1]))

    @model_validator(mode="after")
    def _parts_agree(self) -> Recipe:
        from radloop.recipes.agree import disagreements  # which knows this class

        found = disagreements(self)
        if found:
            kind, text = "disagreement", "; ".join(problem.message for problem in found)
            raise PydanticCustomError(kind, "{text}", {"text": text, "problems": found})
        return self

    @property
    def label_names(self) -> tuple[str, ...]:
        """Names in the order of their ids 1..N."""
        return tuple(self.labels)

    @property
    def outputs(self) -> int:
        """Numbers that the network gives: 1 + labels a voxel; one a class, finding or interval; grades less one."""
        count = len(self.labels)
        return {"segmentation": count + 1, "ordinal": count - 1, "risk": self.answer.intervals}.get(self.kind, count)

    @property
    def inputs(self) -> int:
        """Channels that the network is given: the study's, the region's mask, and which optional one is lacking."""
        return len(self.channels) + bool(self.answer.region) + len(self.optional)

    @property
    def may_lack(self) -> tuple[int, ...]:
        """Places in `channels` of those that a study may lack."""
        return tuple(place for place, name in enumerate(self.channels) if name in self.optional)

    @property
    def extras(self) -> int:
        """Numbers that a network about a whole study is told beside the image: two a covariate, one of the region."""
        return 2 * len(self.answer.covariates) + bool(self.answer.region)

    @property
    def figure(self) -> str:
        """What the gate compares of each patient, 0..1 and higher is better, in words."""
        return {"segmentation": "Dice", "ordinal": "1 - RPS", "detection": "box F1"}.get(self.kind, "1 - Brier score")

    def hash(self) -> str:
        """Twelve hex digits that change with any field of the recipe."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()[:12]
