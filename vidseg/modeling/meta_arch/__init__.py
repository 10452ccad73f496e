"""Whole models: what is trained and what predicts videos."""

from .base import SegmenterBase
from .explaining import RecordedSession, query_attention
from .exporting import ExportOptions, ExportPart, FrameSize, random_frames
from .frame_segmenter import FrameSegmenter, frame_targets
from .frame_store import FrameStore, KeepingSpace, SequenceBuffer
from .session import Recorder, ResultPlace, ResultSettings, VideoSession

__all__ = [
    "ExportOptions",
    "ExportPart",
    "FrameSegmenter",
    "FrameSize",
    "FrameStore",
    "KeepingSpace",
    "RecordedSession",
    "Recorder",
    "ResultPlace",
    "ResultSettings",
    "SegmenterBase",
    "SequenceBuffer",
    "VideoSession",
    "frame_targets",
    "query_attention",
    "random_frames",
]
