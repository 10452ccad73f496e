"""A clip and what a model made of it, as arrays for the pictures.

Shapes: T frames, N tokens of the clip, M objects, H W pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from .prediction import TokenPrediction

__all__ = ["COLORS", "NAMES", "PERSISTENT", "TRANSIENT", "UNKNOWN", "ClipView"]

UNKNOWN, TRANSIENT, PERSISTENT = -1, 0, 1
NAMES = {PERSISTENT: "persistent", TRANSIENT: "transient", UNKNOWN: "unknown"}
COLORS = {PERSISTENT: (0.36, 0.70, 1.0), TRANSIENT: (1.0, 0.64, 0.20), UNKNOWN: (0.66, 0.66, 0.7)}
"""Of the classes, told apart by people who do not see red or green as well."""


@dataclass(frozen=True)
class ClipView:
    """What the pictures of a clip show.

    Attributes:
        name: of the clip.
        num_frames: T.
        frames: uint8 ``(T, H, W, 3)``.
        frame: frame of every token, int ``(N,)``.
        y: row of its centre in pixels, ``(N,)``; ``x`` its column and ``radius`` likewise.
        confidence: of the detector, 0 to 1, ``(N,)``.
        probability: of "persistent", ``(N,)``.
        truth: class of every token, ``(N,)``; ``UNKNOWN`` where it belongs to no object.
        object_ids: its object, ``(N,)``; -1 for none.
        tracks: its track, ``(N,)``.
        has_truth: whether the classes of the clip's objects are known.
        object_labels: class of every object, ``(M,)``.
        presence: frames in which an object is visible, bool ``(M, T)``.
    """

    name: str
    num_frames: int
    frames: np.ndarray
    frame: np.ndarray
    y: np.ndarray
    x: np.ndarray
    radius: np.ndarray
    confidence: np.ndarray
    probability: np.ndarray
    truth: np.ndarray
    object_ids: np.ndarray
    tracks: np.ndarray
    has_truth: bool
    object_labels: np.ndarray
    presence: np.ndarray

    @classmethod
    def of(cls, sample: Mapping[str, Any], prediction: TokenPrediction) -> ClipView:
        """Puts a sample of the evaluation and its prediction together.

        Args:
            sample: with ``labels`` and ``object_ids`` of all its detections, or of the predicted
                ones.
            prediction: of that clip.
        """
        found = prediction.detections
        labels, ids = (np.asarray(sample[name]) for name in ("labels", "object_ids"))
        if len(labels) > len(found):  # more blobs than the model takes
            kept = prediction.kept.numpy()
            labels, ids = labels[kept], ids[kept]
        objects = sample.get("objects") or {}
        num_frames = found.num_frames
        return cls(
            name=str(sample["video_id"]),
            num_frames=num_frames,
            frames=np.asarray(sample["frames"]).transpose(0, 2, 3, 1),
            frame=found.frame.numpy(),
            y=found.y.numpy(),
            x=found.x.numpy(),
            radius=found.radius.numpy(),
            confidence=found.confidence.numpy(),
            probability=prediction.logits.detach().float().sigmoid().numpy(),
            truth=labels,
            object_ids=ids,
            tracks=prediction.tracks.numpy(),
            has_truth=bool(len(objects.get("labels", ()))),
            object_labels=np.asarray(objects.get("labels", np.zeros(0, np.int64))),
            presence=np.asarray(objects.get("presence", np.zeros((0, num_frames), bool))),
        )

    def __len__(self) -> int:
        """Number of tokens."""
        return len(self.frame)

    @property
    def decision(self) -> np.ndarray:
        """Class that the model gives every token, ``(N,)``."""
        return np.where(self.probability > 0.5, PERSISTENT, TRANSIENT)

    @property
    def is_wrong(self) -> np.ndarray:
        """Tokens with another class than their object's, bool ``(N,)``."""
        return (self.truth != UNKNOWN) & (self.truth != self.decision)

    def summary(self) -> str:
        """Tells in a line what is in the clip and what the model decided."""
        decided = [f"{int((self.decision == c).sum())} {NAMES[c]}" for c in (1, 0)]
        if not self.has_truth:
            return f"{self.name}: {_count(len(self), 'blob')}, decided: {', '.join(decided)}"
        there = [f"{int((self.object_labels == c).sum())} {NAMES[c]}" for c in (1, 0)]
        right = [
            f"{int(((self.truth == c) & ~self.is_wrong).sum())} of {_count(number, 'blob')}"
            f" of {NAMES[c]} objects"
            for c in (1, 0)
            if (number := int((self.truth == c).sum()))
        ]
        line = f"{self.name}: {' and '.join(there)} objects"
        if right:
            line += f"; decided rightly: {' and '.join(right)}"
        if stray := int((self.truth == UNKNOWN).sum()):
            line += f"; {_count(stray, 'blob')} of no object"
        return line


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}" + "s" * (number != 1)
