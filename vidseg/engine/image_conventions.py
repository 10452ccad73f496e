"""What images the weights of an ImageNet file were made for, against what the config gives them."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from vidseg.checkpoint import EXPECTATIONS

if TYPE_CHECKING:
    from vidseg.config import CfgNode

__all__ = ["check_image_conventions"]

logger = logging.getLogger(__name__)


def check_image_conventions(cfg: CfgNode, naming: str, where: str | Path) -> None:
    """Warns of images that ImageNet weights were not made for, which only shows in worse results.

    Args:
        cfg: reads ``INPUT.FORMAT``, ``MODEL.PIXEL_STD`` and ``MODEL.RESNETS.STRIDE_IN_1X1``.
        naming: whose names the file used (``vidseg.checkpoint.naming_of``); ``""`` tells nothing.
        where: the file, for the message.
    """
    if not naming:
        return
    expected, resnets = EXPECTATIONS[naming], cfg.MODEL.RESNETS
    wrong = []
    if expected.image_format != cfg.INPUT.FORMAT:
        wrong.append(f"INPUT.FORMAT {expected.image_format}")
    if (max(cfg.MODEL.PIXEL_STD) <= 1.0) != (max(expected.pixel_std) <= 1.0):
        wrong.append(f"MODEL.PIXEL_STD {list(expected.pixel_std)}")
    plain = resnets.NUM_GROUPS == 1 and resnets.NORM != "GN"
    own = cfg.MODEL.BACKBONE.NAME == "build_resnet_backbone"
    if own and plain and expected.stride_in_1x1 != resnets.STRIDE_IN_1X1:
        wrong.append(f"MODEL.RESNETS.STRIDE_IN_1X1 {expected.stride_in_1x1}")
    if wrong:
        logger.warning("%s has ImageNet weights of %s: set %s", where, naming, ", ".join(wrong))
