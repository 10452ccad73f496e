"""Reading of YouTube-VIS / OVIS ground truth and results for scoring.

Inputs are paths or loaded json; they are never modified. What is wrong in them is told in one
sentence that names the file and the entry.
"""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import repeat
from numbers import Real
from operator import contains
from pathlib import Path
from typing import Any

from vidseg import rle as rle_ops
from vidseg.errors import DataError
from vidseg.files import read_json
from vidseg.rle import RLE

__all__ = ["GroundTruth", "Track", "class_names", "load_ground_truth", "load_results"]

OCCLUSION_LEVELS = {"no_occlusion": 0.0, "slight_occlusion": 0.25, "severe_occlusion": 0.75}


@dataclass(slots=True)
class Track:
    """One object through one video, predicted or annotated.

    Args:
        video_id: its video.
        category_id: its class, as numbered in the data set.
        masks: per frame an RLE, ``None`` where absent.
        score: confidence (predictions).
        area: mean area in pixels over the frames where it is visible (ground truth; the stored
            areas count, not those of the masks).
        is_crowd: whether it stands for a group that any number of predictions may hit.
        occlusion: OVIS occlusion score in [0, 1].
        has_occlusion: whether any frame says how occluded the track is.
        id: annotation id; of a prediction, its place in the file.
        where: file and place in it, for messages.
    """

    video_id: Any
    category_id: Any
    masks: list[RLE | None]
    score: float = 0.0
    area: float = 0.0
    is_crowd: bool = False
    occlusion: float = 0.0
    has_occlusion: bool = False
    id: Any = None
    where: str = ""


@dataclass
class GroundTruth:
    """Annotated tracks of a data set.

    Args:
        name: the file, for messages.
        video_ids: ascending.
        category_ids: ascending.
        category_names: name by category id; no two are the same.
        tracks: all annotated tracks, in file order.
        video_lengths: number of frames by video id, where the file tells it.
        videos: what the file says of each video, by id.
    """

    name: str
    video_ids: list[Any]
    category_ids: list[Any]
    category_names: dict[Any, str]
    tracks: list[Track] = field(default_factory=list)
    video_lengths: dict[Any, int] = field(default_factory=dict)
    videos: dict[Any, Mapping[str, Any]] = field(default_factory=dict)


def load_ground_truth(
    source: str | os.PathLike[str] | Mapping[str, Any], *, occlusion: bool = False
) -> GroundTruth:
    """Reads annotations in YouTube-VIS form.

    Args:
        source: path of a json file, or its loaded content.
        occlusion: whether to read the occlusion levels of OVIS.

    Raises:
        DataError: if the file is missing or broken, or has no annotations.
    """
    content, name = _read(source, "ground truth")
    if not isinstance(content, Mapping):
        raise DataError(f"{name} is not a YouTube-VIS file: its top level must be an object")
    for key in ("videos", "categories"):
        if not isinstance(content.get(key), list):
            raise DataError(f"{name} is not a YouTube-VIS file: it has no list {key!r}")
    videos = _by_id(content["videos"], "video", name)
    categories = _by_id(content["categories"], "category", name)
    if not categories:
        raise DataError(f"{name} has no categories, so no track counts; list at least one")
    if content.get("annotations") is None:
        raise DataError(
            f"{name} has no annotations, so there is nothing to score against; "
            "send results.json of this split to its evaluation server"
        )
    if not isinstance(content["annotations"], list):
        raise DataError(f"{name}: 'annotations' must be a list")
    tracks = [
        _read_annotation(annotation, videos, f"{name}: annotation {index}", occlusion)
        for index, annotation in enumerate(content["annotations"])
    ]
    names = class_names(categories)
    lengths = {key: _length(video) for key, video in videos.items()}
    known = {key: length for key, length in lengths.items() if length is not None}
    return GroundTruth(name, sorted(videos), sorted(categories), names, tracks, known, videos)


def load_results(
    source: str | os.PathLike[str] | Sequence[Mapping[str, Any]], truth: GroundTruth
) -> list[Track]:
    """Reads predicted tracks; those of unknown categories are left out, as the official code does.

    Args:
        source: path of a results file, or its loaded content.
        truth: the annotations that they will be compared with.

    Raises:
        DataError: if the file is missing or broken, or names a video that the ground truth lacks.
    """
    content, name = _read(source, "results")
    if not isinstance(content, Sequence) or isinstance(content, str):
        raise DataError(f"{name} is not a results file: its top level must be a list of tracks")
    videos, categories = set(truth.video_ids), set(truth.category_ids)
    tracks = []
    for index, record in enumerate(content):
        try:
            video_id, category_id = record["video_id"], record["category_id"]
            score, segmentations = record["score"], record["segmentations"]
            is_known = category_id in categories
            if video_id not in videos:
                raise DataError(
                    f"{name}: entry {index} has video_id {video_id!r}, which is not in "
                    f"{truth.name}; do the files belong to the same split?"
                )
        except KeyError as error:
            raise DataError(f"{name}: entry {index} lacks the key {error}") from None
        except TypeError:
            raise DataError(f"{name}: entry {index} is not a track: {_short(record)}") from None
        if not is_known:
            continue
        where = f"{name}: entry {index}"
        track = Track(video_id, category_id, _predicted_masks(segmentations, where), where=where)
        track.score, track.id = _score(score, where), index
        tracks.append(track)
    return tracks


