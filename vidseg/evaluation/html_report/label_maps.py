"""Reports on label maps: classes of pixels, panoptic segments, objects, slots."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from vidseg.evaluation import panoptic_files, segment_files, semantic
from vidseg.evaluation.label_files import frame_names, label_videos
from vidseg.evaluation.panoptic import WINDOWS

from .frames import FrameReader
from .map_videos import MapVideo, Segment, map_video_payload, values_in
from .payload import (
    CONFUSION_NOTE,
    Limits,
    Payload,
    empty_payload,
    facts,
    figures,
    ranking,
    table,
    videos,
)

__all__ = ["davis_report", "discovery_report", "vps_report", "vss_report"]

Source = str | os.PathLike[str]
Figures = Mapping[str, float]

_VOID = 255  # in annotations of objects and classes
_VOID_NOTE = "Void pixels take no part; what lies on them alone counts as absent."


def vss_report(
    gt: Source,
    results: Source,
    scores: semantic.SemanticScores,
    *,
    images: Source | None = None,
    limits: Limits | None = None,
) -> Payload:
    """Gives the payload of a report on classes of pixels; videos are ranked by mIoU.

    Args:
        gt: what was scored, see ``score_semantic``.
        results: see there.
        scores: what it gave.
        images: folder of ``VIDEO/FRAME.jpg``, or png.
        limits: how much the player shows.

    Raises:
        DataError: see there.
    """
    payload = _begin("Video semantic segmentation", "vss", gt, results, scores.per_video)
    _tell(payload, scores.metrics, scores.per_video, semantic.HEADLINE)
    ious = {f"class {k}": {"IoU": iou} for k, iou in enumerate(scores.iou.tolist())}
    payload["classNames"] = list(ious)
    payload["classes"] = _classes({name: iou for name, iou in ious.items() if iou["IoU"] >= 0})

    def read(name: str) -> MapVideo:
        _, labels, found = next(label_videos(gt, results, names=[name]))
        truth = np.where((labels == 0) | (labels == _VOID), -1, labels - 1)
        sides = [
            [Segment(value, f"class {value}", value) for value in values_in(maps)]
            for maps in (truth, found)
        ]
        return MapVideo(name, frame_names(gt, name), truth, found, *sides)

    return _finish(payload, read, images, limits)


def vps_report(
    gt: Source,
    results: Source,
    scores: panoptic_files.PanopticScores,
    *,
    gt_masks: Source | None = None,
    result_masks: Source | None = None,
    images: Source | None = None,
    limits: Limits | None = None,
) -> Payload:
    """Gives the payload of a report on panoptic segments; videos are ranked by VPQ.

    Args:
        gt: what was scored, see ``score_panoptic``.
        results: see there.
        scores: what it gave.
        gt_masks: see there.
        result_masks: see there.
        images: folder of ``VIDEO/FRAME.jpg``, or png.
        limits: how much the player shows.

    Raises:
        DataError: see there.
    """
    files = panoptic_files.PanopticFiles(gt, results, gt_masks=gt_masks, result_masks=result_masks)
    payload = _begin("Video panoptic segmentation", "vps", gt, results, scores.per_video)
    _tell(payload, scores.metrics, scores.per_video, panoptic_files.HEADLINE)
    columns = ["VPQ", *(f"VPQ{length}" for length in WINDOWS)]
    sets = {
        name: {column: scores.metrics[column.replace("VPQ", key)] for column in columns}
        for name, key in (("all", "VPQ"), ("things", "VPQ_things"), ("stuff", "VPQ_stuff"))
    }
    payload["tables"].append(table("VPQ by frames of a window", "classes", sets, columns))
    payload["classes"] = _classes(scores.per_class)
    payload["classNames"] = files.class_names

    def segments(one: panoptic_files.Segments) -> list[Segment]:
        told = zip(one.classes.tolist(), one.is_crowd.tolist(), strict=True)
        return [
            Segment(number, files.class_names[kind], kind, crowd)
            for number, (kind, crowd) in enumerate(told, 1)
        ]

    def read(name: str) -> MapVideo:
        frames = [[one.astype(np.int32) for one in pair] for pair in files.maps(name)]
        truth, found = (np.stack(maps) for maps in zip(*frames, strict=True))
        truth[truth == 0] = -1
        of_truth = files.truth[name]
        sides = (segments(of_truth), segments(files.found(name)))
        return MapVideo(name, of_truth.files, truth, found, *sides)

    return _finish(payload, read, images, limits)


def davis_report(
    gt: Source,
    results: Source,
    metrics: Figures,
    per_video: Mapping[str, Figures],
    *,
    task: str = segment_files.TASKS[0],
    images: Source | None = None,
    limits: Limits | None = None,
) -> Payload:
    """Gives the payload of a report on segments of objects; videos are ranked by J&F.

    Args:
        gt: what was scored, see ``score_region_boundary``.
        results: see there.
        metrics: what it gave.
        per_video: what it gave.
        task: as it was scored: in the semi-supervised one, only equal numbers meet.
        images: folder of ``VIDEO/FRAME.jpg``, or png.
        limits: how much the player shows.

    Raises:
        DataError: see there.
    """
    payload = _begin(f"DAVIS, {task}", "davis", gt, results, per_video)
    is_named = task != segment_files.TASKS[0]
    kind = (lambda value: f"object {value}") if is_named else (lambda _: "object")
    return _objects(payload, gt, results, metrics, per_video, kind, 1, images, limits)


def discovery_report(
    gt: Source,
    results: Source,
    metrics: Figures,
    per_video: Mapping[str, Figures],
    *,
    images: Source | None = None,
    limits: Limits | None = None,
) -> Payload:
    """Gives the payload of a report on slots; videos are ranked by the first figure.

    Args:
        gt: what was scored, see ``score_discovery``.
        results: see there.
        metrics: what it gave.
        per_video: what it gave.
        images: folder of ``VIDEO/FRAME.jpg``, or png.
        limits: how much the player shows.

    Raises:
        DataError: see there.
    """
    payload = _begin("Object discovery", "discovery", gt, results, per_video)
    payload["notes"].append(
        "Every pixel belongs to a slot, so that slots of the background are false in the player;"
        " the figures do not mind them."
    )
    return _objects(payload, gt, results, metrics, per_video, lambda _: "object", 0, images, limits)


def _objects(
    payload: Payload,
    gt: Source,
    results: Source,
    metrics: Figures,
    per_video: Mapping[str, Figures],
    kind: Callable[[int], str],
    first: int,
    images: Source | None,
    limits: Limits | None,
) -> Payload:
    """Fills a report on values that stand for segments.

    Args:
        payload: to fill.
        gt: folder of annotations.
        results: folder of predictions.
        metrics: of the set.
        per_video: metrics by video.
        kind: gives the class of a value.
        first: lowest value of a prediction that is a segment.
        images: see the functions above.
        limits: see there.
    """
    _tell(payload, metrics, per_video, list(metrics), plain=segment_files.PLAIN)
    places: dict[str, int] = {}

    def segments(values: Sequence[int], word: str) -> list[Segment]:
        return [
            Segment(value, f"{word} {value}", places.setdefault(kind(value), len(places)))
            for value in values
        ]

    def read(name: str) -> MapVideo:
        _, labels, found = next(label_videos(gt, results, names=[name]))
        truth = np.where(labels == _VOID, -1, labels)
        objects = [value for value in values_in(truth) if value > 0]
        predicted = [value for value in values_in(found) if value >= first]
        sides = (segments(objects, "object"), segments(predicted, "segment" if first else "slot"))
        return MapVideo(name, frame_names(gt, name), truth, found, *sides)

    _finish(payload, read, images, limits)
    payload["classNames"] = list(places)
    return payload


def _begin(
    title: str, metric: str, gt: Source, results: Source, per_video: Mapping[str, Figures]
) -> Payload:
    payload = empty_payload(title, metric)
    payload["facts"] = facts({"ground truth": gt, "results": results, "videos": len(per_video)})
    return payload


def _tell(
    payload: Payload,
    metrics: Figures,
    per_video: Mapping[str, Figures],
    columns: Sequence[str],
    *,
    plain: Sequence[str] = (),
) -> None:
    payload["figures"] = figures(metrics, columns, plain=plain)
    payload["tables"] = [table("All videos", "", {"all videos": metrics}, columns, plain=plain)]
    payload["ranking"] = ranking(per_video, columns, plain=plain)


def _classes(rows: Mapping[str, Figures]) -> Payload | None:
    if not rows:
        return None
    columns = list(next(iter(rows.values())))
    lines = table("", "", rows, columns)["rows"]
    return {"columns": columns, "rows": [{"name": row[0], "values": row[1:]} for row in lines]}


def _finish(
    payload: Payload,
    read: Callable[[str], MapVideo],
    images: Source | None,
    limits: Limits | None,
) -> Payload:
    """Adds the videos and the last notes."""
    limits = limits or Limits()
    reader = FrameReader(images)
    payload["notes"] += [CONFUSION_NOTE, _VOID_NOTE]
    videos(payload, lambda name: map_video_payload(read(name), reader, limits), limits)
    payload["notes"] += reader.finish()
    return payload
