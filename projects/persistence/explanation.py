"""What the blobs of a track read of the other blobs of a video.

Shapes: n tracks, T frames, N blobs of a window, H W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

from vidseg.structures import FrameAttention, QueryRows

from .detections import Detections
from .prediction import TokenPrediction
from .session import PersistenceSession

__all__ = ["AttentionRecorder"]

_NUM_READ = 16  # blobs of which is remembered that they were read


class AttentionRecorder:
    """Remembers of every blob which others it reads most, about 300 bytes per blob.

    Windows overlap; a blob is explained by the one in whose middle it lies most.

    Args:
        session: before its first frame.
    """

    attention_source = (
        "last layer of the transformer, mean over heads; a query is a blob of the frame (0: that of"
        " most confidence), its map shows where in all frames of the window those blobs lie that it"
        " reads"
    )

    def __init__(self, session: PersistenceSession) -> None:
        self._session = session
        self._readings: dict[tuple[int, int], _Reading] = {}  # by frame and number in the frame
        session.observers.append(self._observe)

    def recording(self) -> AbstractContextManager[None]:
        """Surrounds every call of the session, which reports by itself."""
        return nullcontext()

    def attention(
        self, frames: Tensor, start: int, track_ids: Sequence[int]
    ) -> list[FrameAttention]:
        """Tells what the blobs of tracks read; see ``Recorder``."""
        size = (frames.shape[-2], frames.shape[-1])
        return [
            self._of_frame(number, track_ids, size) for number in range(start, start + len(frames))
        ]

    def frame_weights(self, track_ids: Sequence[int]) -> Tensor:
        """Gives each frame's share in what the blobs of tracks read, ``(n, T)``."""
        weights = torch.zeros(len(track_ids), self._session.num_frames)
        for row, track in enumerate(track_ids):
            for blob in self._session.track_blobs(track):
                reading = self._readings[blob]
                stop = reading.start + len(reading.by_frame)
                weights[row, reading.start : stop] += reading.by_frame
        return weights / weights.sum(1, keepdim=True).clamp(min=1e-12)

    def rows(self) -> list[QueryRows] | None:
        """Gives nothing: no query is carried from frame to frame."""
        return None

    def _observe(self, start: int, blobs: Detections, prediction: TokenPrediction) -> None:
        """Takes a window that the session has decided on."""
        kept = prediction.kept
        frames = blobs.frame[kept]
        numbers = kept - torch.searchsorted(blobs.frame, frames)  # they come sorted by frame
        matrix = prediction.matrix
        by_frame = torch.zeros(len(matrix), blobs.num_frames).index_add_(1, frames, matrix)
        weights, targets = matrix.topk(min(_NUM_READ, len(matrix)), dim=1)
        middle = (blobs.num_frames - 1) / 2
        for token, frame in enumerate(frames.tolist()):
            blob = (start + frame, int(numbers[token]))
            distance = abs(frame - middle)
            known = self._readings.get(blob)
            if known is None or distance < known.distance:
                read = targets[token]
                places = torch.stack([start + frames[read], numbers[read]], 1)
                self._readings[blob] = _Reading(
                    distance, start, by_frame[token].clone(), weights[token].clone(), places
                )

    def _of_frame(
        self, number: int, track_ids: Sequence[int], size: tuple[int, int]
    ) -> FrameAttention:
        maps = torch.zeros(len(track_ids), *size)
        queries = []
        for row, track in enumerate(track_ids):
            own = [blob for blob in self._session.track_blobs(track) if blob[0] == number]
            queries.append(own[0][1] if own else -1)
            if own:
                maps[row] = self._map(self._readings[own[0]], size)
        return FrameAttention(maps, (1.0, 1.0), queries, [1.0 if q >= 0 else 0.0 for q in queries])

    def _map(self, reading: _Reading, size: tuple[int, int]) -> Tensor:
        """Spreads what a blob reads over the discs of the blobs that it reads; sum 1."""
        rows, columns = torch.arange(size[0])[:, None], torch.arange(size[1])
        total = torch.zeros(size)
        for weight, place in zip(reading.weights, reading.places.tolist(), strict=True):
            y, x, radius = self._session.blob(*place)
            squared = (rows - y) ** 2 + (columns - x) ** 2
            splat = torch.exp(-2 * squared / radius**2)
            total += weight * splat / splat.sum().clamp(min=1e-12)
        return total / total.sum().clamp(min=1e-12)


@dataclass
class _Reading:
    """What a blob reads in a window.

    Attributes:
        distance: of its frame from the middle of the window.
        start: first frame of the window.
        by_frame: what it reads of each frame of the window.
        weights: of the blobs that it reads most.
        places: frame and number in the frame of those.
    """

    distance: float
    start: int
    by_frame: Tensor
    weights: Tensor
    places: Tensor
