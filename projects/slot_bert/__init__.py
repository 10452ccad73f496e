"""Object discovery in video without labels: slots, masks and a reconstruction of every frame.

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
    "vit",
)

_MODULES = {
    "BroadcastDecoder": "decoders",
    "InitialSlots": "initial_slots",
    "MovingShapes": "moving_shapes",
    "PixelMLPDecoder": "decoders",
    "SimpleConvEncoder": "encoder",
    "SlotAttention": "slot_attention",
    "SlotBERT": "model",
    "SlotCriterion": "criterion",
    "TemporalSlotTransformer": "temporal_transformer",
    "collapse_figures": "collapse",
    "grid_ceiling": "grid_ceiling",
    "kmeans_labels": "kmeans_baseline",
}

__getattr__, __dir__ = lazy_exports(__name__, _MODULES)
