"""Video files through PyAV: what their header says, and their frames, damaged ones included."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np

from vidseg.errors import DataError

__all__ = [
    "DEFAULT_FPS",
    "Decoding",
    "VideoFrame",
    "VideoInfo",
    "decode_file",
    "oriented_size",
    "probe_file",
]

logger = logging.getLogger(__name__)

DEFAULT_FPS = 25.0  # for pictures and for files that do not state a rate
_PICTURE_FORMATS = ("image2", "_pipe")  # how FFmpeg names its demuxers of still pictures


@dataclass(frozen=True)
class VideoInfo:
    """What is known of a video before it is read.

    Attributes:
        fps: frames per second, the average one if the rate varies.
        size: (height, width) in pixels, upright.
        num_frames: as announced, ``None`` if unknown; damaged files may hold fewer.
        path: where it comes from, ``""`` for frames in memory.
    """

    fps: float
    size: tuple[int, int]
    num_frames: int | None
    path: str = ""


@dataclass(frozen=True)
class VideoFrame:
    """One frame: its number in the source, its time in seconds and its pixels ``(H, W, 3)``."""

    index: int
    time: float
    image: np.ndarray


def _open_container(path: Path) -> av.container.InputContainer:
    """Opens a file, or says in one sentence why that is impossible."""
    if path.stat().st_size == 0:
        raise DataError(f"{path} is empty (0 bytes)")
    try:
        container = av.open(str(path))
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise DataError(f"{path} {_why_unreadable(path, error)}") from None
    if not container.streams.video:
        what = "sound but no video stream" if container.streams.audio else "no video stream"
        container.close()
        raise DataError(f"{path} has {what}")
    return container


def _why_unreadable(path: Path, error: Exception) -> str:
    with path.open("rb") as file:
        head = file.read(4096)
    if isinstance(error, PermissionError):
        return "may not be read: permission denied"
    if head[4:8] == b"ftyp":
        return "is cut off: its index (the 'moov' part) is missing, copy or record it again"
    if b"\0" not in head and all(byte > 8 for byte in head):
        return "is not a video: it holds text"
    return "is not a video that can be read"


def probe_file(path: Path, *, warn: bool) -> VideoInfo:
    """Reads the header and the first frame, which alone tells rotation and size.

    Args:
        path: of the file.
        warn: whether to say that it is a still picture.

    Raises:
        DataError: if it is no video, or not a single frame decodes.
    """
    with _open_container(path) as container:
        stream = container.streams.video[0]
        is_picture = any(word in container.format.name for word in _PICTURE_FORMATS)
        num_frames = 1 if is_picture else (stream.frames or None)
        decoding = Decoding(container)
        fps = decoding.rate or DEFAULT_FPS
        first = next(decoding.pictures(), None)
    if first is None:
        raise DataError(f"{path} has a video stream, but not a single frame of it decodes")
    if is_picture and warn:
        logger.warning("%s is a still picture, not a video; taken as a video of one frame", path)
    return VideoInfo(fps=fps, size=oriented_size(first), num_frames=num_frames, path=str(path))


def decode_file(path: Path, info: VideoInfo, *, warn: bool) -> Iterator[VideoFrame]:
    """Yields the frames of a file.

    Args:
        path: of the file.
        info: what ``probe_file`` gave.
        warn: whether to say what was damaged.
    """
    with _open_container(path) as container:
        decoding = Decoding(container)
        yield from decoding.frames(decoding.pictures(), info, warn=warn)


class Decoding:
    """One pass through an open container.

    Frame threads stay off (PyAV's default): with them, what survives an error depends on timing.

    Args:
        container: with a video stream.
    """

    def __init__(self, container: av.container.InputContainer) -> None:
        self._container = container
        self._stream = container.streams.video[0]
        self._damage = _Damage()

    @property
    def rate(self) -> float | None:
        """Frames per second, if the header says so."""
        rate = self._stream.average_rate or self._stream.guessed_rate
        return float(rate) if rate else None

    def pictures(self) -> Iterator[av.VideoFrame]:
        """Decodes packet by packet, so that one bad packet costs one frame and not the rest."""
        for packet in self._packets():
            try:
                frames = self._stream.decode(packet)  # None, at the end, empties the decoder
            except (av.error.FFmpegError, OSError):
                self._damage.failed += 1
                continue
            self._damage.frames += len(frames)
            yield from frames

    def frames(
        self, pictures: Iterator[av.VideoFrame], info: VideoInfo, *, warn: bool
    ) -> Iterator[VideoFrame]:
        """Gives pictures their numbers and times, upright and all of one size.

        Args:
            pictures: all of this pass, in order.
            info: of the video.
            warn: whether to say, at the end, what was damaged.
        """
        announced = None  # not comparable where the caller stops early
        unit = self._stream.time_base
        start: float | None = None
        last = -1.0
        try:
            for index, frame in enumerate(pictures):
                stated = None if frame.pts is None or not unit else float(frame.pts * unit)
                if start is None:
                    start = stated or 0.0
                time = stated - start if stated is not None else index / info.fps
                # Time must move on even where the file says otherwise: muxers rely on it.
                last = time if time > last else last + 0.5 / info.fps
                yield VideoFrame(index, last, _upright(frame, info.size))
            announced = info.num_frames
        finally:
            text = self._damage.text(announced)
            if text and warn:
                logger.warning("%s %s", info.path, text)

    def _packets(self) -> Iterator[av.Packet | None]:
        try:
            for packet in self._container.demux(self._stream):
                if packet.size:  # the empty one at the end is ours to send, errors or not
                    self._damage.packets += 1
                    yield packet
        except (av.error.FFmpegError, OSError):
            self._damage.cut_off = True
        yield None


@dataclass
class _Damage:
    """Counts of one pass through a file."""

    frames: int = 0
    packets: int = 0
    failed: int = 0
    cut_off: bool = False

    def text(self, announced: int | None) -> str:
        """Describes what is wrong, ``""`` if nothing is."""
        missing = announced is not None and self.packets < announced
        if not (self.failed or self.cut_off or missing):
            return ""
        of = f" of {announced} announced" if announced is not None else ""
        errors = f", {self.failed} did not decode" if self.failed else ""
        rest = ", the rest of the file is missing" if missing or self.cut_off else ""
        return f"is damaged: {self.frames} frames{of} were read{errors}{rest}"


def oriented_size(frame: av.VideoFrame) -> tuple[int, int]:
    """Gives the (height, width) of a frame when it is upright."""
    height, width = frame.height, frame.width
    return (width, height) if _quarter_turns(frame) % 2 else (height, width)


def _quarter_turns(frame: av.VideoFrame) -> int:
    """Counter-clockwise quarter turns that bring the stored picture upright."""
    return round(frame.rotation / 90) % 4


def _upright(frame: av.VideoFrame, size: tuple[int, int]) -> np.ndarray:
    turns = _quarter_turns(frame)
    height, width = size if turns % 2 == 0 else size[::-1]
    # A stream may change its resolution on the way; the first frame's size is kept.
    image = frame.reformat(width=width, height=height, format="rgb24").to_ndarray()
    return np.ascontiguousarray(np.rot90(image, turns)) if turns else image
