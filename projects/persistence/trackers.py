"""Linking of detections into tracks, by motion or by colour, and what a track's length tells.

The tracker is tracking by detection in its classical form (constant velocity and optimal assignment
per frame, as in SORT, Bewley et al., ICIP 2016): the baseline beside which a model is reported.

Shapes: n detections of a frame, N of a clip, L live tracks, T frames.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from vidseg.assignment import linear_sum_assignment

if TYPE_CHECKING:
    from vidseg.config import CfgNode

    from .detections import Detections

__all__ = [
    "ColourPseudoTracker",
    "ColourTracks",
    "HungarianTracker",
    "persistence_from_tracks",
    "presence_of_tracks",
]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

REFERENCE_HEIGHT = 64  # pixels; the frame height that a gate is given for
_FORBIDDEN = 1e6  # a pair that is never matched; larger than the cost of all others together
_WHITE, _RED, _OTHER = 1, 2, -1


class HungarianTracker:
    """Links detections frame by frame, each frame by the cheapest assignment to the live tracks.

    The cost of a pair is the distance to where the track would be at constant velocity, in gates,
    plus the cosine distance of the mean colours. Beyond the gate, which grows by half with every
    missed frame, a pair is forbidden. Detections without a track start one. Only the live tracks
    are kept, so that videos may be of any length.

    Args:
        gate: pixels from the predicted place, at a frame height of 64.
        appearance_weight: of the cosine distance, in [0, inf).
        max_gap: frames from one detection of a track to its next, at most; 1 allows no missed one.
        frame_height: of the video in pixels; ``track`` takes that of the detections instead.

    Raises:
        ValueError: if one of them is out of range.
    """

    def __init__(
        self,
        *,
        gate: float = 3.0,
        appearance_weight: float = 0.5,
        max_gap: int = 3,
        frame_height: int = REFERENCE_HEIGHT,
    ) -> None:
        if not gate > 0:
            raise ValueError(f"gate is {gate}; it must be above 0")
        if not appearance_weight >= 0:
            raise ValueError(f"appearance_weight is {appearance_weight}; it cannot be negative")
        if max_gap < 1:
            raise ValueError(f"max_gap is {max_gap}; it must be 1 or more")
        if frame_height < 1:
            raise ValueError(f"frame_height is {frame_height}; it must be 1 or more")
        self._gate = gate
        self._appearance_weight = appearance_weight
        self._max_gap = max_gap
        self._frame_height = frame_height
        self.reset()

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Translates ``MODEL.PERSISTENCE.TRACKER``."""
        node = cfg.MODEL.PERSISTENCE.TRACKER
        return {
            "gate": node.GATE,
            "appearance_weight": node.APPEARANCE_WEIGHT,
            "max_gap": node.MAX_GAP,
        }

    def reset(self) -> None:
        """Forgets all tracks; ids begin at 0 again."""
        self._next_id = 0
        self._ids: Ints = np.zeros(0, np.int64)
        self._centers: Floats = np.zeros((0, 2))
        self._velocities: Floats = np.zeros((0, 2))
        self._colors: Floats = np.zeros((0, 3))
        self._missed: Ints = np.zeros(0, np.int64)

    @property
    def num_live(self) -> int:
        """Tracks that the next frame may continue."""
        return len(self._ids)

    def update(self, centers: ArrayLike | Tensor, colors: ArrayLike | Tensor) -> Tensor:
        """Links the detections of the next frame.

        Args:
            centers: ``(n, 2)`` in pixels; n may be 0.
            colors: ``(n, 3)`` mean colours.

        Returns:
            int64 ``(n,)`` ids of the tracks.
        """
        found = np.asarray(centers, dtype=np.float64).reshape(-1, 2)
        directions = _unit(np.asarray(colors, dtype=np.float64).reshape(-1, 3))
        return torch.from_numpy(self._update(found, directions, self._frame_height))

    def track(self, detections: Detections) -> Tensor:
        """Links all detections of a clip; the tracks of ``update`` are left as they are.

        Returns:
            int64 ``(N,)`` ids of the tracks, in the order of the detections.
        """
        tracker = HungarianTracker(
            gate=self._gate, appearance_weight=self._appearance_weight, max_gap=self._max_gap
        )
        centers = detections.centers.cpu().numpy().astype(np.float64)
        directions = _unit(detections.color.cpu().numpy().astype(np.float64))
        ids = np.zeros(len(centers), np.int64)
        for rows in _rows_by_frame(detections):
            ids[rows] = tracker._update(centers[rows], directions[rows], detections.size[0])
        return torch.from_numpy(ids)

    def _update(self, centers: Floats, colors: Floats, frame_height: int) -> Ints:
        gaps = self._missed + 1
        tracks, matches = self._match(centers, colors, gaps, frame_height)

        ids = np.full(len(centers), -1, np.int64)
        ids[matches] = self._ids[tracks]
        velocities = np.zeros_like(centers)
        moved = centers[matches] - self._centers[tracks]
        velocities[matches] = moved / gaps[tracks, None]
        is_new = ids < 0
        ids[is_new] = np.arange(self._next_id, self._next_id + is_new.sum())
        self._next_id += int(is_new.sum())

        lost = np.ones(len(self._ids), np.bool_)
        lost[tracks] = False
        lost &= gaps < self._max_gap
        self._missed = np.concatenate([gaps[lost], np.zeros(len(ids), np.int64)])
        self._ids = np.concatenate([self._ids[lost], ids])
        self._centers = np.concatenate([self._centers[lost], centers])
        self._velocities = np.concatenate([self._velocities[lost], velocities])
        self._colors = np.concatenate([self._colors[lost], colors])
        return ids

    def _match(
        self, centers: Floats, colors: Floats, gaps: Ints, frame_height: int
    ) -> tuple[Ints, Ints]:
        """Gives the rows of the live tracks that go on, and of the detections that they go to."""
        if not len(self._ids) or not len(centers):
            return np.zeros(0, np.int64), np.zeros(0, np.int64)
        offsets = (self._centers + self._velocities * gaps[:, None])[:, None] - centers
        distances = np.sqrt(np.square(offsets).sum(2))  # (L, n)
        gates = self._gate * frame_height / REFERENCE_HEIGHT * (1 + 0.5 * self._missed)
        costs = distances / gates[:, None]
        costs += self._appearance_weight * (1 - self._colors @ colors.T)
        allowed = distances <= gates[:, None]
        tracks, matches = linear_sum_assignment(np.where(allowed, costs, _FORBIDDEN))
        kept = allowed[tracks, matches]
        return tracks[kept], matches[kept]


