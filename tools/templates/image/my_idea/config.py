"""Config keys of MyIdea."""

from __future__ import annotations

from vidseg.config import CfgNode

__all__ = ["add_config"]


def add_config(cfg: CfgNode) -> None:
    """Adds the keys of the backbone to ``cfg``."""
    cfg.MODEL.MY_IDEA = CfgNode()
    cfg.MODEL.MY_IDEA.WIDTH = 32  # channels of the finest map; doubled by stages
    cfg.MODEL.MY_IDEA.DEPTH = 2  # blocks of every stage
