"""Evaluators and the metric functions under them.

``evaluate_ytvis`` scores files without a model; the evaluators collect predictions of a model,
write what evaluation servers take, and report. Importing this package does not import torch.
"""

from .base import EVALUATOR_REGISTRY, Evaluator, build_evaluator
from .result_store import ResultStore
from .track_evaluators import RegionBoundaryEvaluator, TrackingEvaluator
from .ytvis import YTVISScores, evaluate_ytvis, score_ytvis
from .ytvis_evaluator import YTVISEvaluator

__all__ = [
    "EVALUATOR_REGISTRY",
    "Evaluator",
    "RegionBoundaryEvaluator",
    "ResultStore",
    "TrackingEvaluator",
    "YTVISEvaluator",
    "YTVISScores",
    "build_evaluator",
    "evaluate_ytvis",
    "score_ytvis",
]
