"""A video of any length on its way through the model: blobs, windows, tracks.

Shapes: t frames of a step, T frames of the video, n blobs of a frame, N of a window, H W pixels.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Protocol

import torch
from torch import Tensor

from vidseg.errors import DataError
from vidseg.modeling.meta_arch import ResultPlace
from vidseg.structures import VideoInstances

from .detections import Detections
from .discs import encode_track
from .prediction import TokenPrediction
from .trackers import HungarianTracker

__all__ = ["BlobModel", "PersistenceSession", "join"]

logger = logging.getLogger(__name__)


Observer = Callable[[int, Detections, TokenPrediction], None]


class BlobModel(Protocol):
    """What a session needs of the model."""

    def detect(self, frames: Tensor) -> tuple[Detections, Tensor]:
        """Finds the blobs of frames, uint8 ``(t, 3, H, W)``, and cuts out their patches."""
        ...

    def predict(self, detections: Detections, patches: Tensor) -> TokenPrediction:
        """Decides on the blobs of a window."""
        ...

    @property
    def tracker(self) -> HungarianTracker:
        """Links the blobs of a video."""
        ...


class PersistenceSession:
    """Looks for blobs frame by frame, and lets the transformer see windows that overlap by half.

    A blob's logit is the mean over its windows, that of a track the mean over its blobs; so a track
    is "persistent" if it stays within the windows, even if it is gone from the rest of the video.

    Patches are kept of the last window and a half only. What grows with the video are the numbers
    of its blobs, about 6 kB per frame.

    Args:
        model: with its weights.
        place: of the result in the video.
        window: frames that the transformer sees at once, as many as in training.
        max_num: tracks of the result; those that are seen in most frames are taken.

    Attributes:
        observers: called with first frame, blobs and prediction of every window.
    """

    is_offline = True

    def __init__(
        self, model: BlobModel, place: ResultPlace, *, window: int = 16, max_num: int = 20
    ) -> None:
        self._model, self._place = model, place
        self._window, self._max_num = window, max_num
        self._stride = max(window // 2, 1)
        self.observers: list[Observer] = []
        self._size: tuple[int, int] | None = None
        self._frames: list[_Frame] = []
        self._covered = 0  # frames that a window has seen
        self._blobs_of: dict[int, list[tuple[int, int]]] = {}  # by track, known after ``finish``

    @property
    def num_frames(self) -> int:
        """Frames seen so far."""
        return len(self._frames)

    @property
    def num_patches(self) -> int:
        """Patches that are kept at the moment."""
        return sum(len(f.patches) for f in self._frames if f.patches is not None)

    @torch.no_grad()
    def step(self, frames: Tensor) -> VideoInstances:
        """Takes the next frames, uint8 ``(t, 3, H, W)``; the result comes with ``finish``.

        Raises:
            DataError: if the frames' size differs from before.
        """
        height, width = frames.shape[-2:]
        start, size = len(self._frames), (height, width)
        if self._size is not None and self._size != size:
            raise DataError(
                f"frames of {width}x{height} come after frames of "
                f"{self._size[1]}x{self._size[0]} pixels in one video"
            )
        self._size = size
        found, patches = self._model.detect(frames)
        for number in range(len(frames)):
            rows = (found.frame == number).nonzero()[:, 0]
            self._frames.append(_Frame(found.select(rows), patches[rows]))
            if len(self._frames) == max(self._window, self._covered + self._stride):
                self._decide()
        indices = self._place.indices_for(range(start, len(self._frames)))
        return VideoInstances.empty(self._place.size_for(size), indices)

    @torch.no_grad()
    def finish(self) -> VideoInstances:
        """Gives the tracks of the video; label 1 is persistent, 0 transient."""
        num_frames = len(self._frames)
        size = self._place.size_for(self._size)
        indices = self._place.indices_for(range(num_frames))
        if not num_frames:
            return VideoInstances.empty(size, indices)
        if self._covered < num_frames:
            self._decide()
        counts = torch.cat([frame.num_windows for frame in self._frames])
        decided = counts > 0
        if not decided.any():
            self._tell_of_nothing()
            return VideoInstances.empty(size, indices)
        blobs = join([frame.blobs for frame in self._frames])
        tracks = self._model.tracker.track(blobs)
        logits = torch.cat([frame.logits for frame in self._frames]) / counts.clamp(min=1)
        ids = self._longest(tracks[decided])
        rows = {track: ((tracks == track) & decided).nonzero()[:, 0] for track in ids}
        self._blobs_of = {track: _places(blobs, rows[track]) for track in ids}
        means = torch.stack([logits[rows[track]].mean() for track in ids])
        return VideoInstances(
            scores=means.abs().sigmoid(),
            labels=(means > 0).long(),
            track_ids=torch.tensor(ids),
            masks=[encode_track(blobs.select(rows[track]), size) for track in ids],
            image_size=size,
            frame_indices=indices,
        )

    def track_blobs(self, track: int) -> list[tuple[int, int]]:
        """Gives frame and number in the frame of the blobs of a track of the result."""
        return self._blobs_of[track]

    def blob(self, frame: int, number: int) -> tuple[float, float, float]:
        """Gives row, column and radius of a blob in pixels."""
        blobs = self._frames[frame].blobs
        return float(blobs.y[number]), float(blobs.x[number]), float(blobs.radius[number])

    def _decide(self) -> None:
        """Runs the transformer over the last window and drops patches that no other one needs."""
        stop = len(self._frames)
        start = max(stop - self._window, 0)
        frames = self._frames[start:stop]
        blobs = join([frame.blobs for frame in frames])
        patches = torch.cat([frame.patches for frame in frames if frame.patches is not None])
        prediction = self._model.predict(blobs, patches)
        logits, counts = torch.zeros(len(blobs)), torch.zeros(len(blobs))
        logits[prediction.kept] = prediction.logits
        counts[prediction.kept] = 1.0
        lengths = [len(frame.blobs) for frame in frames]
        for frame, more, count in zip(
            frames, logits.split(lengths), counts.split(lengths), strict=True
        ):
            frame.logits = frame.logits + more
            frame.num_windows = frame.num_windows + count
        self._covered = stop
        for observe in self.observers:
            observe(start, blobs, prediction)
        for frame in self._frames[max(start - self._stride, 0) : start + 1]:
            frame.patches = None  # the next window starts later

    def _longest(self, tracks: Tensor) -> list[int]:
        """Gives the ids of the tracks with most blobs, the older one first among equals."""
        ids, lengths = tracks.unique(return_counts=True)
        if len(ids) > self._max_num:
            logger.warning(
                "%d of %d tracks are left out of the result, those seen in fewest frames "
                "(MODEL.MASK_FORMER.TEST.MAX_NUM)",
                *(len(ids) - self._max_num, len(ids)),
            )
        return ids[lengths.argsort(descending=True, stable=True)][: self._max_num].tolist()

    def _tell_of_nothing(self) -> None:
        height, width = self._size or (0, 0)
        logger.warning(
            "no blob in %d frames of %dx%d pixels; INPUT.MIN_SIZE_TEST decides at which size blobs "
            "are looked for, MODEL.PERSISTENCE.DETECTOR.THRESHOLD how bright they must be",
            *(len(self._frames), width, height),
        )


class _Frame:
    """What is kept of a frame.

    Args:
        blobs: of this frame alone.
        patches: of them, uint8 ``(n, 3, P, P)``; given up once no window needs them.

    Attributes:
        logits: sum over the windows so far, ``(n,)``.
        num_windows: number of them, ``(n,)``.
    """

    def __init__(self, blobs: Detections, patches: Tensor | None) -> None:
        self.blobs, self.patches = blobs, patches
        self.logits, self.num_windows = torch.zeros(len(blobs)), torch.zeros(len(blobs))


def join(frames: Sequence[Detections]) -> Detections:
    """Joins the blobs of frames that follow each other, one frame each, to those of a clip."""
    columns = [field.name for field in fields(Detections) if field.type == "Tensor"]
    joined = {name: torch.cat([getattr(frame, name) for frame in frames]) for name in columns}
    lengths = torch.tensor([len(frame) for frame in frames])
    joined["frame"] = torch.arange(len(frames)).repeat_interleave(lengths)
    return Detections(num_frames=len(frames), size=frames[0].size, **joined)


def _places(blobs: Detections, rows: Tensor) -> list[tuple[int, int]]:
    """Gives frame and number in the frame of some rows of blobs that are sorted by frame."""
    frames = blobs.frame[rows]
    numbers = rows - torch.searchsorted(blobs.frame, frames)
    return list(zip(frames.tolist(), numbers.tolist(), strict=True))
