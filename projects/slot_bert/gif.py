"""Animated gif files of videos of any length."""

from __future__ import annotations

import io
import math
from pathlib import Path
from types import TracebackType

import numpy as np
from PIL import Image

from vidseg.errors import DataError
from vidseg.files import write_atomically

from .thinning import Thinned

__all__ = ["GifWriter"]

_MAX_FRAMES = 128
_MIN_DELAY = 0.02  # seconds; players slow a gif down that asks for less


class GifWriter:
    """Writes an animation that plays at the source's pace; its memory is bounded.

    Of a long video every second, then every fourth, ... frame is kept.

    Args:
        path: of the file; its folder is made.
        fps: nominal frames per second.
        max_frames: that are kept.

    Raises:
        DataError: if the file cannot be written.
    """

    def __init__(self, path: str | Path, *, fps: float, max_frames: int = _MAX_FRAMES) -> None:
        self.path = Path(path)
        self._fps = fps
        self._kept: Thinned[tuple[float, Image.Image]] = Thinned(max_frames)
        self._num_frames, self._end, self._last = 0, 0.0, -math.inf

    def __enter__(self) -> GifWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self.close()

    def write(self, image: np.ndarray, *, time: float | None = None) -> None:
        """Appends a frame.

        Args:
            image: uint8 ``(H, W, 3)`` RGB.
            time: seconds since the first frame, growing; by default the rate decides.
        """
        time = self._num_frames / self._fps if time is None else time
        self._num_frames, self._end = self._num_frames + 1, time
        if time - self._last < _MIN_DELAY - 1e-6:
            return
        self._last = time
        if not self._kept.takes_next:
            self._kept.skip()
            return
        # A byte per pixel from here on. The octree keeps small spots of colour; a median cut gives
        # all of its colours to the large areas.
        octree = Image.Quantize.FASTOCTREE
        small = Image.fromarray(image).quantize(256, octree, dither=Image.Dither.NONE)
        self._kept.add((time, small))

    def close(self) -> None:
        """Writes the file; without a frame there is none."""
        if not self._kept.items:
            return
        times = [time for time, _ in self._kept.items]
        end = max(self._end + 1 / self._fps, times[-1] + _MIN_DELAY)
        # Of rounded times: rounded durations would add up to another pace.
        ticks = [round(100 * time) for time in (*times, end)]
        durations = [10 * int(delay) for delay in np.diff(ticks)]
        first, *others = [image for _, image in self._kept.items]
        content = io.BytesIO()
        first.save(content, "gif", save_all=True, append_images=others, duration=durations, loop=0)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(self.path, lambda file: file.write(content.getbuffer()))
        except OSError as error:
            raise DataError(f"cannot write {self.path}: {error.strerror or error}") from error
