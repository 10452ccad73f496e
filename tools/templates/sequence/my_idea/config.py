"""Config keys of MyIdea."""

from __future__ import annotations

from vidseg.config import CfgNode

__all__ = ["add_config"]


def add_config(cfg: CfgNode) -> None:
    """Adds the keys of the model to ``cfg``."""
    cfg.MODEL.MY_IDEA = CfgNode()
    cfg.MODEL.MY_IDEA.INPUT_DIM = 16  # width of the features
    cfg.MODEL.MY_IDEA.NUM_CLASSES = 4  # that a frame may have
    cfg.MODEL.MY_IDEA.WIDTH = 32  # channels inside
    cfg.MODEL.MY_IDEA.DEPTH = 5  # convolutions; the dilation doubles with each
