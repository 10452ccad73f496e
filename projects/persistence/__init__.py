"""Object persistence: blobs as tokens, a transformer that tells what stays from what goes.

Importing the package brings its config keys only; the submodules in ``COMPONENTS`` register data
sets, mapper, model and evaluator when one is built, and the public classes come with the first use
of a name.
"""

from __future__ import annotations

from vidseg.plugins import lazy_exports

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

__getattr__, __dir__ = lazy_exports(__name__, _MODULES)
