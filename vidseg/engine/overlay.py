"""A first look at a result: one video of the data set with the predicted tracks drawn in."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from vidseg.errors import UserError

from .evaluate import inference_dir
from .precision import Precision

if TYPE_CHECKING:
    from vidseg.config import CfgNode

__all__ = ["can_draw", "write_overlay"]

_MIN_SCORE = 0.3
_MIN_SIDE = 384  # labels cover frames that are much smaller

logger = logging.getLogger(__name__)


def can_draw(dataset_name: str) -> bool:
    """Tells whether a data set has frames to draw on, and not features only."""
    from vidseg.data import DatasetCatalog

    return not DatasetCatalog.metadata(dataset_name).feature_dim


def write_overlay(
    cfg: CfgNode, model: nn.Module, dataset_name: str, output_dir: str | Path
) -> Path | None:
    """Draws the prediction for the first video of a data set that can be read.

    Args:
        cfg: of the run.
        model: gives ``VideoInstances`` in eval mode.
        dataset_name: of the catalog, or a path.
        output_dir: run directory.

    Returns:
        The video file in ``inference/<data set>/``, or None if it could not be made: a picture is
        not worth a failed run, so the reason is only logged.
    """
    try:
        return _write(cfg, model, dataset_name, inference_dir(output_dir, dataset_name))
    except (ImportError, OSError, UserError) as error:
        logger.warning("no overlay video: %s", error)
        return None


def _write(cfg: CfgNode, model: nn.Module, dataset_name: str, directory: Path) -> Path | None:
    from vidseg.data import DatasetCatalog, build_test_loader
    from vidseg.structures import VideoInstances
    from vidseg.video.draw import save_overlay

    loader = build_test_loader(
        cfg,
        dataset_name,
        rank=0,
        world_size=1,
        on_damaged=lambda video_id, reason: None,  # the evaluation has told
        streamed=getattr(model, "streams_frames", False),
    )
    videos = iter(loader)  # kept: it decodes the frames
    samples = next(videos, None)
    if samples is None:
        return None
    precision = Precision.from_config(cfg, next(model.parameters()).device)
    model.eval()
    with torch.no_grad(), precision.autocast():
        (prediction,) = model(samples)
    if not isinstance(prediction, VideoInstances):
        return None
    path = directory / f"overlay_{samples[0]['video_id']}.mp4"
    directory.mkdir(parents=True, exist_ok=True)
    classes = DatasetCatalog.metadata(dataset_name).classes
    save_overlay(
        samples[0]["file_names"],
        prediction,
        path,
        class_names=classes,
        min_score=_MIN_SCORE,
        min_side=_MIN_SIDE,
    )
    return path
