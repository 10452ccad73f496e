"""Whole models: what is trained and what predicts videos."""

from .base import SegmenterBase
from .frame_segmenter import FrameSegmenter, frame_targets
from .frame_store import FrameStore, KeepingSpace, SequenceBuffer
from .session import ResultPlace, ResultSettings, VideoSession

__all__ = [
    "FrameSegmenter",
    "FrameStore",
    "KeepingSpace",
    "ResultPlace",
    "ResultSettings",
    "SegmenterBase",
    "SequenceBuffer",
    "VideoSession",
    "frame_targets",
]
