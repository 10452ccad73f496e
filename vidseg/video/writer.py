"""Writing H.264 files that any player opens."""

from __future__ import annotations

import contextlib
import logging
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

import av
import numpy as np
from av.video.reformatter import Colorspace

from vidseg.errors import DataError
from vidseg.files import Draft

__all__ = ["VideoWriter"]

logger = logging.getLogger(__name__)

_BT709 = 1  # number of that standard for primaries, transfer and matrix in H.264
_LIMITED_RANGE = 1
_TICKS = 90_000  # per second, about: fine enough for any variable rate
_MPEG4_TICKS = 65_535  # the most that MPEG-4 part 2 can state


class VideoWriter:
    """Writes frames to an MP4 file: H.264, yuv420p, index at the front.

    The file appears under its name when it is complete; an error leaves nothing behind. Odd sides
    are extended by one pixel that repeats the border, since yuv420p halves both.

    Args:
        path: of the file; its folder is made.
        fps: nominal frames per second.
        quality: constant rate factor of x264, 0 (lossless) to 51.

    Raises:
        DataError: if the file cannot be written, or (``write``) the frames differ in size.
    """

    def __init__(self, path: str | Path, *, fps: float, quality: int = 20) -> None:
        if not fps > 0:
            raise DataError(f"frames per second must be positive, got {fps}")
        self.path = Path(path)
        self.fps = fps
        self.quality = quality
        self.num_frames = 0
        self._draft = Draft(self.path)
        self._container: av.container.OutputContainer | None = None
        self._stream: av.VideoStream | None = None
        self._size: tuple[int, int] = (0, 0)
        self._unit = Fraction(1, _TICKS)
        self._last_tick = -1

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.discard()

    def write(self, image: np.ndarray, *, time: float | None = None) -> None:
        """Appends a frame.

        Args:
            image: uint8 ``(H, W, 3)`` RGB.
            time: seconds since the first frame, growing; by default the rate decides.
        """
        try:
            if self._container is None:
                self._open(image.shape[0], image.shape[1])
            if image.shape[:2] != self._size:
                raise DataError(
                    f"{self.path}: frame {self.num_frames} is {image.shape[1]}x{image.shape[0]}, "
                    f"the frames before are {self._size[1]}x{self._size[0]}"
                )
            self._encode(image, self.num_frames / self.fps if time is None else time)
        except (OSError, av.error.FFmpegError) as error:
            self.discard()
            raise DataError(f"cannot write {self.path}: {error}") from error
        self.num_frames += 1

    def close(self) -> None:
        """Completes the file and moves it to its name; without a frame there is no file."""
        if self._container is None or self._stream is None:
            return
        try:
            self._mux(self._stream.encode(None))
            self._container.close()
            self._container = self._stream = None
            self._draft.publish()
        except (OSError, av.error.FFmpegError) as error:
            self.discard()
            raise DataError(f"cannot write {self.path}: {error}") from error

    def discard(self) -> None:
        """Gives up and removes what was written."""
        container, self._container = self._container, None
        if container is not None:
            with contextlib.suppress(OSError, av.error.FFmpegError):  # the first error counts
                container.close()
        self._draft.discard()

    def _open(self, height: int, width: int) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        codec, options = _choose_codec(self.quality)
        self._container = av.open(
            str(self._draft.path), "w", format="mp4", options={"movflags": "+faststart"}
        )
        rate = Fraction(self.fps).limit_denominator(1001)
        stream: Any = self._container.add_stream(codec, rate=rate, options=options)
        stream.width, stream.height = width + width % 2, height + height % 2
        stream.pix_fmt = "yuv420p"
        # A multiple of the rate, so that the times of a constant rate are exact.
        ticks = _TICKS if codec == "libx264" else _MPEG4_TICKS
        self._unit = Fraction(1, max(ticks // rate.numerator, 1) * rate.numerator)
        stream.codec_context.time_base = self._unit
        _tag_colours(stream.codec_context)
        self._stream, self._size = stream, (height, width)

    def _encode(self, image: np.ndarray, time: float) -> None:
        assert self._stream is not None
        height, width = self._size
        if height % 2 or width % 2:
            image = np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
        frame = frame.reformat(format="yuv420p", dst_colorspace=Colorspace.ITU709)
        self._last_tick = max(self._last_tick + 1, round(time / self._unit))
        frame.pts, frame.time_base = self._last_tick, self._unit
        self._mux(self._stream.encode(frame))

    def _mux(self, packets: list[av.Packet]) -> None:
        assert self._container is not None
        for packet in packets:
            # Without a duration the last frame has none, and a one-frame video lasts 0 seconds.
            packet.duration = packet.duration or round(Fraction(1) / self.fps / packet.time_base)
            self._container.mux(packet)


def _choose_codec(quality: int) -> tuple[str, dict[str, str]]:
    if "libx264" in av.codecs_available:
        return "libx264", {"crf": str(quality), "preset": "veryfast"}
    logger.warning("this build of PyAV has no libx264; writing MPEG-4 part 2 instead of H.264")
    return "mpeg4", {"qmin": "2", "qmax": "6"}


def _tag_colours(context: av.VideoCodecContext) -> None:
    """Says which matrix was used: players guess untagged files by their size, and differ."""
    context.color_primaries = _BT709
    context.color_trc = _BT709
    context.colorspace = _BT709
    context.color_range = _LIMITED_RANGE
