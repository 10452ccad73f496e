"""What needs no model: k-means, and the true masks through the model's mask grid.

The scores of k-means are kept below ``$VIDSEG_CACHE/slot_bert/baselines``, as a run evaluates the
same clips many times; all of it may be removed whenever nobody reads it.

Shapes: T frames of H x W pixels, h x w mask grid.
"""

from __future__ import annotations

import hashlib
import json
import logging
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vidseg.data.synthetic import cache_root
from vidseg.errors import DataError
from vidseg.evaluation import discovery
from vidseg.evaluation.discovery import Share, score_segments
from vidseg.evaluation.report import write_text
from vidseg.files import read_json

from . import kmeans_baseline
from .grid_ceiling import grid_ceiling
from .kmeans_baseline import kmeans_labels

__all__ = ["CEILING", "KMEANS", "ceiling_shares", "kmeans_shares", "scores_by_start"]

KMEANS = {"kmeans_color": 0.0, "kmeans_color_position": 0.3}
"""Weight of the coordinates beside the colours, by method."""

CEILING = "ceiling"

_RESTARTS = 3

logger = logging.getLogger(__name__)

Shares = dict[str, Share]


def scores_by_start(labels: NDArray[Any], segments: NDArray[Any]) -> list[Shares]:
    """Scores segments ``(T, H, W)`` from the first frame on, and from the second one on.

    What is kept of a clip serves both settings of ``TEST.SLOT_BERT.FIRST_FRAME``.
    """
    return [score_segments(labels, segments, first_frame=first) for first in (True, False)]


def kmeans_shares(
    video: Tensor, labels: NDArray[Any], num_clusters: int
) -> dict[str, list[Shares]]:
    """Scores k-means over the pixels of a clip, by method and start.

    Args:
        video: float ``(T, 3, H, W)`` in [0, 1].
        labels: ``(T, H, W)``, see ``score_segments``.
        num_clusters: as many as the model has slots.
    """
    digest = hashlib.sha256(_code_digest())
    digest.update(json.dumps([*video.shape, num_clusters]).encode())
    for array in (video.contiguous().numpy(), np.ascontiguousarray(labels, np.int32)):
        digest.update(array.tobytes())
    path = cache_root() / "slot_bert" / "baselines" / f"{digest.hexdigest()[:32]}.json"
    known = _read(path)
    if known is not None:
        return known
    found = {}
    for name, weight in KMEANS.items():
        clusters = kmeans_labels(video, num_clusters, pos_weight=weight, restarts=_RESTARTS, seed=0)
        found[name] = scores_by_start(labels, clusters.numpy())
    _write(path, found)
    return found


def ceiling_shares(labels: NDArray[Any], grid: tuple[int, int]) -> list[Shares]:
    """Scores the true masks after they were averaged to a grid and enlarged again, by start.

    No model whose masks live on that grid can do much better.

    Args:
        labels: ``(T, H, W)``, see ``score_segments``.
        grid: h and w.
    """
    return scores_by_start(labels, grid_ceiling(torch.as_tensor(labels), grid).numpy())


@cache
def _code_digest() -> bytes:
    digest = hashlib.sha256()
    for module in (discovery, kmeans_baseline):
        digest.update(Path(str(module.__file__)).read_bytes())
    digest.update(json.dumps([KMEANS, _RESTARTS]).encode())
    return digest.digest()


def _read(path: Path) -> dict[str, list[Shares]] | None:
    """Reads scores; None if they are not there or damaged."""
    try:
        found = read_json(path) if path.is_file() else None
    except DataError as error:
        logger.warning("scores of k-means are made again: %s", error)
        return None
    return found if isinstance(found, dict) and found.keys() == KMEANS.keys() else None


def _write(path: Path, found: dict[str, list[Shares]]) -> None:
    try:
        write_text(path, json.dumps(found))
    except DataError as error:  # a disk that cannot be written only costs time
        logger.warning("scores of k-means are not kept: %s", error)
