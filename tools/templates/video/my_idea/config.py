"""Config keys of MyIdea."""

from __future__ import annotations

from vidseg.config import CfgNode

__all__ = ["add_config"]


def add_config(cfg: CfgNode) -> None:
    """Adds the keys of the model to ``cfg``."""
    cfg.MODEL.MY_IDEA = CfgNode()
    cfg.MODEL.MY_IDEA.STEADY_WEIGHT = 1.0  # of the loss between frames
