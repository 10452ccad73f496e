"""A long video in windows that overlap, and one result from all of them.

Shapes: T frames, L frames of a window, W windows.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["map_windows", "window_starts"]


def window_starts(num_frames: int, window: int, stride: int) -> list[int]:
    """Gives the first frames of the windows; the last window ends with the video.

    Args:
        num_frames: T, at least 1.
        window: L; a shorter video is one window.
        stride: frames from one window to the next, at most L, so that no frame is left out.
    """
    last = max(num_frames - window, 0)
    return [*range(0, last, stride), last]


def map_windows(
    function: Callable[[Tensor], Tensor], values: Tensor, window: int, stride: int
) -> Tensor:
    """Applies a function to windows and averages what it gives of every frame.

    A window counts for a frame by how far it reaches beyond it: a triangle, 1 at its ends.

    Args:
        function: ``(M, L, ...)`` to the same shape; all windows of a batch come in one call.
        values: ``(B, T, ...)``.
        window: L.
        stride: see ``window_starts``.

    Returns:
        ``(B, T, ...)``.
    """
    num_frames = values.shape[1]
    if num_frames <= window:
        return function(values)
    starts = window_starts(num_frames, window, stride)
    batch = torch.stack([values[:, start : start + window] for start in starts])
    results = function(batch.flatten(0, 1)).unflatten(0, batch.shape[:2])
    ramp = torch.arange(1, window + 1, device=values.device, dtype=results.dtype)
    weight = torch.minimum(ramp, ramp.flip(0)).view(-1, *[1] * (values.ndim - 2))
    total = results.new_zeros(values.shape)
    sums = results.new_zeros(num_frames, *weight.shape[1:])
    for start, result in zip(starts, results, strict=True):
        total[:, start : start + window] += result * weight
        sums[start : start + window] += weight
    return total / sums
