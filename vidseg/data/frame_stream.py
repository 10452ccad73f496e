"""Frames of a video of any length, decoded when they are needed, a few of them in advance.

Shapes: T frames, H W pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future

import torch
from torch import Tensor

__all__ = ["FrameStream"]


class FrameStream:
    """Stands for the frames of a video, uint8 ``(T, 3, H, W)``, without holding them.

    Offers what a model needs that goes through the video in windows: ``len``, ``shape``, ``split``,
    and slices, which are tensors. Any order is allowed; ascending order is fast.

    Args:
        read: gives one frame by number, uint8 ``(3, H, W)``; called in several threads at once.
        shape: (T, 3, H, W).
        pool: threads that decode in advance; ``None`` decodes when a frame is asked for.
        ahead: how many frames in advance.
    """

    def __init__(
        self,
        read: Callable[[int], Tensor],
        shape: Sequence[int],
        *,
        pool: Executor | None = None,
        ahead: int = 0,
    ) -> None:
        self.shape = torch.Size(shape)
        self._read = read
        self._pool = pool
        self._ahead = ahead
        self._pending: dict[int, Future[Tensor]] = {}

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: int | slice) -> Tensor:
        """Decodes frames.

        Raises:
            DataError: if one cannot be read.
        """
        frames = range(len(self))[key]
        if isinstance(frames, int):
            return self._take(frames)
        if not frames:
            return torch.empty((0, *self.shape[1:]), dtype=torch.uint8)
        return torch.stack([self._take(frame) for frame in frames])

    def split(self, size: int) -> Iterator[Tensor]:
        """Gives windows of ``size`` frames, the last one may be shorter."""
        return (self[start : start + size] for start in range(0, len(self), size))

    def start(self) -> None:
        """Begins to decode the first frames."""
        self._request(0)

    def close(self) -> None:
        """Lets go of what was decoded in advance; from now on frames are decoded when asked for."""
        self._pool = None
        for pending in self._pending.values():
            pending.cancel()
        self._pending.clear()

    def _take(self, frame: int) -> Tensor:
        self._request(frame)
        pending = self._pending.pop(frame, None)
        return self._read(frame) if pending is None else pending.result()

    def _request(self, first: int) -> None:
        """Has a frame and those after it decoded, and lets go of all others."""
        if self._pool is None:
            return
        wanted = range(first, min(first + 1 + self._ahead, len(self)))
        for frame in [frame for frame in self._pending if frame not in wanted]:
            self._pending.pop(frame).cancel()
        for frame in wanted:
            if frame not in self._pending:
                self._pending[frame] = self._pool.submit(self._read, frame)
