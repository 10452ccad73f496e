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

__all__ = ["CEILING", "KMEANS", "ceiling_shares", "kmeans_shares"]

KMEANS = {"kmeans_color": 0.0, "kmeans_color_position": 0.3}
"""Weight of the coordinates beside the colours, by method."""

CEILING = "ceiling"

_RESTARTS = 3

logger = logging.getLogger(__name__)

Shares = dict[str, Share]


def kmeans_shares(
    video: Tensor, labels: NDArray[Any], num_clusters: int, *, first_frame: bool = True
) -> dict[str, Shares]:
    """Scores k-means over the pixels of a clip, by method.

    Args:
        video: float ``(T, 3, H, W)`` in [0, 1].
        labels: ``(T, H, W)``, see ``score_segments``.
        num_clusters: as many as the model has slots.
        first_frame: whether the first frame is scored; it is clustered anyway.
    """
    digest = hashlib.sha256(_code_digest())
    digest.update(json.dumps([*video.shape, num_clusters, first_frame]).encode())
    for array in (video.contiguous().numpy(), np.ascontiguousarray(labels, np.int32)):
        digest.update(array.tobytes())
    path = cache_root() / "slot_bert" / "baselines" / f"{digest.hexdigest()[:32]}.json"
    known = _read(path)
    if known is not None:
        return known
    found: dict[str, Shares] = {}
    for name, weight in KMEANS.items():
        clusters = kmeans_labels(video, num_clusters, pos_weight=weight, restarts=_RESTARTS, seed=0)
        found[name] = score_segments(labels, np.asarray(clusters), first_frame=first_frame)
    _write(path, found)
    return found


def ceiling_shares(
    labels: NDArray[Any], grid: tuple[int, int], *, first_frame: bool = True
) -> Shares:
    """Scores the true masks after they were averaged to a grid and enlarged again.

    No model whose masks live on that grid can do much better.

    Args:
        labels: ``(T, H, W)``, see ``score_segments``.
        grid: h and w.
        first_frame: whether the first frame is scored.
    """
    best = np.asarray(grid_ceiling(torch.as_tensor(labels), grid))
    return score_segments(labels, best, first_frame=first_frame)


@cache
def _code_digest() -> bytes:
    digest = hashlib.sha256()
    for module in (discovery, kmeans_baseline):
        digest.update(Path(str(module.__file__)).read_bytes())
    digest.update(json.dumps([KMEANS, _RESTARTS]).encode())
    return digest.digest()


def _read(path: Path) -> dict[str, Shares] | None:
    """Reads scores; None if they are not there or damaged."""
    try:
        found = read_json(path) if path.is_file() else None
    except DataError as error:
        logger.warning("scores of k-means are made again: %s", error)
        return None
    return found if isinstance(found, dict) and found.keys() == KMEANS.keys() else None


def _write(path: Path, found: dict[str, Shares]) -> None:
    try:
        write_text(path, json.dumps(found))
    except DataError as error:  # a disk that cannot be written only costs time
        logger.warning("scores of k-means are not kept: %s", error)
