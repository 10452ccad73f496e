"""Video in and out through PyAV, frame by frame; nothing here ever holds a whole video.

Frames are uint8 RGB and upright: a rotation in the file's metadata is applied, whatever the pixel
format. Every frame carries its own time, so that a variable frame rate survives.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterable, Iterator, Sized
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import av
import numpy as np

from vidseg.errors import DataError, nearest

from .images import IMAGE_SUFFIXES, as_image, list_images, load_image
from .writer import VideoWriter

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["VideoFrame", "VideoInfo", "VideoReader", "VideoWriter", "read_frames"]

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


_Read = Callable[[], Iterator[VideoFrame]]


class VideoReader:
    """Iterates over the frames of a video file, a folder of pictures, a picture or arrays.

    Iterating yields uint8 ``(H, W, 3)`` RGB arrays; ``frames()`` yields them with number and time.
    Files can be iterated again and again; an iterator of arrays only once.

    Args:
        source: path of a video, picture or folder of pictures (natural order); or a sequence or
            iterator of picture paths, arrays or tensors (see ``images.as_image``).
        fps: frames per second of pictures and arrays; a video file brings its own.
        every: gives only each ``every``-th frame; numbers and times stay those of the source.
        max_frames: ends after so many frames, ``None`` for all.
        quiet: leaves out the warning about frames that do not decode (for a second pass).

    Raises:
        DataError: if the source is missing, empty, no video, or has no video stream. While
            iterating: if not a single frame decodes, or pictures differ in size.

    Attributes:
        info: what is known before reading.
        is_picture: whether the source is one picture file.
    """

    def __init__(
        self,
        source: Any,
        *,
        fps: float = DEFAULT_FPS,
        every: int = 1,
        max_frames: int | None = None,
        quiet: bool = False,
    ) -> None:
        if every < 1 or (max_frames is not None and max_frames < 1):
            raise DataError(f"every ({every}) and max_frames ({max_frames}) must be at least 1")
        self.every = every
        self.max_frames = max_frames
        self.quiet = quiet
        self.is_picture = _is_picture_file(source)
        if isinstance(source, (str, Path)):
            self.info, self._read = self._open_path(Path(source), fps)
        else:
            self.info, self._read = _open_items(source, fps, "")

    def frames(self) -> Iterator[VideoFrame]:
        """Yields the frames with their numbers and times, in order of time."""
        chosen = itertools.islice(self._read(), 0, None, self.every)
        return itertools.islice(chosen, self.max_frames)

    def __iter__(self) -> Iterator[np.ndarray]:
        return (frame.image for frame in self.frames())

    def __len__(self) -> int:
        """Gives the announced number of frames; raises TypeError where it is unknown."""
        if self.info.num_frames is None:
            raise TypeError(f"the number of frames of {self.info.path or 'this source'} is unknown")
        chosen = -(-self.info.num_frames // self.every)
        return chosen if self.max_frames is None else min(chosen, self.max_frames)

    def _open_path(self, path: Path, fps: float) -> tuple[VideoInfo, _Read]:
        if not path.exists():
            siblings = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
            close = nearest(path.name, siblings, n=1)
            hint = f"; did you mean {path.parent / close[0]}?" if close else ""
            raise DataError(f"no such file or folder: {path}{hint}")
        if path.is_dir():
            return _open_items(list_images(path), fps, str(path))
        if self.is_picture:
            return _open_items([path], fps, str(path))
        info = _probe(path, warn=not self.quiet)
        return info, lambda: _decode(path, info, warn=not self.quiet)


def read_frames(source: Any, **options: Any) -> tuple[Iterator[Tensor], VideoInfo]:
    """Opens a source (see ``VideoReader``, which takes the same options).

    Returns:
        An iterator over uint8 tensors ``(3, H, W)``, and what is known of the whole.
    """
    import torch

    reader = VideoReader(source, **options)
    return (torch.from_numpy(image).permute(2, 0, 1) for image in reader), reader.info


# Pictures and arrays


def _open_items(items: Any, fps: float, path: str) -> tuple[VideoInfo, _Read]:
    """Opens a sequence or an iterator of pictures; its first one gives the size."""
    if not fps > 0:
        raise DataError(f"frames per second must be positive, got {fps}")
    if getattr(items, "ndim", None) in (2, 3):  # one array or tensor is one frame
        items = [items]
    if not isinstance(items, Iterable):
        raise DataError(f"cannot read a video from {type(items).__name__}")
    length = len(items) if isinstance(items, Sized) else None
    iterator = iter(items)
    try:
        first = next(iterator)
    except StopIteration:
        raise DataError(f"there is no frame in {path or 'the given sequence'}") from None
    if length is None:
        items = itertools.chain([first], iterator)
    size = _first_size(first, items if length is not None else ())
    info = VideoInfo(fps=fps, size=size, num_frames=length, path=path)
    return info, lambda: _load_items(items, info)


def _first_size(first: Any, others: Iterable[Any]) -> tuple[int, int]:
    """Takes the size of the first frame that can be loaded."""
    try:
        return _load_item(first).shape[:2]
    except DataError:
        for item in others:
            if isinstance(item, (str, Path)):
                try:
                    return _load_item(item).shape[:2]
                except DataError:
                    continue
        raise


def _load_items(items: Iterable[Any], info: VideoInfo) -> Iterator[VideoFrame]:
    failed = 0
    last_error = ""
    index = -1
    for index, item in enumerate(items):
        try:
            image = _load_item(item)
        except DataError as error:
            if not isinstance(item, (str, Path)):
                raise
            failed, last_error = failed + 1, str(error)
            continue
        if image.shape[:2] != info.size:
            name = item if isinstance(item, (str, Path)) else f"frame {index}"
            raise DataError(
                f"{name} is {_size_text(image.shape[:2])} but the frames before it are "
                f"{_size_text(info.size)}; all pictures of a video must have one size"
            )
        yield VideoFrame(index, index / info.fps, image)
    if failed:
        logger.warning(
            "%s: %d of %d pictures left out (%s)", info.path, failed, index + 1, last_error
        )


def _load_item(item: Any) -> np.ndarray:
    return load_image(item) if isinstance(item, (str, Path)) else as_image(item)


def _is_picture_file(source: Any) -> bool:
    return (
        isinstance(source, (str, Path))
        and Path(source).suffix.lower() in IMAGE_SUFFIXES
        and not Path(source).is_dir()
    )


def _size_text(size: tuple[int, ...]) -> str:
    return f"{size[1]}x{size[0]}"


# Video files


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


def _probe(path: Path, *, warn: bool) -> VideoInfo:
    """Reads the header and the first frame, which alone tells rotation and size."""
    with _open_container(path) as container:
        stream = container.streams.video[0]
        rate = stream.average_rate or stream.guessed_rate
        fps = float(rate) if rate else DEFAULT_FPS
        is_picture = any(word in container.format.name for word in _PICTURE_FORMATS)
        num_frames = 1 if is_picture else (stream.frames or None)
        first = next(_packets_to_frames(container, _Damage()), None)
    if first is None:
        raise DataError(f"{path} has a video stream, but not a single frame of it decodes")
    if is_picture and warn:
        logger.warning("%s is a still picture, not a video; taken as a video of one frame", path)
    height, width = (first.height, first.width)
    if _quarter_turns(first) % 2:
        height, width = width, height
    return VideoInfo(fps=fps, size=(height, width), num_frames=num_frames, path=str(path))


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


def _packets_to_frames(
    container: av.container.InputContainer, damage: _Damage
) -> Iterator[av.VideoFrame]:
    """Decodes packet by packet, so that one bad packet costs one frame and not the rest.

    Frame threads stay off (PyAV's default): with them, what survives an error depends on timing.
    """
    stream = container.streams.video[0]
    for packet in _packets(container, damage):
        try:
            frames = stream.decode(packet)  # None, at the end, empties the decoder
        except (av.error.FFmpegError, OSError):
            damage.failed += 1
            continue
        damage.frames += len(frames)
        yield from frames


def _packets(container: av.container.InputContainer, damage: _Damage) -> Iterator[av.Packet | None]:
    try:
        for packet in container.demux(container.streams.video[0]):
            if packet.size:  # the empty one at the end is ours to send, errors or not
                damage.packets += 1
                yield packet
    except (av.error.FFmpegError, OSError):
        damage.cut_off = True
    yield None


def _decode(path: Path, info: VideoInfo, *, warn: bool) -> Iterator[VideoFrame]:
    damage = _Damage()
    announced = None  # not comparable where the caller stops early
    start: float | None = None
    last = -1.0
    try:
        with _open_container(path) as container:
            unit = container.streams.video[0].time_base
            for index, frame in enumerate(_packets_to_frames(container, damage)):
                stated = None if frame.pts is None or not unit else float(frame.pts * unit)
                if start is None:
                    start = stated or 0.0
                time = stated - start if stated is not None else index / info.fps
                # Time must move on even where the file says otherwise: muxers rely on it.
                last = time if time > last else last + 0.5 / info.fps
                yield VideoFrame(index, last, _upright(frame, info.size))
        announced = info.num_frames
    finally:
        text = damage.text(announced)
        if text and warn:
            logger.warning("%s %s", path, text)


def _quarter_turns(frame: av.VideoFrame) -> int:
    """Counter-clockwise quarter turns that bring the stored picture upright."""
    return round(frame.rotation / 90) % 4


def _upright(frame: av.VideoFrame, size: tuple[int, int]) -> np.ndarray:
    turns = _quarter_turns(frame)
    height, width = size if turns % 2 == 0 else size[::-1]
    # A stream may change its resolution on the way; the first frame's size is kept.
    image = frame.reformat(width=width, height=height, format="rgb24").to_ndarray()
    return np.ascontiguousarray(np.rot90(image, turns)) if turns else image
