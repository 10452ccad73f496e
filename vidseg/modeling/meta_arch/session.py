"""One video on its way through a model: what every session offers, is told and gives.

Shapes: t frames of a window, H W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from vidseg.config import CfgNode
from vidseg.structures import FrameAttention, QueryRows, VideoInstances

__all__ = ["Recorder", "ResultPlace", "ResultSettings", "VideoSession"]

Size = tuple[int, int]


class VideoSession(Protocol):
    """One video on its way through a model; the caller feeds windows in order.

    A session may also offer

    - ``feed(frames)``: like ``step``, for callers who only want the end;
    - ``stream(frames)``: like ``step``, for callers who never want it. Nothing is then kept of a
      window that is over but what the next one needs, and ``finish`` knows nothing;
    - ``next_clip(indices)``: starts the next clip of a video that is too long for one result.

    One with ``is_offline = True`` knows nothing before ``finish``: its steps give no instances.
    """

    def step(self, frames: Tensor) -> VideoInstances:
        """Takes the next frames, uint8 ``(t, 3, H, W)``; gives what is known about them."""
        ...

    def finish(self) -> VideoInstances:
        """Gives the instances of the whole video."""
        ...


class Recorder(Protocol):
    """Watches one session and tells afterwards what its model read; the results stay the same.

    A model that can explain its results offers ``recorder(session)``, which gives one. It keeps
    a few numbers per track and frame; the maps come from segmenting the frames once more.
    """

    attention_source: str
    """What the maps are, in words."""

    def recording(self) -> AbstractContextManager[None]:
        """Surrounds every call of the session, its ``finish`` included."""
        ...

    def attention(
        self, frames: Tensor, start: int, track_ids: Sequence[int]
    ) -> list[FrameAttention]:
        """Tells where tracks of the result were seen, after ``finish``.

        Args:
            frames: a window as the session got it, uint8 ``(t, 3, H, W)``.
            start: number of its first frame, counted from 0.
            track_ids: n tracks.

        Returns:
            One per frame.
        """
        ...

    def frame_weights(self, track_ids: Sequence[int]) -> Tensor | None:
        """Gives each frame's share in the class of tracks, ``(n, T)``, if there is such a thing."""
        ...

    def rows(self) -> list[QueryRows] | None:
        """Gives what became of the tracker's queries, frame by frame, if there are any."""
        ...


@dataclass(frozen=True)
class ResultPlace:
    """Where a result lies in its video.

    Args:
        size: (height, width) of the masks; that of the frames by default.
        indices: positions in the video of the frames of this clip; by default they follow on
            those of the clip before, from 0.
        first: how many frames the session saw in the clips before.
        start: position of the first frame where ``indices`` are not given.
    """

    size: Size | None = None
    indices: Sequence[int] | None = None
    first: int = 0
    start: int = 0

    def size_for(self, image: Size | None) -> Size:
        """Gives the size of masks of frames of the given size; (0, 0) if nothing is known."""
        return self.size or image or (0, 0)

    def indices_for(self, frames: range) -> list[int]:
        """Gives the positions of frames that are counted from the start of the session."""
        inside = [frame - self.first for frame in frames]
        if self.indices is None:
            return [self.start + frame for frame in inside]
        return [int(self.indices[frame]) for frame in inside]

    def clip(self, num_frames: int) -> range:
        """Gives the frames of this clip when the session has seen ``num_frames`` in all."""
        return range(self.first, num_frames)

    def next_clip(self, num_frames: int, indices: Sequence[int] | None = None) -> ResultPlace:
        """Gives the place of the clip that follows when the session has seen ``num_frames``."""
        start = self.start
        if num_frames > self.first:
            start = 1 + self.indices_for(range(num_frames - 1, num_frames))[0]
        return ResultPlace(self.size, indices, num_frames, start)


@dataclass(frozen=True)
class ResultSettings:
    """What a result holds.

    Args:
        max_num: (track, label) pairs at most, best first.
        one_label_per_track: a track is reported once, with its best label.
        mask_quality: scores are multiplied by the mean probability inside the track's masks.
    """

    max_num: int = 20
    one_label_per_track: bool = False
    mask_quality: bool = False

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Reads ``MODEL.MASK_FORMER.TEST``."""
        test = cfg.MODEL.MASK_FORMER.TEST
        return {
            "max_num": test.MAX_NUM,
            "one_label_per_track": test.ONE_LABEL_PER_TRACK,
            "mask_quality": test.MASK_QUALITY,
        }