class ColourTracks(NamedTuple):
    """Pseudo-tracks of a clip.

    Attributes:
        tracks: int64 ``(N,)``: 1 for everything white, 2, 3, ... for red objects one by one, -1 for
            other colours.
        instances: int64 ``(N,)`` number of the object within its track, from 0; -1 without track.
        num_unknown: detections of other colours.
    """

    tracks: Tensor
    instances: Tensor
    num_unknown: int


class ColourPseudoTracker:
    """Reads tracks off the colours, for clips in which persistent objects are white, others red.

    All white objects share one track: they are persistent as a class. Which of them a detection is
    tells the instance, and this, like the tracks of red objects, by continuity of position.

    Args:
        min_brightness: largest channel from which on a colour can be white, in [0, 1].
        tracker: that continues positions; the default one if ``None``.
    """

    def __init__(
        self, *, min_brightness: float = 0.3, tracker: HungarianTracker | None = None
    ) -> None:
        self._min_brightness = min_brightness
        self._tracker = tracker or HungarianTracker()

    def track(self, detections: Detections) -> ColourTracks:
        """Links all detections of a clip."""
        colors = _colour_class(detections.color, self._min_brightness)
        tracks = torch.full((len(detections),), -1)
        instances = torch.full((len(detections),), -1)
        white, red = colors == _WHITE, colors == _RED
        tracks[white] = _WHITE
        if white.any():
            instances[white] = self._tracker.track(detections.select(white))
        if red.any():
            tracks[red] = _RED + self._tracker.track(detections.select(red))
            instances[red] = 0
        return ColourTracks(tracks, instances, int((colors == _OTHER).sum()))


def presence_of_tracks(ids: Tensor, num_frames: int, *, frames: Tensor) -> Tensor:
    """Gives the share of the clip's frames in which the track of each detection is seen.

    Args:
        ids: int64 ``(N,)`` of the tracks; negative: none.
        num_frames: T.
        frames: int64 ``(N,)`` frame of each detection.

    Returns:
        float32 ``(N,)`` in [0, 1]; 0 without track.
    """
    if not len(ids):
        return torch.zeros(0)
    _, row = ids.unique(return_inverse=True)
    seen = torch.zeros(int(row.max()) + 1, num_frames, dtype=torch.bool)
    seen[row, frames] = True
    return seen.float().mean(1)[row].where(ids >= 0, torch.zeros(()))


def persistence_from_tracks(
    ids: Tensor, num_frames: int, min_presence: float = 0.7, *, frames: Tensor
) -> Tensor:
    """Gives labels without ground truth: an object that is seen in most frames is persistent.

    Args:
        ids: int64 ``(N,)`` of the tracks; negative: none.
        num_frames: T.
        min_presence: share of the frames from which on a track is persistent.
        frames: int64 ``(N,)`` frame of each detection.

    Returns:
        int64 ``(N,)``: 1 persistent, 0 transient, -1 without track.
    """
    presence = presence_of_tracks(ids, num_frames, frames=frames)
    # A share such as 0.7 of 10 frames must not fail by a rounding of single precision.
    labels = (presence >= min_presence - 1e-6).long()
    return labels.where(ids >= 0, torch.tensor(-1))


def _rows_by_frame(detections: Detections) -> list[Ints]:
    """Gives the rows of every frame, of frames without detections too."""
    frame = detections.frame.cpu().numpy()
    order = np.argsort(frame, kind="stable")
    ends = np.searchsorted(frame[order], np.arange(1, detections.num_frames))
    return np.split(order, ends)


def _unit(colors: Floats) -> Floats:
    """Scales colours to length 1; black, which has no direction, counts as grey."""
    norms = np.linalg.norm(colors, axis=1, keepdims=True)
    return np.where(norms > 1e-6, colors / np.maximum(norms, 1e-6), 3**-0.5)


def _colour_class(colors: Tensor, min_brightness: float) -> Tensor:
    brightest, darkest = colors.amax(1), colors.amin(1)
    white = (darkest >= 0.8 * brightest) & (brightest >= min_brightness)
    red = (colors[:, 0] >= 1.5 * colors[:, 1:].amax(1)) & (colors[:, 0] > 0)
    classes = torch.full((len(colors),), _OTHER)
    classes[red] = _RED
    classes[white] = _WHITE
    return classes
