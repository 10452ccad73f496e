"""Reports on files of tracks: YouTube-VIS AP, OVIS, and tracking metrics."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vidseg.evaluation.tracking import HEADLINE, PLAIN, TrackingScores
from vidseg.evaluation.ytvis import ALL_CLASSES, METRICS, YTVISScores

from .payload import (
    CONFUSION_NOTE,
    Limits,
    Payload,
    empty_payload,
    facts,
    figures,
    number,
    ranking,
    table,
)
from .track_videos import TrackVideos

__all__ = ["tracking_report", "ytvis_report"]

MAX_CURVES = 100  # classes with a curve of their own
_COUNTS = ("missed", "switched", "false", "tracks", "predictions")

Source = str | os.PathLike[str]
Floats = NDArray[np.float64]


def ytvis_report(
    gt: Source | Mapping[str, Any],
    results: Source | Sequence[Mapping[str, Any]],
    scores: YTVISScores,
    *,
    images: Source | None = None,
    limits: Limits | None = None,
    class_agnostic: bool = False,
) -> Payload:
    """Gives the payload of a report on AP.

    Videos are ranked by their own AP: that of their classes, with their predictions alone.
    Confusions are counted among the predictions with the score at which F1 is best, or a higher
    one.

    Args:
        gt: what was scored, see ``score_ytvis``.
        results: see there.
        scores: what it gave.
        images: folder that the names of frames are relative to.
        limits: how much the player shows.
        class_agnostic: as it was scored.

    Raises:
        DataError: see ``score_ytvis``.
    """
    least = scores.matched.best_score()
    videos_of = TrackVideos.load(gt, results, class_agnostic=class_agnostic, min_score=least)
    kind = "OVIS" if scores.has_occlusion else "YouTube-VIS"
    payload = empty_payload(f"{kind} AP", "ovis" if scores.has_occlusion else "ytvis")
    payload["facts"] = _facts(gt, results, videos_of)
    summary = scores.summary()
    payload["figures"] = figures(summary, list(summary)[: 9 if scores.has_occlusion else 6])
    payload["tables"] = [table("All metrics", "", {"all classes": summary}, list(summary))]
    payload["classes"] = _classes(scores, videos_of)
    payload["curves"], note = _curves(scores)
    payload["notes"] = [*note, *_score_notes(videos_of, least), CONFUSION_NOTE, *_AP_NOTES]
    rows = {
        video_id: values | videos_of.counts(video_id)
        for video_id, values in scores.per_video().items()
    }
    columns = ("AP", "AP50", "AP75", *_COUNTS)
    payload["ranking"] = ranking(rows, columns, names=videos_of.names, plain=_COUNTS)
    videos_of.show(payload, images, limits or Limits())
    return payload


def tracking_report(
    gt: Source | Mapping[str, Any],
    results: Source | Sequence[Mapping[str, Any]],
    scores: TrackingScores,
    *,
    images: Source | None = None,
    limits: Limits | None = None,
    class_agnostic: bool = False,
    min_score: float = -math.inf,
) -> Payload:
    """Gives the payload of a report on HOTA, CLEAR and Identity; videos are ranked by HOTA.

    Args:
        gt: what was scored, see ``score_tracking``.
        results: see there.
        scores: what it gave.
        images: folder that the names of frames are relative to.
        limits: how much the player shows.
        class_agnostic: as it was scored.
        min_score: as it was scored.

    Raises:
        DataError: see ``score_tracking``.
    """
    videos_of = TrackVideos.load(gt, results, class_agnostic=class_agnostic, min_score=min_score)
    videos_of.forget_crowds()
    payload = empty_payload("Tracking: HOTA, CLEAR and Identity", "tracking")
    payload["facts"] = _facts(gt, results, videos_of)
    if math.isfinite(min_score):
        payload["facts"].insert(2, ["least score", f"{min_score:g}"])
    payload["figures"] = figures(scores.class_averaged, HEADLINE, plain=PLAIN)
    payload["tables"] = [table("All videos", "", scores.means(), HEADLINE, plain=PLAIN)]
    payload["classes"] = {
        "columns": list(HEADLINE),
        "rows": [
            {"name": str(row[0]), "values": row[1:]}
            for row in table("", "", scores.per_class, HEADLINE, plain=PLAIN)["rows"]
        ],
    }
    payload["notes"] = [CONFUSION_NOTE]
    rows = {
        video_id: values | videos_of.counts(video_id)
        for video_id, values in scores.per_video.items()
    }
    columns = ("HOTA", "DetA", "AssA", "MOTA", "IDF1", "IDSW", *_COUNTS)
    plain = (*PLAIN, *_COUNTS)
    payload["ranking"] = ranking(rows, columns, names=videos_of.names, plain=plain)
    videos_of.show(payload, images, limits or Limits())
    return payload


_AP_NOTES = (
    "AP of a video is that of the classes that are annotated in it, with its predictions alone; it"
    " is undefined where nothing is to be found. AP of the set is no mean over videos.",
    "A crowd may be found by any number of predictions, and is never missed.",
)


def _facts(gt: Any, results: Any, videos_of: TrackVideos) -> list[list[str]]:
    files = {"ground truth": gt, "results": results}
    paths = {name: one for name, one in files.items() if isinstance(one, (str, os.PathLike))}
    counts = {
        "videos": len(videos_of.by_video),
        "annotated tracks": len(videos_of.truth.tracks),
        "predicted tracks": videos_of.num_found,
    }
    return facts(paths | counts)


def _score_notes(videos_of: TrackVideos, least: float) -> list[str]:
    if not videos_of.num_weak:
        return []
    return [
        f"Confusions and player look at predictions with a score of {least:.3g} at least, where F1"
        " at tube IoU 0.50 is best (or, if no track is found, where there are as many predictions"
        f" as annotations): {videos_of.num_weak} of {videos_of.num_found} predicted tracks are left"
        " out there. AP counts all."
    ]


def _classes(scores: YTVISScores, videos_of: TrackVideos) -> Payload:
    chosen = [one for one in METRICS if one.name in ("AP", "AP50", "AP75", "AR10")]
    names = list(scores.per_class())
    sides = (videos_of.num_truth_of_class, videos_of.num_found_of_class)
    rows = []
    for index, (name, key) in enumerate(zip(names, scores.category_ids, strict=True)):
        values = [number(100 * scores.value(metric, category=index)) for metric in chosen]
        sums = [sum(side.values()) if videos_of.is_class_agnostic else side[key] for side in sides]
        rows.append({"name": name, "values": [*values, *sums]})
    columns = [*(metric.name for metric in chosen), "tracks", "predictions"]
    return {"columns": columns, "rows": rows}


def _curves(scores: YTVISScores) -> tuple[list[Payload], list[str]]:
    """Gives precision over recall of the set and of the classes that are annotated."""
    arrays = [scores.precision, scores.scores]
    if scores.has_occlusion:
        arrays = [array[..., 0, :] for array in arrays]
    precision, reached = (array[..., 0, -1] for array in arrays)  # (T, R, K)
    defined = np.flatnonzero((precision > -1).all(axis=(0, 1)))
    if not len(defined):
        return [], []
    curves = []
    if scores.category_names != [ALL_CLASSES]:
        for iou, part in _at_thresholds(precision[:, :, defined].mean(axis=2)):
            curves.append(_curve(ALL_CLASSES, iou, part, None))
    names = list(scores.per_class())
    shown = defined[:MAX_CURVES]
    for index in shown:
        levels = [*(reached[place, :, index] for place in (0, 5)), None]
        ours = _at_thresholds(precision[:, :, index])
        for (iou, part), level in zip(ours, levels, strict=True):
            curves.append(_curve(names[index], iou, part, level))
    if len(shown) == len(defined):
        return curves, []
    return curves, [f"Of {len(defined)} classes the first {len(shown)} have curves of their own."]


def _at_thresholds(precision: Floats) -> list[tuple[str, Floats]]:
    """Gives a curve ``(T, R)`` at IoU 0.50, at 0.75, and as the mean over thresholds."""
    return [("0.50", precision[0]), ("0.75", precision[5]), ("0.50:0.95", precision.mean(axis=0))]


def _curve(name: str, iou: str, precision: Floats, scores: Floats | None) -> Payload:
    return {
        "name": name,
        "iou": iou,
        "precision": [number(100 * value) for value in precision],
        # a recall that is never reached has no score
        "scores": scores
        if scores is None
        else [
            number(score) if value > 0 else None
            for score, value in zip(scores, precision, strict=True)
        ],
    }
