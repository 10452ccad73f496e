"""Scores files of video panoptic segmentation in the form of VIPSeg.

A json file tells the segments of every frame, pictures their pixels; see ``score_panoptic``.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vidseg.errors import DataError
from vidseg.files import read_json

from .label_files import read_ids
from .panoptic import (
    WINDOWS,
    Floats,
    Ints,
    PanopticVideo,
    VPQCounts,
    count_stq,
    count_vpq,
    stq,
    vpq,
)
from .ytvis_files import class_names

__all__ = ["HEADLINE", "PanopticFiles", "PanopticScores", "Segments", "score_panoptic"]

HEADLINE = ("VPQ", "VPQ_things", "VPQ_stuff", "STQ", "AQ", "IoU")
"""Metrics that a table shows."""


@dataclass
class PanopticScores:
    """What ``score_panoptic`` found; fractions, nan where undefined.

    Args:
        metrics: VPQ, VPQ_things, VPQ_stuff, each also with the frames of a window behind it
            (``VPQ_things4``), STQ, AQ, IoU.
        per_class: ``VPQ`` and that of every window by the name of the class.
        per_video: ``metrics`` by video.
    """

    metrics: dict[str, float]
    per_class: dict[str, dict[str, float]]
    per_video: dict[str, dict[str, float]]


@dataclass
class Segments:
    """The S segments of a video with T frames, in the order in which they are named first.

    Args:
        files: names of the frames, without their ends.
        ids: of the segments.
        classes: places of their categories in the file, ``(S,)``.
        is_crowd: bool ``(S,)``.
        areas: as the file tells them, 0 if it need not, ``(T, S)``.
        is_listed: in which frames the file names them, bool ``(T, S)``.
    """

    files: list[str]
    ids: list[int]
    classes: Ints
    is_crowd: np.ndarray
    areas: Ints
    is_listed: np.ndarray


class PanopticFiles:
    """Annotated and predicted segments of some videos, whose pictures are read when asked for.

    Args:
        gt: see ``score_panoptic``, as for the other arguments.
        results: see there.
        gt_masks: see there.
        result_masks: see there.

    Attributes:
        class_names: of the categories, in the order of the file.
        is_thing: whether they are countable.
        truth: annotated segments by video.

    Raises:
        DataError: if a json file is missing or broken.
    """

    def __init__(
        self,
        gt: str | os.PathLike[str],
        results: str | os.PathLike[str],
        *,
        gt_masks: str | os.PathLike[str] | None = None,
        result_masks: str | os.PathLike[str] | None = None,
    ) -> None:
        self._truth_path, self._found_path = Path(gt), Path(results)
        truth = _read(self._truth_path, "ground truth")
        categories = _categories(truth, self._truth_path)
        self.class_names = list(class_names(categories).values())
        self.is_thing = [one["isthing"] for one in categories.values()]
        places = {key: place for place, key in enumerate(categories)}
        self.truth = _videos(truth, self._truth_path, places, area=True)
        found = _read(self._found_path, "results")
        self._found = _videos(found, self._found_path, places, area=False)
        self._folders = (
            Path(gt_masks) if gt_masks else self._truth_path.parent / "panomasksRGB",
            Path(result_masks) if result_masks else self._found_path.parent / "pan_pred",
        )

    def found(self, name: str) -> Segments:
        """Gives the predicted segments of a video.

        Raises:
            DataError: if there is none of that name.
        """
        if name not in self._found:
            raise DataError(f"{self._found_path} has no video {name}, which {self._truth_path} has")
        return self._found[name]

    def maps(self, name: str) -> Iterator[tuple[Ints, Ints]]:
        """Reads the frames of a video.

        Yields:
            annotated and predicted segment of each pixel, numbered from 1 on in the order of
            ``Segments``, 0 void, int64 ``(H, W)`` each.

        Raises:
            DataError: if a picture is missing or broken, or says another thing than the json file.
        """
        truth, found = self.truth[name], self.found(name)
        missing = [file for file in truth.files if file not in found.files]
        if missing:
            raise DataError(f"{self._found_path}: video {name} has no frame {missing[0]}")
        for file in truth.files:
            paths = [folder / name / f"{file}.png" for folder in self._folders]
            pictures = [read_ids(path) for path in paths]
            if pictures[0].shape != pictures[1].shape:
                sizes = [f"{one.shape[1]}x{one.shape[0]}" for one in pictures]
                raise DataError(f"{paths[1]} is {sizes[1]} pixels, its annotation {sizes[0]}")
            rows, columns = (
                _places(ids, segments, segments.files.index(file), path)
                for ids, segments, path in zip(pictures, (truth, found), paths, strict=True)
            )
            yield rows, columns


def score_panoptic(
    gt: str | os.PathLike[str],
    results: str | os.PathLike[str],
    *,
    gt_masks: str | os.PathLike[str] | None = None,
    result_masks: str | os.PathLike[str] | None = None,
    strict: bool = False,
) -> PanopticScores:
    """Scores predicted segments against annotated ones by VPQ and STQ.

    Args:
        gt: json file ``{"categories": [{id, name, isthing}], "annotations": [{video_id,
            "annotations": [{file_name, "segments_info": [{id, category_id, iscrowd, area}]}]}]}``.
        results: json file with ``annotations`` of that form (``area`` and ``iscrowd`` unread).
        gt_masks: folder of ``VIDEO/FRAME.png``, ids as R + 256 G + 65536 B, 0 void; ids last for
            the video. By default ``panomasksRGB`` beside ``gt``.
        result_masks: the same of the predictions; by default ``pan_pred`` beside ``results``.
        strict: see ``count_stq``.

    Raises:
        DataError: if a file is missing or broken, a video or frame has no prediction, or json and
            pictures disagree.
    """
    files = PanopticFiles(gt, results, gt_masks=gt_masks, result_masks=result_masks)
    is_thing, names = files.is_thing, files.class_names
    windows, tubes = [], []
    for name in files.truth:
        one = _compare(files, name)
        windows.append([count_vpq(one, length, len(names)) for length in WINDOWS])
        tubes.append(count_stq(one, is_thing, strict=strict))
    if not windows:
        raise DataError(f"{gt} has no videos")
    curves = _curves(windows)
    columns = [f"VPQ{length}" for length in WINDOWS]
    return PanopticScores(
        _metrics(curves, is_thing) | stq(sum(tubes[1:], tubes[0])),
        {
            name: {"VPQ": _mean(curve)} | dict(zip(columns, curve.tolist(), strict=True))
            for name, curve in zip(names, curves.T, strict=True)
        },
        {
            name: _metrics(_curves([window]), is_thing) | stq(tube)
            for name, window, tube in zip(files.truth, windows, tubes, strict=True)
        },
    )


def _curves(videos: Sequence[Sequence[VPQCounts]]) -> Floats:
    """Gives VPQ for every window and class, ``(len(WINDOWS), C)``."""
    return np.stack([vpq(sum(counts, first)) for first, *counts in zip(*videos, strict=True)])


def _metrics(curves: Floats, is_thing: Sequence[bool]) -> dict[str, float]:
    thing = np.asarray(is_thing, bool)
    metrics: dict[str, float] = {}
    for name, chosen in (("VPQ", thing | True), ("VPQ_things", thing), ("VPQ_stuff", ~thing)):
        values = [_mean(curve[chosen]) for curve in curves]
        # a window that is longer than all videos says nothing
        metrics[name] = _mean(np.array(values))
        metrics |= {f"{name}{n}": value for n, value in zip(WINDOWS, values, strict=True)}
    return metrics


def _mean(values: Floats) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else math.nan


def _compare(files: PanopticFiles, name: str) -> PanopticVideo:
    """Reads the pictures of a video and counts their pixels."""
    truth, found = files.truth[name], files.found(name)
    tables = []
    for rows, columns in files.maps(name):
        width = 1 + len(found.ids)
        counts = np.bincount(
            (rows * width + columns).ravel(), minlength=(1 + len(truth.ids)) * width
        )
        tables.append(counts.reshape(-1, width))
    return PanopticVideo(
        np.stack(tables), truth.classes, found.classes, truth.is_crowd, truth.areas, truth.is_listed
    )


def _places(ids: Ints, tubes: Segments, frame: int, path: Path) -> Ints:
    """Numbers the segments of a picture in the order of the json file, from 1 on; 0 is void."""
    values, inverse = np.unique(ids, return_inverse=True)
    table = {0: 0} | {tubes.ids[row]: row + 1 for row in np.flatnonzero(tubes.is_listed[frame])}
    strange = [value for value in values.tolist() if value not in table]
    if strange:
        raise DataError(
            f"{path} has a segment {strange[0]} that the json file does not name in this frame"
        )
    return np.array([table[value] for value in values.tolist()])[inverse].reshape(ids.shape)


def _read(path: Path, what: str) -> Mapping[str, Any]:
    content = read_json(path, what=f"{what} file")
    if not isinstance(content, Mapping) or not isinstance(content.get("annotations"), list):
        raise DataError(f"{path} is not a video panoptic file: it has no list 'annotations'")
    return content


def _categories(truth: Mapping[str, Any], path: Path) -> dict[Any, Mapping[str, Any]]:
    try:
        return {one["id"]: one | {"isthing": bool(one["isthing"])} for one in truth["categories"]}
    except (KeyError, TypeError):
        raise DataError(
            f"{path} needs a list 'categories' with 'id', 'name' and 'isthing' of each"
        ) from None


def _videos(
    content: Mapping[str, Any], path: Path, places: Mapping[Any, int], *, area: bool
) -> dict[str, Segments]:
    videos = {}
    for index, video in enumerate(content["annotations"]):
        where = f"{path}: annotations[{index}]"
        try:
            name = str(video["video_id"])
            if name in videos:
                raise DataError(f"{where} is video {name} once more; each video has one entry")
            videos[name] = _tubes(video["annotations"], places, where, area=area)
        except KeyError as error:
            raise DataError(f"{where} lacks the key {error}") from None
        except (TypeError, AttributeError, ValueError):
            raise DataError(
                f"{where} is not a video: expected video_id and annotations with file_name and "
                "segments_info"
            ) from None
    return videos


def _tubes(frames: Sequence[Any], places: Mapping[Any, int], where: str, *, area: bool) -> Segments:
    first: dict[int, Mapping[str, Any]] = {}
    for frame in frames:
        for segment in frame["segments_info"]:
            known = first.setdefault(segment["id"], segment)
            if int(segment["id"]) <= 0:
                raise DataError(
                    f"{where}, frame {frame['file_name']}: a segment has id {segment['id']}; ids "
                    "begin with 1, as 0 is void"
                )
            if segment["category_id"] not in places:
                raise DataError(
                    f"{where}, frame {frame['file_name']}: segment {segment['id']} has category_id "
                    f"{segment['category_id']!r}, which is not among the categories"
                )
            if segment["category_id"] != known["category_id"]:
                raise DataError(
                    f"{where}: segment {segment['id']} is of category {known['category_id']} first "
                    f"and {segment['category_id']} in {frame['file_name']}; a new object needs a "
                    "new id"
                )
    rows = {key: row for row, key in enumerate(first)}
    areas = np.zeros((len(frames), len(rows)), np.int64)
    is_listed = np.zeros(areas.shape, bool)
    for number, frame in enumerate(frames):
        for segment in frame["segments_info"]:
            areas[number, rows[segment["id"]]] = segment["area"] if area else 0
            is_listed[number, rows[segment["id"]]] = True
    return Segments(
        [Path(frame["file_name"]).stem for frame in frames],
        [int(key) for key in first],
        np.array([places[one["category_id"]] for one in first.values()], np.int64),
        np.array([bool(one.get("iscrowd", 0)) for one in first.values()], bool),
        areas,
        is_listed,
    )
