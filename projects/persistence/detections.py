"""What a detector finds in a clip: one row per blob, frame after frame.

Shapes: N detections of all frames of a clip.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

__all__ = ["Detections"]


@dataclass
class Detections:
    """Blobs of a clip, sorted by frame and, within a frame, by falling confidence.

    Attributes:
        frame: int64 ``(N,)``, index of the frame, from 0.
        y: float32 ``(N,)``, row of the centre in pixels; ``x`` likewise its column.
        sigma: float32 ``(N,)``, scale in pixels.
        response: float32 ``(N,)``, of the scale-space filter.
        brightness: float32 ``(N,)`` in [0, 1], contrast with the surroundings.
        circularity: float32 ``(N,)`` in [0, 1].
        confidence: float32 ``(N,)`` in [0, 1].
        color: float32 ``(N, 3)``, mean RGB of the disc in [0, 1].
        num_frames: T of the clip, frames without detections included.
        size: height and width of the frames in pixels.
    """

    frame: Tensor
    y: Tensor
    x: Tensor
    sigma: Tensor
    response: Tensor
    brightness: Tensor
    circularity: Tensor
    confidence: Tensor
    color: Tensor
    num_frames: int
    size: tuple[int, int]

    def __len__(self) -> int:
        return len(self.frame)

    @property
    def radius(self) -> Tensor:
        """Float32 ``(N,)`` in pixels."""
        return self.sigma * 2**0.5

    @property
    def centers(self) -> Tensor:
        """Float32 ``(N, 2)``: row and column of the centres in pixels."""
        return torch.stack([self.y, self.x], 1)

    def select(self, index: Tensor) -> Detections:
        """Gives the rows of an index or a mask, in its order."""
        columns = {field.name: getattr(self, field.name) for field in fields(self)}
        chosen: dict[str, Any] = {
            name: column[index] for name, column in columns.items() if isinstance(column, Tensor)
        }
        return replace(self, **chosen)
