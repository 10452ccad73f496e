"""What happens when in a video: the labels of truth and prediction, ready for tables and pictures.

Shapes: T frames the model saw, L frames of the video, M tokens, S segments.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from vidseg.video.draw import class_text

from .metrics import find_segments, stretch

if TYPE_CHECKING:
    from .prediction import ActionPrediction

__all__ = [
    "ACTION",
    "FRAME",
    "MERGED",
    "TITLES",
    "TRUTH",
    "ZERO_SHOT",
    "Timeline",
    "TokenAttention",
]

TRUTH = "truth"
FRAME = "frame_branch"
ACTION = "action_branch"
MERGED = "merged"
ZERO_SHOT = "zero_shot"

TITLES = {
    TRUTH: "truth",
    FRAME: "frame branch",
    ACTION: "action branch",
    MERGED: "merged",
    ZERO_SHOT: "zero-shot",
}
"""What the rows are called, from top to bottom."""

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class TokenAttention:
    """Where in time the action tokens are.

    Attributes:
        weights: ``(T, M)`` attention of frames to tokens, in [0, 1].
        classes: ``(M,)`` class of each token; -1 stands for no action.
    """

    weights: Floats
    classes: Ints


@dataclass(frozen=True, kw_only=True)
class Timeline:
    """The labels of one video.

    Attributes:
        name: of the video.
        classes: names by number; those that only a zero-shot vocabulary has come last.
        rows: labels ``(L,)`` by ``TRUTH``, ``FRAME``, ``ACTION``, ``MERGED`` and ``ZERO_SHOT``, as
            far as there are; -1 where there is none.
        background: numbers of the background classes.
        eval_bg: whether metrics count them as classes like others.
        frame_rate: frames per second of the rows; 0 if unknown.
        scores: ``(S,)`` mean probability of the segments of ``MERGED``.
        attention: of the action tokens, if known.
        unseen: numbers of the classes that training showed no labels of.
    """

    name: str
    classes: Sequence[str]
    rows: Mapping[str, Ints]
    background: Collection[int] = ()
    eval_bg: bool = False
    frame_rate: float = 0.0
    scores: Sequence[float] = ()
    attention: TokenAttention | None = None
    unseen: Collection[int] = ()

    @property
    def num_frames(self) -> int:
        """L."""
        return len(next(iter(self.rows.values())))

    def name_of(self, number: int) -> str:
        """Gives the name of a class."""
        return class_text(number, self.classes)

    def path_in(self, folder: Path, suffix: str) -> Path:
        """Gives the file of this video in a folder."""
        return folder / f"{quote(self.name, safe=' ')}.{suffix}"  # some data sets have paths as ids

    @classmethod
    def of(
        cls,
        sample: Mapping[str, Any],
        prediction: ActionPrediction,
        classes: Sequence[str],
        background: Collection[int] = (),
        *,
        eval_bg: bool = False,
    ) -> Timeline:
        """Brings truth and prediction of a sample to the frames of the video.

        Args:
            sample: ``video_id`` and ``frame_indices`` (a range to L); where known, ``full_labels``
                ``(L,)`` or ``labels`` ``(T,)``, and ``frame_rate`` of the T frames.
            prediction: of that sample.
            classes: of the model, by number; numbers stand for names that are left out.
            background: numbers of the background classes.
            eval_bg: whether metrics count them as classes like others.
        """
        truth = sample.get("full_labels", sample.get("labels"))
        num_seen = len(prediction.labels)
        frames = sample["frame_indices"]
        length = frames.stop
        predicted = {
            FRAME: np.asarray(prediction.frame_labels),
            ACTION: np.asarray(prediction.action_labels),
            MERGED: np.asarray(prediction.labels),
        }
        num_classes = prediction.probabilities.shape[1]
        names = [*classes, *(f"class {number}" for number in range(len(classes), num_classes))]
        unseen = []
        if prediction.zero_shot is not None:
            candidates = prediction.zero_shot.candidates
            names += [name for name in dict.fromkeys(candidates) if name not in names]
            numbers = np.array([names.index(name) for name in candidates])
            predicted[ZERO_SHOT] = numbers[np.asarray(prediction.zero_shot.labels)]
            unseen = numbers[~np.asarray(prediction.zero_shot.seen)].tolist()
        rows = {}
        if truth is not None:
            rows[TRUTH] = stretch(np.maximum(np.asarray(truth), -1), length)
        rows |= {name: stretch(row, length) for name, row in predicted.items()}
        merged = predicted[MERGED]
        scores = prediction.probabilities.float().numpy()[np.arange(num_seen), merged]
        tokens = np.asarray(prediction.token_labels)
        return cls(
            name=str(sample["video_id"]),
            classes=names,
            rows=rows,
            background=background,
            eval_bg=eval_bg,
            frame_rate=float(sample.get("frame_rate") or 0.0) * frames.step,
            scores=_means(scores[np.arange(length) * num_seen // length], rows[MERGED]),
            attention=TokenAttention(
                prediction.attention.float().numpy(), np.where(tokens < num_classes, tokens, -1)
            ),
            unseen=unseen,
        )

    def to_json(self, num_classes: int) -> dict[str, Any]:
        """Gives everything but the attention as plain json, rows as classes and lengths of runs.

        Args:
            num_classes: of the model; their names are not repeated.
        """
        rows = {}
        for name, row in self.rows.items():
            numbers, starts, stops = find_segments(row)
            rows[name] = [numbers.tolist(), (stops - starts).tolist()]
        return {
            "name": self.name,
            "rows": rows,
            "more_classes": list(self.classes[num_classes:]),
            "frame_rate": self.frame_rate,
            "scores": [round(float(score), 4) for score in self.scores],
        }

    @classmethod
    def from_json(
        cls, kept: Mapping[str, Any], classes: Sequence[str], background: Collection[int] = ()
    ) -> Timeline:
        """Gives back what ``to_json`` gave.

        Args:
            kept: plain json.
            classes: of the model, by number.
            background: numbers of the background classes.
        """
        rows = {
            name: np.repeat(np.array(numbers, dtype=np.int64), lengths)
            for name, (numbers, lengths) in kept["rows"].items()
        }
        return cls(
            name=kept["name"],
            classes=[*classes, *kept["more_classes"]],
            rows=rows,
            background=background,
            frame_rate=kept["frame_rate"],
            scores=kept["scores"],
        )


def _means(values: Floats, labels: Ints) -> list[float]:
    """Gives the mean of values ``(L,)`` over each run of equal labels."""
    _, starts, stops = find_segments(labels)
    sums = np.add.reduceat(values.astype(np.float64), starts) if len(starts) else starts
    return list((sums / (stops - starts)).tolist())
