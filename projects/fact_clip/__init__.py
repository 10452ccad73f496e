"""FACT temporal action segmentation, and its zero-shot variant aligned with text.

Importing the package brings its config keys only; the submodules in ``COMPONENTS`` register models,
data sets, mappers and evaluators when one is built, and the public classes come with the first use
of a name.
"""

from __future__ import annotations

from vidseg.plugins import lazy_exports

from .config import add_config
from .published import TRANSLATED_KEYS, WITHOUT_EFFECT, translate

__all__ = ["COMPONENTS", "TRANSLATED_KEYS", "WITHOUT_EFFECT", "add_config", "translate"]

# First the data: a component that fails leaves out those after it.
COMPONENTS: tuple[str, ...] = (
    "public_sets",
    "actions_synthetic",
    "mapper",
    "model",
    "verb_noun",
    "clip_model",
    "evaluator",
)

_MODULES: dict[str, str] = {
    "ActionFrameMapper": "mapper",
    "ActionPrediction": "prediction",
    "ActionSegmentationEvaluator": "evaluator",
    "ActionSegmenter": "segmenter",
    "FACT": "model",
    "FACTVerbNoun": "verb_noun",
    "FACT_CLIP": "clip_model",
    "FactNetwork": "network",
    "LossSettings": "criterion",
    "MatchCriterion": "criterion",
    "Segments": "segments",
    "SplitFile": "layout",
    "Timeline": "timeline",
    "VerbNounPairs": "verb_noun_pairs",
    "save_timeline": "timeline_drawing",
    "write_segments": "segments_csv",
}

__getattr__, __dir__ = lazy_exports(__name__, _MODULES)
