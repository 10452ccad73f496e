"""What the evaluator keeps of a clip, as json, and the tokens of a whole split side by side.

Shapes: N tokens, M objects, T frames, Q queries.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .attention_metrics import AttentionSums
from .metrics import PERSISTENT, TRANSIENT
from .query_metrics import QuerySums, count_queries
from .trackers import ColourPseudoTracker, persistence_from_tracks, presence_of_tracks

if TYPE_CHECKING:
    from .prediction import TokenPrediction

__all__ = ["SplitResults", "align", "describe_clip", "has_both_classes"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_MEASURED = 7  # mean red, green and blue, radius, response, y, x


def align(sample: Mapping[str, Any], prediction: TokenPrediction) -> dict[str, Any]:
    """Gives the sample with the labels of the predicted tokens, in their order.

    Samples without labels get -1, "belongs to no object", for every token.
    """
    unknown = torch.full((len(prediction.logits),), -1)
    found = {}
    for name in ("labels", "object_ids"):
        values = sample.get(name)
        found[name] = unknown if values is None else torch.as_tensor(values)[prediction.kept]
    return {**sample, **found, "objects": sample.get("objects") or {}}


def has_both_classes(labels: Tensor) -> bool:
    """Tells whether there are tokens of persistent and of transient objects."""
    return bool((labels == PERSISTENT).any() and (labels == TRANSIENT).any())


def describe_clip(
    sample: Mapping[str, Any], prediction: TokenPrediction, *, min_presence: float
) -> dict[str, Any]:
    """Gives what is kept of a clip, as plain json.

    Args:
        sample: aligned with the prediction.
        prediction: of that clip.
        min_presence: share of the frames from which on a track counts as persistent.
    """
    found, objects = prediction.detections, sample["objects"]
    labels, object_ids = sample["labels"], sample["object_ids"]
    num_frames = found.num_frames
    by_colour = ColourPseudoTracker().track(found).tracks
    strength = torch.stack([found.radius, found.response], 1)
    measured = torch.cat([found.color, strength, found.centers], 1)  # (N, 7)
    pairs = (object_ids * num_frames + found.frame)[object_ids >= 0]
    result = {
        "num_frames": num_frames,
        "num_visible": int(sample.get("num_visible", 0)),
        "num_found": len(pairs.unique()),
        "object_durations": _numbers(objects.get("durations", ())),
        "frame": found.frame.tolist(),
        "labels": labels.tolist(),
        "object_ids": object_ids.tolist(),
        "logits": _numbers(prediction.logits),
        "presence": _numbers(presence_of_tracks(prediction.tracks, num_frames, frames=found.frame)),
        "by_colour": persistence_from_tracks(
            by_colour, num_frames, min_presence, frames=found.frame
        ).tolist(),
        "measured": _numbers(measured),
        "attention": {name: _numbers(one) for name, one in prediction.attention.items()},
    }
    if prediction.durations is not None:
        result["durations"] = _numbers(prediction.durations)
    if prediction.queries is not None and len(objects.get("labels", ())):
        result["queries"] = count_queries(prediction.queries, objects)
    return result


@dataclass
class SplitResults:
    """The tokens of all clips of a split, and sums over its clips.

    Attributes:
        clip: ``(N,)`` number of the clip of each token, from 0.
        frame: ``(N,)``.
        num_frames: ``(N,)`` T of the token's clip.
        labels: ``(N,)``: 1 persistent, 0 transient, -1 no object.
        objects: ``(N,)`` number of the object in the split, -1 for none.
        logits: ``(N,)`` of "persistent".
        presence: ``(N,)`` share of the frames in which the tracker sees the token's track.
        by_colour: ``(N,)`` class by the pseudo-tracks of colours, -1 undecided.
        measured: ``(N, 7)`` mean colour, radius, response, y and x.
        durations: ``(N,)`` as predicted; empty without that head.
        object_durations: visible share of the clip of every object of the split.
        attention: of every source.
        queries: over the clips with objects; None without queries.
        num_clips: of the split, those without tokens too.
        num_truth_frames: frames of clips whose objects are known.
        num_visible: objects in frames that are visible; ``num_found`` those with a detection.
        num_background: detections of no object, in clips whose objects are known.
    """

    clip: Ints
    frame: Ints
    num_frames: Ints
    labels: Ints
    objects: Ints
    logits: Floats
    presence: Floats
    by_colour: Ints
    measured: Floats
    durations: Floats
    object_durations: Floats
    attention: dict[str, AttentionSums] = field(default_factory=dict)
    queries: QuerySums | None = None
    num_clips: int = 0
    num_truth_frames: int = 0
    num_visible: int = 0
    num_found: int = 0
    num_background: int = 0

    @classmethod
    def read(cls, results: Iterable[Mapping[str, Any]]) -> SplitResults:
        """Goes once over what was kept of each clip."""
        columns = _Columns()
        empty: dict[str, Any] = columns.arrays()
        split = cls(**empty)
        for number, result in enumerate(results):
            first = columns.add(number, result)
            split._add(result, has_truth=columns.num_objects > first)
        for name, array in columns.arrays().items():
            setattr(split, name, array)
        return split

    @property
    def decisions(self) -> Ints:
        """``(N,)`` classes that the model gives."""
        return (self.logits > 0).astype(np.int64)

    def detection_metrics(self) -> dict[str, float]:
        """Gives what the detector found of the objects, where these are known.

        ``recall`` is the percentage of the visible objects, frame by frame, that have a detection;
        false positives are detections of no object.
        """
        num_frames = max(1, self.num_truth_frames)
        return {
            "recall": 100 * self.num_found / self.num_visible if self.num_visible else math.nan,
            "false_positives_per_frame": self.num_background / num_frames,
            "detections_per_clip": len(self.labels) / max(1, self.num_clips),
        }

    def duration_metrics(self) -> dict[str, float]:
        """Gives the mean absolute errors of the visible share of the clip, over objects.

        ``MAE`` is that of the mean over the tokens of an object, ``MAE_tracker`` that of the share
        of the frames in which the tracker sees it.
        """
        of_object = self.objects >= 0
        numbers, place = np.unique(self.objects[of_object], return_inverse=True)
        truth = self.object_durations[numbers]
        errors = {}
        for name, values in (("MAE", self.durations), ("MAE_tracker", self.presence)):
            means = np.bincount(place, weights=values[of_object]) / np.bincount(place)
            errors[name] = float(np.abs(means - truth).mean()) if len(truth) else math.nan
        return errors

    def _add(self, result: Mapping[str, Any], *, has_truth: bool) -> None:
        self.num_clips += 1
        labels = np.array(result["labels"], np.int64)
        frames = np.array(result["frame"], np.int64)
        for name, weights in result["attention"].items():
            sums = self.attention.setdefault(name, AttentionSums())
            sums.add(np.array(weights), labels, frames, result["num_frames"])
        if "queries" in result:
            self.queries = self.queries or QuerySums()
            self.queries.add(result["queries"])
        if has_truth:
            self.num_truth_frames += result["num_frames"]
            self.num_visible += result["num_visible"]
            self.num_found += result["num_found"]
            self.num_background += int((np.array(result["object_ids"]) < 0).sum())


class _Columns:
    """Collects the tokens of clip after clip, and makes one array of each column at the end."""

    def __init__(self) -> None:
        self._parts: dict[str, list[NDArray[Any]]] = {}
        self.num_objects = 0

    def add(self, number: int, result: Mapping[str, Any]) -> int:
        """Takes a clip; gives the number of its first object in the split."""
        first, num = self.num_objects, len(result["frame"])
        ids = np.array(result["object_ids"], np.int64)
        self.num_objects += len(result["object_durations"])
        columns = {
            "clip": np.full(num, number),
            "frame": np.array(result["frame"], np.int64),
            "num_frames": np.full(num, result["num_frames"]),
            "labels": np.array(result["labels"], np.int64),
            "objects": np.where(ids >= 0, ids + first, -1),
            "logits": np.array(result["logits"]),
            "presence": np.array(result["presence"]),
            "by_colour": np.array(result["by_colour"], np.int64),
            "measured": np.array(result["measured"]).reshape(-1, _MEASURED),
            "durations": np.array(result.get("durations", ())),
            "object_durations": np.array(result["object_durations"]),
        }
        for name, column in columns.items():
            self._parts.setdefault(name, []).append(column)
        return first

    def arrays(self) -> dict[str, NDArray[Any]]:
        if self._parts:
            return {name: np.concatenate(parts) for name, parts in self._parts.items()}
        whole = ("clip", "frame", "num_frames", "labels", "objects", "by_colour")
        real = ("logits", "presence", "durations", "object_durations")
        empty = {name: np.zeros(0, np.int64) for name in whole}
        return {**empty, **{n: np.zeros(0) for n in real}, "measured": np.zeros((0, _MEASURED))}


def _numbers(values: Any) -> list[Any]:
    numbers: list[Any] = torch.as_tensor(values).detach().double().cpu().tolist()
    return numbers
