"""Scores tracks in YouTube-VIS form as segments: by J&F, whatever their classes.

Shapes: T frames of H x W pixels.
"""

from __future__ import annotations

import math
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vidseg import rle as rle_ops
from vidseg.errors import DataError
from vidseg.rle import RLE

from .discovery import Share, mean_shares
from .region_boundary import region_boundary_shares
from .ytvis_files import GroundTruth, load_ground_truth, load_results
from .ytvis_groups import check_masks

__all__ = ["MAX_TRACKS", "region_boundary_of_tracks", "score_tracks_as_segments"]

MAX_TRACKS = 20
"""How many tracks of a video the unsupervised task of DAVIS allows."""

_VOID = -1

Labels = NDArray[np.int32]
Masks = Sequence[RLE | None]
Figures = dict[str, float]


def score_tracks_as_segments(
    gt: str | os.PathLike[str] | Mapping[str, Any],
    results: str | os.PathLike[str] | Sequence[Mapping[str, Any]],
    *,
    min_score: float = -math.inf,
    max_tracks: int = MAX_TRACKS,
    strict: bool = False,
) -> tuple[Figures, dict[Any, Figures]]:
    """Scores predicted tracks by J&F, see ``region_boundary_of_tracks``.

    Args:
        gt: annotations in YouTube-VIS form, a path or loaded json; never modified.
        results: list of ``{video_id, category_id, score, segmentations}``, a path or loaded json;
            those of unknown categories are left out.
        min_score: see there, as for the other arguments.
        max_tracks: see there.
        strict: see there.

    Returns:
        As ``score_region_boundary``, by video id.

    Raises:
        DataError: see there; if a file is missing or broken, or no video has an object.
    """
    truth = load_ground_truth(gt)
    by_video: dict[Any, list[tuple[float, Masks]]] = defaultdict(list)
    found = load_results(results, truth)
    try:
        check_masks(found)
    except ValueError as error:
        raise DataError(str(error)) from None
    for track in found:
        by_video[track.video_id].append((track.score, track.masks))
    shares = region_boundary_of_tracks(
        truth,
        lambda video_id: by_video.get(video_id, ()),
        "the results" if not isinstance(results, (str, os.PathLike)) else str(results),
        min_score=min_score,
        max_tracks=max_tracks,
        strict=strict,
    )
    if not any(share["J&F"][1] for share in shares.values()):
        raise DataError(f"no video of {truth.name} has an object, so nothing can be scored")
    return mean_shares(shares.values()), {key: mean_shares([one]) for key, one in shares.items()}


def region_boundary_of_tracks(
    truth: GroundTruth,
    tracks_of: Callable[[Any], Iterable[tuple[float, Masks]]],
    source: str,
    *,
    min_score: float,
    max_tracks: int,
    strict: bool = False,
) -> dict[Any, dict[str, Share]]:
    """Scores the best tracks of each video by J&F, matched to its objects.

    Tracks become a label map: where they overlap, a pixel belongs to the one with the highest
    score. Where annotated objects overlap, the later one is in front; crowds are void.

    Args:
        truth: annotations.
        tracks_of: gives score and masks of the tracks of a video, by its id.
        source: where these come from, for messages.
        min_score: tracks with a lower score are left out.
        max_tracks: of a video, at most.
        strict: see ``region_boundary_shares``.

    Returns:
        By video id, as ``region_boundary_shares``.

    Raises:
        DataError: if a mask of the annotations is damaged, or one has another size than its video
            or comes after its end.
    """
    try:
        check_masks(truth.tracks)
    except ValueError as error:
        raise DataError(str(error)) from None
    objects = defaultdict(list)
    for track in truth.tracks:
        objects[track.video_id].append(track)
    shares = {}
    for video_id in truth.video_ids:
        annotated = objects[video_id]
        numbers = [_VOID if one.is_crowd else k + 1 for k, one in enumerate(annotated)]
        shown = [track for track in tracks_of(video_id) if track[0] >= min_score]
        best = sorted(shown, key=lambda track: -track[0])[:max_tracks][::-1]
        sides = (
            (truth.name, [one.masks for one in annotated], numbers),
            (source, [masks for _, masks in best], range(1, len(best) + 1)),
        )
        maps = []
        for name, masks, labels in sides:
            try:
                maps.append(_label_map(masks, labels, truth.videos[video_id]))
            except ValueError as error:
                raise DataError(f"{name}, video {video_id!r}: {error}") from None
        shares[video_id] = region_boundary_shares(*maps, background=0, strict=strict)
    return shares


def _label_map(tracks: Sequence[Masks], numbers: Iterable[int], video: Mapping[str, Any]) -> Labels:
    """Paints tracks one over the other, int32 ``(T, H, W)``; 0 where there is none.

    Raises:
        ValueError: if a mask has another size than the video, or comes after its end.
    """
    size, length = _extent(video)
    labels: Labels = np.zeros((length, *size), dtype=np.int32)
    for number, masks in zip(numbers, tracks, strict=True):
        if len(masks) > length:
            raise ValueError(f"a track has {len(masks)} masks, the video {length} frames")
        for frame, mask in enumerate(masks):
            if mask is None:
                continue
            if tuple(mask["size"]) != size:
                raise ValueError(f"a mask has size {list(mask['size'])}, the video {list(size)}")
            labels[frame][rle_ops.decode(mask)] = number
    return labels


def _extent(video: Mapping[str, Any]) -> tuple[tuple[int, int], int]:
    """Gives ``(H, W)`` and the number of frames of a video."""
    sides = [video.get(key) for key in ("height", "width")]
    length = video.get("length", len(video.get("file_names") or ()))
    if not all(type(number) is int and number >= 0 for number in (*sides, length)):
        raise ValueError(f"it has height, width and length {(*sides, length)}, expected integers")
    return (sides[0], sides[1]), length  # type: ignore[return-value]
