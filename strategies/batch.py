"""Batch inference: a proposal for every study asked for; one that fails does not stop the others."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.tasks.batch_infer import BatchInferTask

from radloop.recipes.errors import RadloopError

logger = logging.getLogger(__name__)
IGNORED = ("multi_gpu", "gpus", "max_workers", "max_batch_size", "images", "logging")


class SerialBatch(BatchInferTask):
    """One study after another on the server's device (`multi_gpu` is off, whatever the request says)."""

    def __call__(self, request: dict[str, Any], datastore: Datastore, infer: Callable[..., Any]) -> dict[str, Any]:
        """Answers every study and keeps the answers as proposals.

        Args:
            request: `model`; `images` (`all`, `labeled`, `unlabeled` or a list of ids); `max_batch_size` (0: no limit).
            datastore: the studies.
            infer: the app's `infer`.

        Returns:
            study -> what viewers are told of its answer, or `{"error": ...}`.
        """
        images = sorted(self.get_images(request, datastore))
        images = images[: int(request.get("max_batch_size") or 0) or None]
        base = {k: v for k, v in request.items() if k not in IGNORED}
        results: dict[str, Any] = {}
        for number, image in enumerate(images, start=1):
            try:
                results[image] = _one({**base, "image": image}, datastore, infer)
            except RadloopError as error:
                results[image] = {"error": str(error)}
            except Exception as error:
                logger.exception("%s failed", image)
                results[image] = {"error": f"{type(error).__name__}; the server's log says why"}
            logger.info("%d of %d: %s", number, len(images), image)
        return results


def _one(request: dict[str, Any], datastore: Datastore, infer: Callable[..., Any]) -> dict[str, Any]:
    answer = infer({"save_label": True, "label_tag": "original", **request}, datastore)
    with suppress(FileNotFoundError):
        Path(answer["file"] or "").unlink()
    return {"label": answer["label"] if answer["label"] == request["image"] else None, "params": answer["params"]}
