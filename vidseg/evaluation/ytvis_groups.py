"""Tracks of a whole data set in groups, a class in a video each, and what is measured of them.

Only tracks of one group are compared. Their masks are read part by part: the runs of all masks
would take more memory than the files.

Shapes: N predicted tracks, P pairs of tracks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vidseg.mask_runs import ranks_in_groups

from .tube_iou import Tubes, pair_ious
from .ytvis_files import Track
from .ytvis_matching import IOU_THRESHOLDS

__all__ = ["GroupedTracks", "check_masks", "measure_masks", "measure_tracks", "pairs_in_groups"]

MEASURED_MASKS = 1 << 13  # predicted masks that are read together


class GroupedTracks:
    """The tracks of a whole data set, sorted by group: a class in a video.

    Groups are numbered by class, then by ascending video id. Within a group tracks are sorted by
    falling score, if they have one, then by category id, then as in the file.

    Args:
        tracks: of known videos and classes.
        videos: video id -> number.
        classes: category id -> class.
        limit: how many tracks of a group are kept.
    """

    def __init__(
        self,
        tracks: Sequence[Track],
        videos: Mapping[Any, int],
        classes: Mapping[Any, int],
        *,
        limit: int | None = None,
    ) -> None:
        places = {category_id: place for place, category_id in enumerate(classes)}
        group_of = [classes[t.category_id] * len(videos) + videos[t.video_id] for t in tracks]
        groups = np.array(group_of, dtype=np.int64)
        scores = np.array([track.score for track in tracks], dtype=np.float64)
        categories = np.array([places[track.category_id] for track in tracks], dtype=np.int64)
        order = np.lexsort((categories, -scores, groups))  # stable
        if limit is not None:
            order = order[ranks_in_groups(groups[order]) < limit]
        self.groups = groups[order]
        self.tracks = [tracks[index] for index in order.tolist()]

    def parts(self, places: np.ndarray) -> list[np.ndarray]:
        """Splits the places of some tracks so that no part has many more masks than it should."""
        return _parts(self.tracks, places)

    def tubes(self, places: np.ndarray, *, is_compared: bool = True) -> Tubes:
        """Measures the masks of some tracks."""
        chosen = [self.tracks[place] for place in places]
        return measure_masks(chosen, is_compared=is_compared)


def check_masks(tracks: Sequence[Track]) -> None:
    """Checks the masks of tracks that nothing is measured of.

    Raises:
        ValueError: see ``measure_masks``.
    """
    for part in _parts(tracks, np.arange(len(tracks))):
        measure_masks([tracks[place] for place in part], is_compared=False)


def measure_masks(tracks: Sequence[Track], *, is_compared: bool = True) -> Tubes:
    """Measures the masks of tracks, see ``Tubes``.

    Raises:
        ValueError: if a mask is damaged; names file, track, video and frame.
    """
    return Tubes.from_masks(
        [track.masks for track in tracks],
        lambda index: f"{tracks[index].where}, video {tracks[index].video_id!r}",
        is_compared=is_compared,
    )


def pairs_in_groups(rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Pairs the members of two sorted lists of groups, int64 ``(2, P)``, ascending."""
    first, last = (np.searchsorted(columns, rows, side=side) for side in ("left", "right"))
    lengths = last - first
    row_of = np.repeat(np.arange(len(rows)), lengths)
    nth = np.arange(len(row_of)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    return np.stack([row_of, first[row_of] + nth])


def measure_tracks(
    ours: GroupedTracks, theirs: GroupedTracks, pairs: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Gives the mean areas of N predictions, ``(N,)``, and the IoUs of the pairs, ``(P,)``.

    All masks are looked at, even those of annotated tracks that nothing is compared with.

    Raises:
        ValueError: see ``measure_masks``.
    """
    areas, ious = np.zeros(len(ours.tracks)), np.zeros(pairs.shape[1])
    alone = np.setdiff1d(np.arange(len(areas)), pairs[0])
    for part in ours.parts(alone):
        areas[part] = ours.tubes(part, is_compared=False).mean_areas()
    for part in ours.parts(np.unique(pairs[0])):
        inside = slice(*np.searchsorted(pairs[0], [part[0], part[-1] + 1]))
        rows, columns = np.searchsorted(part, pairs[0, inside]), pairs[1, inside]
        compared, places = np.unique(columns, return_inverse=True)
        mine, others = ours.tubes(part), theirs.tubes(compared)
        areas[part] = mine.mean_areas()
        ious[inside] = pair_ious(mine, others, rows, places, min_iou=IOU_THRESHOLDS[0])
    for part in theirs.parts(np.setdiff1d(np.arange(len(theirs.tracks)), pairs[1])):
        theirs.tubes(part, is_compared=False)
    return areas, ious


def _parts(tracks: Sequence[Track], places: np.ndarray) -> list[np.ndarray]:
    num_masks = np.cumsum([len(tracks[place].masks) for place in places])
    cuts = np.flatnonzero(np.diff(num_masks // MEASURED_MASKS)) + 1
    return np.split(places, cuts) if len(places) else []
