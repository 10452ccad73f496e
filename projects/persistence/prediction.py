"""What the model gives for a clip in evaluation."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from .detections import Detections

__all__ = ["TokenPrediction"]


@dataclass
class TokenPrediction:
    """Decisions over the blobs of one clip, on the CPU.

    Shapes: N tokens, one for each detection; Q queries, T frames.

    Attributes:
        detections: what was decided on.
        logits: float32 ``(N,)``, of "persistent".
        attention: float32 ``(N,)`` by source, sum 1: ``"summary"``, if the model has that query,
            and ``"layer 1"`` and so on: what a token received, mean over queries and heads, without
            the share of the null key.
        matrix: float32 ``(N, N)``, what each row read of each column in the last layer, mean over
            heads; rows sum to 1 less the share of the null key.
        durations: float32 ``(N,)``, frames in which the object is visible as a share of the clip;
            None without that head.
        queries: ``logits`` ``(Q, 3)`` of transient, persistent, no object, ``presence`` ``(Q, T)``
            probabilities and ``durations`` ``(Q,)``; None without object queries.
        tracks: int64 ``(N,)``, ids of the ``HungarianTracker``.
        kept: int64 ``(N,)``, the rows of the sample's detections that ``detections`` holds: fewer
            than all only in clips of more than ``MODEL.PERSISTENCE.MAX_TOKENS``.
    """

    detections: Detections
    logits: Tensor
    attention: dict[str, Tensor]
    matrix: Tensor
    durations: Tensor | None
    queries: dict[str, Tensor] | None
    tracks: Tensor
    kept: Tensor
