"""What a planned recipe says about itself: a reason for every value, with the figures it stands on."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from radloop.engine import plan_rules as rules
from radloop.engine.plan_search import RESERVE, WIDTHS, Plan
from radloop.engine.plan_text import Entry, Table
from radloop.recipes.recipe import Recipe
from radloop.studies.fingerprint import Fingerprint


def heading(seen: Fingerprint, plan: Plan, folder: str) -> list[str]:
    """The paragraphs above the recipe: where it is from, what an answer takes, and what to look at first."""
    estimate, path = plan.estimate, plan.estimate.path
    largest = seen.largest
    network = estimate.windows * estimate.patch_seconds
    lines = [
        f'Planned by radloop from {len(seen.ids)} studies in "{folder}" ({seen.sampled} of them read whole, the '
        f"headers of the others) and for this machine: {plan.machine.name}. Rules: nnU-Net (Isensee et al., Nature "
        f"Methods 2021), and an answer within {plan.budget:g} s. Change what you know better; `radloop recipe check` "
        "reads it.",
        f"Answer: about {seconds(estimate.seconds)} s for the largest study seen ({seen.ids[largest]}, "
        f"{times(seen.shapes[largest])} voxels): reading {seconds(path.read)}, resampling {seconds(path.image)}, "
        f"network {seconds(network)} ({estimate.windows} patches of {estimate.patch_seconds:.2g} s), back to the "
        f"file's voxels {seconds(path.restore)}, writing {seconds(path.write)}. Measured on {_processors(plan)}; "
        f"planned for {RESERVE * plan.budget:g} s to keep a reserve. About {estimate.memory / 2**30:.1f} GiB of "
        "memory.",
    ]
    return lines + first_words(seen)


def first_words(seen: Fingerprint) -> list[str]:
    """What to look at first: studies that cannot be read, ids that look like one patient."""
    lines = []
    if seen.unreadable:
        some = "; ".join(f"{study}: {reason}" for study, reason in seen.unreadable[:5])
        lines.append(f"NOT READABLE and left out: {len(seen.unreadable)} studies. {some}")
    if seen.same_patient:
        some = "; ".join(", ".join(group[:4]) for group in seen.same_patient[:5])
        lines.append(
            f"LOOK HERE: {len(seen.same_patient)} groups of ids look like one patient each ({some}). Each id counts as "
            "a patient of its own until answers.csv names them (columns image, patient); held-out figures are too good "
            "where one patient is on both sides. Do it before the first training: the split is kept for good."
        )
    return lines


def tables(seen: Fingerprint, plan: Plan, labels: Mapping[str, int] | None) -> list[Table]:
    """The recipe's tables, each value with its reason; `labels` are those given by the user, if any."""
    recipe = plan.recipe
    top = [
        Entry("format", recipe.format),
        Entry("name", recipe.name),
        Entry("title", recipe.name.replace("_", " ").capitalize(), "What a reader sees in the viewer."),
        Entry("kind", recipe.kind),
        Entry("modality", recipe.modality, f"From {seen.modality_from}."),
        Entry("dimension", recipe.dimension, "" if recipe.dimension == 3 else "Every study has one slice."),
        Entry("channels", recipe.channels, channels_why(recipe)),
        *optional_channels(seen, recipe),
        Entry("display_channel", recipe.display_channel),
    ]
    entries = [Entry(label, number) for label, number in recipe.labels.items()]
    return [
        Table("", top),
        Table("labels", entries, _labels_why(seen, labels)),
        Table("preprocess", _preprocess(seen, plan)),
        Table("network", _network(plan)),
        Table("fit", _fit(seen, plan)),
        Table("gate", _gate(recipe)),
    ]


def optional_channels(seen: Fingerprint, recipe: Recipe) -> list[Entry]:
    """Which channels studies may lack, and how many do; nothing where none does."""
    if not recipe.optional:
        return []
    told = ", ".join(f"{recipe.channels[number]}: {count}" for number, count in seen.lacking.items())
    why = (
        f"Lacking in studies ({told} of {len(seen.ids)}), so the network learns to do without. [] refuses such studies."
    )
    return [Entry("optional", recipe.optional, why)]


def channels_why(recipe: Recipe) -> str:
    """What the names of several channels are."""
    if len(recipe.channels) == 1:
        return ""
    return (
        "In the order of the files _0000, _0001, ...; call them what they are (flair, t1c); display_channel is shown."
    )


def _labels_why(seen: Fingerprint, labels: Mapping[str, int] | None) -> str:
    if labels is not None:
        return "Names as given. Ids are 1..N, 0 is background."
    if not seen.labels.names:
        return "There are no masks yet, so this is a placeholder: write your own names, ids 1..N, 0 is background."
    return f"From {seen.labels.names_from}. Ids are 1..N, 0 is background."


def _preprocess(seen: Fingerprint, plan: Plan) -> list[Entry]:
    return [Entry("spacing", plan.recipe.preprocess.spacing, _spacing_why(seen, plan)), *normalising(seen, plan.recipe)]


