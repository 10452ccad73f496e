"""DVIS-DAQ: video instance segmentation with dynamic anchor queries, online and offline.

Importing the package brings its config keys only; the submodules in ``COMPONENTS`` register the
networks when a model is built.
"""

from __future__ import annotations

from .config import add_config

__all__ = ["COMPONENTS", "add_config"]

COMPONENTS = ("contrastive_segmenter", "online", "offline")
