"""Whole models: what is trained and what predicts videos."""

from .base import SegmenterBase
from .frame_segmenter import FrameSegmenter, frame_targets
from .session import ResultPlace, ResultSettings, VideoSession

__all__ = [
    "FrameSegmenter",
    "ResultPlace",
    "ResultSettings",
    "SegmenterBase",
    "VideoSession",
    "frame_targets",
]
