"""Video that arrives while it is watched: cameras and pipes, which are opened and read once."""

from __future__ import annotations

import itertools
import os
import signal
import stat
import sys
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

import av
import numpy as np

from vidseg.errors import DataError
from vidseg.files import ScratchFile

from .decode import DEFAULT_FPS, Decoding, VideoFrame, VideoInfo, oriented_size

__all__ = ["FrameSpool", "LiveSource", "StopOnInterrupt", "is_live"]

# FFmpeg's devices by platform, and how it wants a camera named there.
_CAMERAS = {
    "linux": ("v4l2", "/dev/video{}"),
    "darwin": ("avfoundation", "{}:none"),
    "win32": ("dshow", "video={}"),
}

# How much FFmpeg may read before the first frame is shown; by default seconds and megabytes, to
# guess what a live source mostly states: the format, and the rate from a few frames.
_QUICK_START = {"formatprobesize": "65536", "analyzeduration": "200000", "fpsprobesize": "2"}

_FORMS = "MPEG-TS, Matroska, MP4 with its index first or in fragments, motion JPEG or y4m"


def is_live(source: Any) -> bool:
    """Tells a camera or a pipe by its name: ``camera:0``, ``-``, ``pipe:0``, a device, a FIFO."""
    if not isinstance(source, (str, Path)):
        return False
    name = str(source)
    return name == "-" or name.startswith(("pipe:", "camera:")) or _is_device(name)


class LiveSource:
    """An open camera or pipe; its frames can be read once.

    An encoded video comes through a pipe in any form that needs no seeking: Matroska, MPEG-TS, MP4
    in fragments or with its index first, motion JPEG, y4m. A camera gives the frames that the
    reader has time for.

    Args:
        source: see ``is_live``; ``pipe:N`` is the file descriptor N, ``-`` the standard input.
        fps: frames per second where the source does not say.

    Raises:
        DataError: if it cannot be opened, or brings no video.

    Attributes:
        info: what is known so far; the number of frames is not.
    """

    def __init__(self, source: str | Path, fps: float = DEFAULT_FPS) -> None:
        name = str(source)
        self._container = _open(name)
        try:
            if not self._container.streams.video:
                raise DataError(f"{_title(name)} brings no video stream")
            self._decoding = Decoding(self._container)
            pictures = self._decoding.pictures()
            first = next(pictures, None)
            if first is None:
                raise DataError(f"{_title(name)} {_why_no_frame(self._container.format.name)}")
        except BaseException:
            self._container.close()
            raise
        rate = self._decoding.rate or fps
        self.info = VideoInfo(rate, oriented_size(first), num_frames=None, path=name)
        self._pictures: Iterator[av.VideoFrame] | None = itertools.chain([first], pictures)

    def frames(self) -> Iterator[VideoFrame]:
        """Yields the frames as they arrive.

        Raises:
            DataError: if they were read before.
        """
        pictures, self._pictures = self._pictures, None
        if pictures is None:
            raise DataError(f"{_title(self.info.path)} can be read only once")
        with self._container:
            yield from self._decoding.frames(pictures, self.info, warn=True)


class FrameSpool:
    """Frames that were read and are still wanted, in a temporary file without a name.

    The file starts anew whenever nobody waits: with results that come window by window, it holds a
    window; with one at the end, it holds the video.
    """

    def __init__(self) -> None:
        self._file = ScratchFile("the frames that wait for a result", "limit their number")
        self._waiting: deque[tuple[int, float, tuple[int, ...], int]] = deque()
        self._end = 0

    def __len__(self) -> int:
        """Number of frames that wait."""
        return len(self._waiting)

    def passing(self, frames: Iterator[VideoFrame]) -> Iterator[VideoFrame]:
        """Keeps the frames that pass.

        Raises:
            ResourceError: if the disk is full.
        """
        for frame in frames:
            self._push(frame)
            yield frame

    def pop(self) -> VideoFrame:
        """Gives the frame that has waited longest."""
        index, time, shape, place = self._waiting.popleft()
        image = np.empty(shape, dtype=np.uint8)
        self._file.read_into(place, _bytes_of(image))
        return VideoFrame(index, time, image)

    def _push(self, frame: VideoFrame) -> None:
        if not self._waiting:
            self._end = 0
        place = self._end
        data = _bytes_of(np.ascontiguousarray(frame.image))
        self._end += len(data)
        self._file.write(place, data)
        self._waiting.append((frame.index, frame.time, frame.image.shape, place))


