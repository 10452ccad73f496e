"""Object persistence: blobs as tokens, a transformer that tells what stays from what goes.

Importing the package brings its config keys only; the submodules in ``COMPONENTS`` register data
sets, mapper, model and evaluator when one is built, and the public classes come with the first use
of a name.
"""

from __future__ import annotations

import importlib
from typing import Any

from .config import add_config

__all__ = ["COMPONENTS", "add_config"]

COMPONENTS = (
    "data_sets",  # first: a component that fails leaves out those after it
    "mapper",
    "model",
    "evaluator",
)

_MODULES = {
    "BlobDetector": "detector",
    "ColourPseudoTracker": "trackers",
    "Detections": "detections",
    "HungarianTracker": "trackers",
    "ObjectPersistence": "model",
    "ObjectPersistenceTransformer": "transformer",
    "ObjectTokenizer": "tokenizer",
    "PersistenceClips": "clips",
    "TokenPrediction": "prediction",
    "persistence_from_tracks": "trackers",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES})
