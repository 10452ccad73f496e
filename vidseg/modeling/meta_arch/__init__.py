"""Whole models: what is trained and what predicts videos."""

from .base import SegmenterBase, VideoSession
from .frame_segmenter import FrameSegmenter, Selection, frame_targets

__all__ = ["FrameSegmenter", "SegmenterBase", "Selection", "VideoSession", "frame_targets"]
