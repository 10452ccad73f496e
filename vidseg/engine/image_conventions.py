"""What images the weights of an ImageNet file were made for, against what the config gives them."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from vidseg.checkpoint import CAFFE2

if TYPE_CHECKING:
    from vidseg.config import CfgNode

__all__ = ["check_image_conventions"]

logger = logging.getLogger(__name__)

_IMAGENET_STD = [58.395, 57.12, 57.375]


def check_image_conventions(cfg: CfgNode, naming: str, where: str | Path) -> None:
    """Warns of images that ImageNet weights were not made for, which only shows in worse results.

    Args:
        cfg: reads ``INPUT.FORMAT``, ``MODEL.PIXEL_STD`` and ``MODEL.RESNETS.STRIDE_IN_1X1``.
        naming: whose names the file used (``vidseg.checkpoint.naming_of``); ``""`` tells nothing.
        where: the file, for the message.
    """
    if not naming:
        return
    caffe2 = naming == CAFFE2
    resnets = cfg.MODEL.RESNETS
    order, std = ("BGR", [1.0, 1.0, 1.0]) if caffe2 else ("RGB", _IMAGENET_STD)
    wrong = []
    if order != cfg.INPUT.FORMAT:
        wrong.append(f"INPUT.FORMAT {order}")
    if (max(cfg.MODEL.PIXEL_STD) <= 1.0) != caffe2:
        wrong.append(f"MODEL.PIXEL_STD {std}")
    # Of the Caffe2 files, only those of plain ResNets with batch norm step in the 1x1 convolution.
    plain = resnets.NUM_GROUPS == 1 and resnets.NORM != "GN"
    own = cfg.MODEL.BACKBONE.NAME == "build_resnet_backbone"
    if own and plain and caffe2 != resnets.STRIDE_IN_1X1:
        wrong.append(f"MODEL.RESNETS.STRIDE_IN_1X1 {caffe2}")
    if wrong:
        logger.warning("%s has ImageNet weights of %s: set %s", where, naming, ", ".join(wrong))
