"""MONAI's RetinaNetDetector around a network of boxes: its losses in training, its choice of boxes in answering."""

from __future__ import annotations

import warnings

from monai.apps.detection.networks.retinanet_detector import RetinaNetDetector
from monai.data.box_utils import box_iou
from torch import nn

from radloop.networks.topology import patch_shape
from radloop.recipes.recipe import Recipe

LEAST = 0.02
"""The smallest score, before scaling, of a box that is given at all."""
MOST = 100
"""The most boxes of a study."""
OVERLAP = 0.25  # of windows that slide
_APART = {2: 0.3, 3: 0.2}  # IoU from which two boxes of one label are the same thing
_CANDIDATES = 4  # places of each level that a true box may claim
_SAMPLED, _POSITIVE, _FEWEST, _POOL = 64, 0.3, 16, 20  # anchors a study that are learned from (MONAI's tutorial)

warnings.filterwarnings("ignore", message="Num foregrounds 0")  # a study without boxes is no mistake


def detector_of(recipe: Recipe, network: nn.Module) -> RetinaNetDetector:
    """A detector that shares the network's weights."""
    detector = RetinaNetDetector(network, network.anchors, box_overlap_metric=box_iou)  # type: ignore[arg-type]
    detector.set_atss_matcher(_CANDIDATES, center_in_gt=False)
    detector.set_hard_negative_sampler(_SAMPLED, _POSITIVE, _FEWEST, _POOL)
    detector.set_target_keys("boxes", "labels")
    detector.set_box_selector_parameters(LEAST, 1000, _APART[recipe.dimension], MOST)
    if recipe.dimension == 3:
        detector.set_sliding_window_inferer(patch_shape(recipe), 1, OVERLAP, "gaussian", device="cpu")
    return detector
