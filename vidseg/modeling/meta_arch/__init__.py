"""Whole models: what is trained and what predicts videos."""

from .base import SegmenterBase, VideoSession

__all__ = ["SegmenterBase", "VideoSession"]
