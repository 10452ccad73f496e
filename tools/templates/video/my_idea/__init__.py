"""MyIdea: a video segmenter whose classes stay steady from frame to frame.

Importing the package brings its config keys only; the submodules in ``COMPONENTS`` register the
model when one is built.
"""

from __future__ import annotations

from .config import add_config

__all__ = ["COMPONENTS", "add_config"]

COMPONENTS = ("model",)
