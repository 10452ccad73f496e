"""Videos as arrays in ``.npy`` files, read frame by frame.

Shapes: T frames, H W pixels, C channels: 1 (grey), 3 (RGB) or 4 (RGBA).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from vidseg.errors import DataError

__all__ = ["ARRAY_SUFFIX", "ArrayFrames"]

ARRAY_SUFFIX = ".npy"
_CHANNELS = (1, 3, 4)


class ArrayFrames:
    """The frames of an array file; each is read when it is asked for.

    Args:
        path: of an array ``(T, H, W, C)``, ``(T, C, H, W)`` or ``(T, H, W)``, uint8 or float in
            [0, 1]. Alpha is dropped.

    Raises:
        DataError: if the file is damaged or holds no video, or (while iterating) if floats are
            outside of [0, 1].
    """

    def __init__(self, path: str | Path) -> None:
        self.path = path
        try:
            self._frames: Any = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise DataError(f"{path} is no array that can be read: {error}") from error
        shape, dtype = self._frames.shape, self._frames.dtype
        is_last = len(shape) == 4 and shape[3] in _CHANNELS
        self._is_first = len(shape) == 4 and not is_last and shape[1] in _CHANNELS
        if 0 in shape or not (len(shape) == 3 or is_last or self._is_first):
            raise DataError(
                f"{path} holds an array of shape {shape}; a video is (T, H, W, 3), (T, 3, H, W) or "
                "grey (T, H, W)"
            )
        if dtype != np.uint8 and dtype.kind != "f":
            raise DataError(f"{path} holds {dtype}; a video is uint8, or float in [0, 1]")

    def __len__(self) -> int:
        """T."""
        return len(self._frames)

    def __iter__(self) -> Iterator[np.ndarray]:
        """Yields uint8 ``(H, W, 3)``."""
        return (self._picture(number) for number in range(len(self)))

    def _picture(self, number: int) -> np.ndarray:
        frame = np.asarray(self._frames[number])
        if frame.dtype != np.uint8:
            low, high = float(frame.min()), float(frame.max())
            if not (low >= 0 and high <= 1):  # also where one is NaN
                raise DataError(
                    f"frame {number} of {self.path} lies within {low:g} to {high:g}; give uint8, "
                    "or float in [0, 1]"
                )
            frame = (frame * 255).round().astype(np.uint8)
        if frame.ndim == 2:
            frame = frame[:, :, None]
        elif self._is_first:
            frame = frame.transpose(1, 2, 0)
        return frame[:, :, :3] if frame.shape[2] != 1 else frame.repeat(3, axis=2)
