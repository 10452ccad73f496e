"""Losses of a video given its match (FACT, Lu and Elhamifar, CVPR 2024).

All are in float32, 0 with a gradient of 0 where nothing is to be learnt, and of the order of one
frame's loss whatever the length. Logits of masked classes may be -inf.

Shapes: T frames, n labelled frames, M tokens, S segments, C classes, N rows (frames of the video,
or predicted segments).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from .matching import Match
from .targets import FrameRows, VideoTargets

__all__ = ["MatchedFrames", "a2f_loss", "f2a_loss", "frame_loss", "smooth_loss", "token_loss"]

_MAX_STEP = 4.0


def frame_loss(log_probs: Tensor, labels: Tensor, weights: Tensor, rows: FrameRows) -> Tensor:
    """Gives the weighted negative log-likelihood of labels, divided by the rows that are read.

    Args:
        log_probs: ``(N, C)``.
        labels: of the labelled frames, ``(n,)`` int64.
        weights: of the labelled frames, ``(n,)``.
        rows: which row each of them reads.
    """
    values = log_probs[rows.index, labels]
    return -(rows.share * weights * values).sum() / rows.num_read


def token_loss(log_probs: Tensor, classes: Tensor, weight: Tensor) -> Tensor:
    """Gives the negative log-likelihood of the tokens' classes, a weighted mean over all tokens.

    Args:
        log_probs: ``(M, C + 1)``.
        classes: what each token is to be, ``(M,)`` int64; C for the null class.
        weight: of each class, ``(C + 1,)``.
    """
    values = log_probs.gather(1, classes[:, None])[:, 0]
    weights = weight[classes]
    return -(weights * values).sum() / weights.sum().clamp_min(torch.finfo(weights.dtype).tiny)


@dataclass(frozen=True)
class MatchedFrames:
    """The labelled frames whose segment has a token, and that token.

    Args:
        tokens: those that are matched, ``(m,)`` int64, without repetition.
        counts: in how many pairs each is, ``(m,)``; None if all are in one.
        frames: which of the labelled frames these are, ``(k,)`` int64; None for all of them.
        columns: place of the frame's token in ``tokens``, ``(k,)`` int64.
        weights: of the frame's segment, ``(k,)``.
    """

    tokens: Tensor
    counts: Tensor | None
    frames: Tensor | None
    columns: Tensor
    weights: Tensor

    @classmethod
    def of(
        cls, match: Match, targets: VideoTargets, segment_weight: Tensor, *, published: bool = False
    ) -> MatchedFrames:
        """Looks up what the match says of each frame.

        Args:
            match: of the video.
            targets: of the video.
            segment_weight: ``(S,)``.
            published: give the k-th pair the weight of the k-th segment instead of its own, as the
                published code does.
        """
        tokens, place, counts = match.tokens.unique(return_inverse=True, return_counts=True)
        columns = place.new_full((len(targets.transcript),), -1)
        columns[match.segments] = place
        if published:
            weights = segment_weight.clone()
            weights[match.segments] = segment_weight[: len(match.segments)]
            segment_weight = weights
        columns = columns[targets.segments]
        weights = segment_weight[targets.segments]
        repeats = counts if len(tokens) < len(match.tokens) else None
        if len(match.segments) == len(targets.transcript):
            return cls(tokens, repeats, None, columns, weights)
        frames = (columns >= 0).nonzero()[:, 0]
        return cls(tokens, repeats, frames, columns[frames], weights[frames])


def a2f_loss(logits: Tensor, matched: MatchedFrames, rows: FrameRows) -> Tensor:
    """Teaches frames to attend to the token of their segment, among the matched tokens.

    A token that serves several segments counts as often in the soft-max.

    Args:
        logits: of the attention of frames or predicted segments to tokens, ``(N, M)``.
        matched: of the video.
        rows: which row of the logits each labelled frame reads.

    Returns:
        The weighted negative log-likelihood, divided by the rows that are read.
    """
    if not len(matched.tokens):
        return _nothing(logits)
    logits = logits.index_select(1, matched.tokens).float()
    norm = (logits if matched.counts is None else logits + matched.counts.log()).logsumexp(1)
    index, share = _of_matched(matched, rows)
    values = logits[index, matched.columns] - norm[index]
    return -(share * matched.weights * values).sum() / rows.num_read


def f2a_loss(logits: Tensor, matched: MatchedFrames, rows: FrameRows) -> Tensor:
    """Teaches tokens to attend to the frames of their segments, among all labelled frames.

    Args:
        logits: of the attention of tokens to frames or predicted segments, ``(M, N)``.
        matched: of the video.
        rows: which column of the logits each labelled frame reads.

    Returns:
        As :func:`a2f_loss`.
    """
    if not len(matched.tokens):
        return _nothing(logits)
    logits = logits.index_select(0, matched.tokens).float()
    if rows.is_read is not None:
        logits = logits.masked_fill(~rows.is_read, -torch.inf)
    norm = logits.logsumexp(1)
    index, share = _of_matched(matched, rows)
    values = logits[matched.columns, index] - norm[matched.columns]
    return -(share * matched.weights * values).sum() / rows.num_read


def smooth_loss(logits: Tensor, *, is_log_prob: bool = False) -> Tensor:
    """Gives the mean squared difference of neighbouring log-probabilities, each clamped to 16.

    Both neighbours learn; MS-TCN (Farha and Gall, CVPR 2019) stops the gradient of one.

    Args:
        logits: ``(..., T, K)``; soft-max over K.
        is_log_prob: the input is log-probabilities already.

    Returns:
        A scalar, 0 for T = 1; classes whose probability is 0 at the first step add nothing.
    """
    log_probs = logits.float() if is_log_prob else F.log_softmax(logits.float(), -1)
    num_squares = log_probs[..., 1:, :].numel()
    return _ClampedSquares.apply(log_probs) / max(num_squares, 1)  # type: ignore[no-untyped-call]


class _ClampedSquares(torch.autograd.Function):
    """Sum of the clamped squares; keeps its input alone, which the soft-max before it keeps too."""

    @staticmethod
    def forward(ctx: Any, log_probs: Tensor) -> Tensor:
        ctx.save_for_backward(log_probs)
        return _steps(log_probs).square_().clamp_max_(_MAX_STEP**2).sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        (log_probs,) = ctx.saved_tensors
        steps = _steps(log_probs)
        steps.masked_fill_(steps.abs() > _MAX_STEP, 0.0).mul_(2 * gradient)
        result = F.pad(steps, (0, 0, 1, 0))
        result[..., :-1, :] -= steps
        return result


def _steps(log_probs: Tensor) -> Tensor:
    """Gives the differences of neighbours; 0 for classes that are masked."""
    steps = log_probs[..., 1:, :] - log_probs[..., :-1, :]
    return steps.masked_fill_(log_probs[..., :1, :].isneginf(), 0.0)


def _of_matched(matched: MatchedFrames, rows: FrameRows) -> tuple[Tensor, Tensor]:
    """Gives rows and shares of the matched frames."""
    if matched.frames is None:
        return rows.index, rows.share
    return rows.index[matched.frames], rows.share[matched.frames]


def _nothing(logits: Tensor) -> Tensor:
    """Gives 0 with a gradient of 0."""
    return logits[:0].sum().float()
