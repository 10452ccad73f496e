"""Other speeds of the same video: time is stretched as a whole, and segment by segment.

Shapes: T frames before, U frames after.
"""

from __future__ import annotations

import numpy as np

from .metrics import find_segments

__all__ = ["warp_frames"]


def warp_frames(
    labels: np.ndarray, *, whole: float, segment: float, rng: np.random.Generator
) -> np.ndarray:
    """Draws the frames of a video that is played at other speeds.

    Every run of equal labels is resampled at its own speed, nearest frame, and keeps at least one
    frame; so the order of segments stays and their durations vary.

    Args:
        labels: int ``(T,)``, at least one.
        whole: the logarithm of the speed of the video is drawn from -whole to whole.
        segment: likewise for each run of equal labels, on top of it.
        rng: of the draws.

    Returns:
        Ascending numbers of frames, int64 ``(U,)``.
    """
    _, starts, stops = find_segments(labels)
    lengths = stops - starts
    stretch = np.exp(rng.uniform(-whole, whole) + rng.uniform(-segment, segment, len(lengths)))
    counts = np.maximum(np.rint(lengths * stretch), 1).astype(np.int64)
    phase = np.repeat(rng.uniform(size=len(counts)), counts)
    number = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    within = (number + phase) * np.repeat(lengths / counts, counts)
    return np.repeat(starts, counts) + np.minimum(within, np.repeat(lengths, counts) - 1).astype(
        np.int64
    )
