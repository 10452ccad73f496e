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
        pairs: token of each matched pair, ``(p,)`` int64.
        frames: which of the labelled frames these are, ``(k,)`` int64; None for all of them.
        tokens: of each of these frames, ``(k,)`` int64.
        weights: of the segment of each, ``(k,)``.
    """

    pairs: Tensor
    frames: Tensor | None
    tokens: Tensor
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
        tokens = torch.full_like(targets.transcript, -1)
        tokens[match.segments] = match.tokens
        if published:
            weights = segment_weight.clone()
            weights[match.segments] = segment_weight[: len(match.segments)]
            segment_weight = weights
        tokens, weights = tokens[targets.segments], segment_weight[targets.segments]
        if len(match.segments) == len(targets.transcript):
            return cls(match.tokens, None, tokens, weights)
        frames = (tokens >= 0).nonzero()[:, 0]
        return cls(match.tokens, frames, tokens[frames], weights[frames])


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
    bias = torch.bincount(matched.pairs, minlength=logits.shape[1]).log()
    index, share = _of_matched(matched, rows)
    loss = _Likelihood.apply(logits, bias, index, matched.tokens, share * matched.weights)
    return loss / rows.num_read  # type: ignore[no-any-return]


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
    bias = None if rows.is_read is None else rows.is_read.log()
    index, share = _of_matched(matched, rows)
    loss = _Likelihood.apply(logits, bias, matched.tokens, index, share * matched.weights)
    return loss / rows.num_read  # type: ignore[no-any-return]


class _Likelihood(torch.autograd.Function):
    """Weighted sum of ``logsumexp(logits[row] + bias) - logits[row, column]`` over readings.

    It keeps its input alone, and backward makes one array of that size, the gradient.
    """

    @staticmethod
    def forward(
        ctx: Any,
        logits: Tensor,
        bias: Tensor | None,
        rows: Tensor,
        columns: Tensor,
        weights: Tensor,
    ) -> Tensor:
        full = logits.float()
        norm = (full if bias is None else full + bias).logsumexp(1)
        ctx.save_for_backward(logits, bias, norm, rows, columns, weights)
        return (weights * (norm[rows] - full[rows, columns])).sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        logits, bias, norm, rows, columns, weights = ctx.saved_tensors
        weights = gradient * weights
        totals = torch.zeros_like(norm).index_add_(0, rows, weights)
        result = logits.float() - norm[:, None]
        if bias is not None:
            result += bias
        result.exp_().mul_(totals[:, None])
        result.index_put_((rows, columns), -weights, accumulate=True)
        return result.to(logits.dtype), None, None, None, None


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
