"""Video in and out through PyAV, frame by frame; nothing here ever holds a whole video.

Frames are uint8 RGB and upright: a rotation in the file's metadata is applied, whatever the pixel
format. Every frame carries its own time, so that a variable frame rate survives.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterable, Iterator, Sized
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vidseg.errors import DataError, nearest

from .arrays import ARRAY_SUFFIX, ArrayFrames
from .decode import DEFAULT_FPS, VideoFrame, VideoInfo, decode_file, probe_file
from .images import IMAGE_SUFFIXES, as_image, list_images, load_image
from .live import LiveSource, is_live
from .writer import VideoWriter

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["VideoFrame", "VideoInfo", "VideoReader", "VideoWriter", "read_frames"]

logger = logging.getLogger(__name__)

_Read = Callable[[], Iterator[VideoFrame]]


class VideoReader:
    """Iterates over the frames of a video, a folder of pictures, a picture, a camera or arrays.

    Iterating yields uint8 ``(H, W, 3)`` RGB arrays; ``frames()`` yields them with number and time.
    Files can be iterated again and again; a live source or an iterator of arrays only once.

    Args:
        source: path of a video, a picture, a folder of pictures (natural order) or a ``.npy`` file
            (see ``arrays.ArrayFrames``); a live source: a camera (``"camera:0"``,
            ``"/dev/video0"``), the standard input (``"-"``) or a named pipe, through which an
            encoded video comes; or any iterable of picture paths, arrays or tensors (see
            ``images.as_image``), which need not end.
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
        is_live: whether it is a camera or a pipe.
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
        self.is_live = is_live(source)
        if self.is_live:
            live = LiveSource(source, fps)
            self.info, self._read = live.info, live.frames
        elif isinstance(source, (str, Path)):
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
        if path.suffix.lower() == ARRAY_SUFFIX:
            return _open_items(ArrayFrames(path), fps, str(path))
        info = probe_file(path, warn=not self.quiet)
        return info, lambda: decode_file(path, info, warn=not self.quiet)


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
