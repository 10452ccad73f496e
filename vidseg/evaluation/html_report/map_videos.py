"""Videos as label maps, compared segment by segment and made ready for the player.

Shapes: T frames of H x W pixels, G annotated segments, P predicted ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vidseg.evaluation.tracking_metrics import TrackedSequence

from .analysis import confusions
from .frames import FrameReader
from .masks import row_runs, shrunk_places, shrunk_size
from .payload import MAX_SIDE, Limits, Payload, track

__all__ = ["MapVideo", "Segment", "map_video_payload", "values_in"]

Ints = NDArray[np.integer[Any]]


@dataclass(frozen=True)
class Segment:
    """A value of a label map, and what it stands for.

    Args:
        value: 0 or more.
        label: name that is shown.
        class_index: place in ``classNames``; only segments of one class are compared.
        is_crowd: whether any number of predictions may be on it.
    """

    value: int
    label: str
    class_index: int = 0
    is_crowd: bool = False


@dataclass
class MapVideo:
    """A video as label maps.

    Args:
        name: of the video.
        files: names of its frames, for their pictures.
        truth: annotated values; negative ones are void, which takes no part, ``(T, H, W)``.
        found: predicted values, ``(T, H, W)``.
        truth_segments: values that are segments, G of them.
        found_segments: the same of predictions, P of them.
    """

    name: str
    files: Sequence[str]
    truth: Ints
    found: Ints
    truth_segments: Sequence[Segment]
    found_segments: Sequence[Segment]


def values_in(maps: Ints) -> list[int]:
    """Gives the values of label maps that are 0 or more, ascending."""
    seen: set[int] = set()
    for frame in maps:
        counts = np.bincount(np.maximum(frame, -1).ravel() + 1)
        seen.update(np.flatnonzero(counts[1:]).tolist())
    return sorted(seen)


def map_video_payload(video: MapVideo, images: FrameReader, limits: Limits) -> Payload:
    """Gives a video for the player; what happens to its segments is found in all frames.

    Args:
        video: to show.
        images: reads the pictures.
        limits: how many frames are shown.
    """
    length, full_height, full_width = video.truth.shape
    width, height = shrunk_size(full_width, full_height, MAX_SIDE)
    shown = limits.frames_of(length)
    sides = (video.truth_segments, video.found_segments)
    states = confusions(
        _sequence(video),
        truth_classes=[one.class_index for one in sides[0]],
        found_classes=[one.class_index for one in sides[1]],
        is_crowd=[one.is_crowd for one in sides[0]],
    )

    def told(maps: Ints, one: Segment, letters: Sequence[str], **more: Any) -> Payload:
        return track(
            id=one.value,
            class_index=one.class_index,
            label=one.label,
            masks=[_runs(maps[frame] == one.value, width, height) for frame in shown],
            states=letters,
            **more,
        )

    return {
        "id": video.name,
        "name": video.name,
        "width": width,
        "height": height,
        "length": length,
        "frames": [
            {"index": frame, "image": images.read(f"{video.name}/{name}", width, height)}
            for frame, name in zip(shown, (video.files[frame] for frame in shown), strict=True)
        ],
        "truth": [
            told(video.truth, one, letters, crowd=one.is_crowd)
            for one, letters in zip(sides[0], states.truth, strict=True)
        ],
        "predictions": [
            told(video.found, one, letters, score=None, partner=partner)
            for one, letters, partner in zip(sides[1], states.found, states.partners, strict=True)
        ],
    }


def _sequence(video: MapVideo) -> TrackedSequence:
    """Compares the segments of a video frame by frame; void pixels are left out."""
    counts = np.stack(list(_shared_pixels(video)))  # (T, 1 + G, 1 + P)
    shared = counts[:, 1:, 1:]
    rows, columns = counts.sum(2)[:, 1:], counts.sum(1)[:, 1:]
    unions = rows[:, :, None] + columns[:, None] - shared
    return TrackedSequence(shared / np.maximum(unions, 1), rows > 0, columns > 0)


def _shared_pixels(video: MapVideo) -> Iterator[Ints]:
    """Counts for each frame the pixels of each pair of segments, 0 for none of them."""
    sides = (video.truth, video.found), (video.truth_segments, video.found_segments)
    tables = [_table(maps, segments) for maps, segments in zip(*sides, strict=True)]
    num_rows, num_columns = (1 + len(segments) for segments in sides[1])
    for truth, found in zip(video.truth, video.found, strict=True):
        counted = truth >= 0
        rows, columns = tables[0][truth[counted]], tables[1][np.maximum(found[counted], -1)]
        pairs = np.bincount(rows * num_columns + columns, minlength=num_rows * num_columns)
        yield pairs.reshape(num_rows, num_columns)


def _table(maps: Ints, segments: Sequence[Segment]) -> Ints:
    """Gives for every value of the maps the number of its segment, from 1 on; the last is of -1."""
    largest = max([int(maps.max(initial=0)), *(one.value for one in segments)])
    table = np.zeros(largest + 2, dtype=np.int64)
    for number, one in enumerate(segments, 1):
        table[one.value] = number
    return table


def _runs(mask: NDArray[np.bool_], width: int, height: int) -> list[int] | None:
    rows, columns = shrunk_places(mask.shape[0], height), shrunk_places(mask.shape[1], width)
    small = mask[rows][:, columns]
    if not small.any():
        if not mask.any():
            return None
        row, column = np.unravel_index(mask.argmax(), mask.shape)  # one that would vanish
        small[row * height // mask.shape[0], column * width // mask.shape[1]] = True
    return row_runs(small)