def class_names(categories: Mapping[Any, Mapping[str, Any]]) -> dict[Any, str]:
    """Gives names by id, from the records of categories; the id tells those of one name apart."""
    names = {key: str(category.get("name", key)) for key, category in categories.items()}
    number = Counter(names.values())
    return {key: name if number[name] == 1 else f"{name} ({key})" for key, name in names.items()}


def _read(source: Any, what: str) -> tuple[Any, str]:
    if not isinstance(source, (str, os.PathLike)):
        return source, f"the {what}"
    path = Path(source)
    return read_json(path, what=f"{what} file"), str(path)


def _by_id(records: Iterable[Any], kind: str, name: str) -> dict[Any, Mapping[str, Any]]:
    found: dict[Any, Mapping[str, Any]] = {}
    for index, record in enumerate(records):
        if not isinstance(record, Mapping) or type(record.get("id")) is not int:
            raise DataError(f"{name}: {kind} {index} has no integer 'id'")
        found[record["id"]] = record
    return found


def _length(video: Mapping[str, Any]) -> int | None:
    files = video.get("file_names")
    length = video.get("length", len(files) if isinstance(files, list) else None)
    return length if type(length) is int else None


def _read_annotation(
    annotation: Any, videos: Mapping[Any, Mapping[str, Any]], where: str, occlusion: bool
) -> Track:
    try:
        video = videos.get(annotation["video_id"])
        if video is None:
            raise DataError(
                f"{where} belongs to video {annotation['video_id']!r}, which is not "
                "among the videos"
            )
        category_id, areas = annotation["category_id"], annotation["areas"]
        hash(category_id)  # or it is none
        height, width = video["height"], video["width"]
        segmentations = annotation["segmentations"] or ()
        masks = (
            list(segmentations)
            if _are_compressed(segmentations)
            else [
                _mask(segmentation, height, width, f"{where}, frame {frame}")
                for frame, segmentation in enumerate(segmentations)
            ]
        )
        # OVIS files without the levels are refused rather than scored as unoccluded
        levels = annotation["occlusion"] if occlusion else ()
    except KeyError as error:
        raise DataError(f"{where} lacks the key {error}") from None
    except (TypeError, AttributeError):
        raise DataError(f"{where} is not a track: {_short(annotation)}") from None
    return Track(
        video_id=annotation["video_id"],
        category_id=category_id,
        masks=masks,
        area=_mean_area(areas, where),
        is_crowd=bool(annotation.get("iscrowd", 0)),
        occlusion=_occlusion_score(levels, where),
        has_occlusion=any(levels or ()),
        id=annotation.get("id"),
        where=where,
    )


def _are_compressed(masks: Any) -> bool:
    """Whether all masks are absent or compressed RLE with text, which is read without a copy."""
    present = [mask for mask in masks if mask is not None]
    return (
        set(map(type, present)) <= {dict}
        and all(map(contains, present, repeat("size")))
        and set(map(type, map(dict.get, present, repeat("counts")))) <= {str}
    )


def _mask(segmentation: Any, height: int, width: int, where: str) -> RLE | None:
    if segmentation is not None and _are_compressed([segmentation]):
        return segmentation
    try:
        return rle_ops.from_segmentation(segmentation, height, width)
    except (ValueError, TypeError) as error:
        raise DataError(f"{where}: {error}") from None


def _predicted_masks(segmentations: Any, where: str) -> list[RLE | None]:
    if not isinstance(segmentations, list):
        raise DataError(f"{where}: 'segmentations' must be a list with one RLE or null per frame")
    if _are_compressed(segmentations):
        return segmentations
    masks: list[RLE | None] = []
    for frame, mask in enumerate(segmentations):
        if mask is not None and not (type(mask) is dict and "counts" in mask and "size" in mask):
            raise DataError(
                f"{where}, frame {frame}: a predicted mask must be RLE with 'size' and 'counts', "
                f"or null, not {_short(mask)}"
            )
        masks.append(
            mask
            if mask is None or type(mask["counts"]) is str
            else _mask(mask, 0, 0, f"{where}, frame {frame}")
        )
    return masks


def _score(score: Any, where: str) -> float:
    try:
        number = float(score) if isinstance(score, Real) and type(score) is not bool else math.nan
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise DataError(f"{where} has score {_short(score)}, expected a finite number")
    return number


def _mean_area(areas: Any, where: str) -> float:
    try:
        visible = [area for area in areas if area]
        return sum(visible) / len(visible) if visible else 0.0
    except TypeError:
        raise DataError(
            f"{where}: 'areas' must be a list with a number or null per frame"
        ) from None


def _occlusion_score(levels: Any, where: str) -> float:
    """Averages the most occluded half of the annotated frames."""
    unknown = [level for level in levels or () if level and level not in OCCLUSION_LEVELS]
    if unknown:
        known = ", ".join(OCCLUSION_LEVELS)
        raise DataError(f"{where} has occlusion {_short(unknown[0])}; known levels: {known}")
    values = sorted((OCCLUSION_LEVELS[level] for level in levels or () if level), reverse=True)
    if not values:
        return 0.0
    half = values[: math.ceil(len(values) / 2)]
    return sum(half) / len(half)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