def normalising(seen: Fingerprint, recipe: Recipe) -> list[Entry]:
    """How intensities are normalised, and why."""
    preprocess = recipe.preprocess
    found = [Entry("normalise", preprocess.normalise, rules.intensities(seen)[1])]
    if preprocess.normalise == "ct":
        found += [
            Entry("window", preprocess.window),
            Entry("mean", preprocess.mean),
            Entry("deviation", preprocess.deviation),
        ]
    return found


def _spacing_why(seen: Fingerprint, plan: Plan) -> str:
    axes = plan.recipe.dimension
    spacing, median = plan.recipe.preprocess.spacing, np.median(seen.spacings[:, :axes], axis=0)
    low, high = seen.spacings[:, :axes].min(axis=0), seen.spacings[:, :axes].max(axis=0)
    spread = "" if np.allclose(low, high, rtol=0.01) else f" (from {times(low)} to {times(high)})"
    axes_named = "R, A, S" if axes == 3 else "columns and rows"
    words = [f"mm along {axes_named}. Median of the studies: {times(median)}{spread}."]
    if axes == 2 and np.allclose(median, 1.0):
        words.append("Pictures that say no size count 1 mm a pixel.")
    if plan.full != rules.rounded(median):
        words.append(f"The coarsest axis takes its 10th percentile, as slices vary: {times(plan.full)}.")
    if spacing == plan.full:
        words.append("No resolution is given up: an answer is in time with it.")
    else:
        words.append(f"Made coarser, {times(plan.full)} -> {times(spacing)}, to answer within {plan.budget:g} s.")
    coarse = max(spacing)
    words.append(f"A 4 mm lesion spans {4 / coarse:.1f} voxels.")
    if np.isfinite(plan.smallest):
        words.append(
            f"The smallest tenth of the labelled things seen is up to {plan.smallest:.1f} mm across, "
            f"{plan.smallest / coarse:.1f} voxels."
        )
    if spacing != plan.full:
        words.append("Finer voxels need more --answer-seconds, more processor cores or a CUDA device.")
    return " ".join(words)


def _network(plan: Plan) -> list[Entry]:
    recipe = plan.recipe
    widest = WIDTHS[plan.machine.device][0]
    start = "nnU-Net's" if widest == 32 else "half of nnU-Net's, as there is no CUDA device"
    narrow = f" Narrower than {widest}: a wider one would answer too late at these voxels."
    return [
        Entry("name", recipe.network.name, "nnU-Net's plain U-Net."),
        Entry(
            "features",
            recipe.network.features,
            f"Channels a resolution, {start}." + (narrow if recipe.network.features[0] < widest else ""),
        ),
        Entry("strides", recipe.network.strides, "Halved while at least 4 voxels are left; a thick axis waits."),
    ]


def _fit(seen: Fingerprint, plan: Plan) -> list[Entry]:
    fit, cost = plan.recipe.fit, plan.training
    share = f" ({100 * seen.labels.share:.2g} % of the voxels are labelled)" if seen.labels.share else ""
    size = rules.median_size(seen, plan.recipe.preprocess.spacing)
    step = fit.batch * cost.seconds
    return [
        Entry(
            "patch",
            fit.patch,
            f"The median study has {times(size)} such voxels. A training step takes about "
            f"{cost.memory(fit.batch) / 2**30:.1f} GiB and, on {_processors(plan).split(',')[0]}, {step:.2g} s.",
        ),
        Entry("batch", fit.batch),
        Entry("steps", fit.steps),
        Entry(
            "minutes",
            fit.minutes,
            f"About {60 * fit.minutes / step:.0f} steps; longer is better, most of all with many labels.",
        ),
        Entry("learning_rate", fit.learning_rate),
        Entry("foreground", fit.foreground, f"Half of the patches are centred on a label{share}."),
        Entry("mirror", fit.mirror, rules.mirroring(plan.recipe.labels, plan.recipe.dimension)[1]),
        Entry("ema", fit.ema),
    ]


def _gate(recipe: Recipe) -> list[Entry]:
    gate = recipe.gate
    return [
        Entry(
            "margin",
            gate.margin,
            "A new version serves only if its Dice on the held-out patients is surely (one-sided 95 %) not worse than "
            "the old one's by more than this.",
        ),
        Entry("first_model_after", gate.first_model_after, "Labels before a first model is trained."),
        Entry(
            "retrain_after",
            gate.retrain_after,
            "0: trained when somebody asks. A number starts a training by itself after so many new labels.",
        ),
    ]


def seconds(value: float) -> str:
    """As a person reads them."""
    return f"{value:.1f}" if value < 10 else f"{value:.0f}"


def _processors(plan: Plan) -> str:
    if plan.machine.device == "cuda":
        return f"the CUDA device {plan.machine.name}"
    cores = "one processor core" if plan.machine.threads == 1 else f"{plan.machine.threads} processor cores"
    return f"{cores}, so that a training may run beside it"


def times(values: np.ndarray | tuple[float, ...] | tuple[int, ...]) -> str:
    """Numbers with an x between."""
    return " x ".join(f"{v:.4g}" for v in values)