class StopOnInterrupt:
    """Within it, the first interrupt (Ctrl-C) ends a source after its present frame.

    What was seen until then is a whole result; a second interrupt interrupts.
    """

    def __init__(self) -> None:
        self._asked = False
        self._before: Any = None

    def __enter__(self) -> StopOnInterrupt:
        self._before = signal.signal(signal.SIGINT, self._ask)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        signal.signal(signal.SIGINT, self._before)

    def until(self, frames: Iterator[VideoFrame]) -> Iterator[VideoFrame]:
        """Yields the frames that come before the interrupt."""
        return itertools.takewhile(lambda _: not self._asked, frames)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self._asked = True
        signal.signal(signal.SIGINT, self._before)


def _open(name: str) -> av.container.InputContainer:
    """Opens a live source, or says in one sentence why that is impossible."""
    try:
        if name == "-" or name.startswith("pipe:"):
            return _open_pipe(name)
        if name.startswith("camera:") or _is_camera(name):
            return _open_camera(name)
        return av.open(name, options=_QUICK_START)
    except (av.error.FFmpegError, OSError, ValueError) as error:
        if isinstance(error, PermissionError):
            why = "permission denied"
        elif isinstance(error, av.error.InvalidDataError):
            why = f"{error.strerror}; it takes an encoded video: {_FORMS}"
        elif isinstance(error, EOFError):
            why = "nothing came through it"
        else:
            why = getattr(error, "strerror", None) or str(error)
        raise DataError(f"{_title(name)} cannot be read: {why}") from None


def _why_no_frame(form: str) -> str:
    if "mp4" not in form:
        return f"brings a video ({form}) of which not one frame decodes"
    return (
        "brings an MP4 of which not one frame decodes: where its index stands at its end, a pipe "
        "cannot go back to the frames; name the file itself, or put the index first: "
        "ffmpeg -i in.mp4 -c copy -movflags +faststart out.mp4"
    )


def _open_pipe(name: str) -> av.container.InputContainer:
    number = "0" if name == "-" else name.removeprefix("pipe:")
    if not number.isdigit():
        raise DataError(f"{name!r} is no pipe: give pipe:0 or - for the standard input")
    if os.isatty(int(number)):
        raise DataError(f"{_title(name)} is a terminal: pipe an encoded video into it")
    # FFmpeg reads the descriptor itself: what has arrived goes on without waiting for more.
    return av.open(f"pipe:{number}", options=_QUICK_START)


def _open_camera(name: str) -> av.container.InputContainer:
    if sys.platform not in _CAMERAS:
        raise DataError(f"{name}: cameras are not supported on {sys.platform}")
    driver, pattern = _CAMERAS[sys.platform]
    device = name
    if name.startswith("camera:"):
        device = pattern.format(name.removeprefix("camera:"))
    if sys.platform == "linux" and not Path(device).exists():
        there = sorted(str(path) for path in Path("/dev").glob("video*"))
        known = f"there are {', '.join(there)}" if there else "this machine has none"
        raise DataError(f"{name}: there is no camera {device}; {known}")
    return av.open(device, format=driver)


def _bytes_of(image: np.ndarray) -> memoryview:
    return memoryview(image).cast("B")  # type: ignore[arg-type]


def _title(name: str) -> str:
    return "the standard input" if name in ("-", "pipe:0") else name


def _is_device(name: str) -> bool:
    """Tells a named pipe or a camera from a file by what the file system says."""
    try:
        mode = os.stat(name).st_mode
    except (OSError, ValueError):
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISCHR(mode)


def _is_camera(name: str) -> bool:
    return stat.S_ISCHR(os.stat(name).st_mode)
