"""vidseg: video segmentation research in PyTorch.

Importing the package is cheap: torch, the models and the video tools are loaded on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vidseg.predictor import VideoPredictor
    from vidseg.sequence_predictor import SequencePredictor

__version__ = "0.1.0"
__all__ = ["SequencePredictor", "VideoPredictor", "__version__"]

_LAZY_ATTRIBUTES = {
    "SequencePredictor": "vidseg.sequence_predictor",
    "VideoPredictor": "vidseg.predictor",
}
_LAZY_MODULES = ("checkpoint", "config", "data", "evaluation", "modeling", "structures", "video")


def __getattr__(name: str) -> Any:
    if name in _LAZY_ATTRIBUTES:
        return getattr(importlib.import_module(_LAZY_ATTRIBUTES[name]), name)
    if name in _LAZY_MODULES:
        return importlib.import_module(f"vidseg.{name}")
    raise AttributeError(f"module 'vidseg' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY_ATTRIBUTES, *_LAZY_MODULES})
