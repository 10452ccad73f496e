"""Attentive statistics pooling, of a whole document or of sliding windows over it.

Source: Okabe et al., "Attentive Statistics Pooling for Deep Speaker Embedding", Interspeech 2018.
Shapes: B documents, T frames, D input width, H heads, N windows of W frames, S frames apart. Masks
are bool, True = valid frame.

Windows are computed in blocks of a fixed number of them: the attention weights of a block, each
window's on its own diagonal, form a narrow matrix, and the means are its product with the block's
frames. Logits are computed once per frame, memory grows with T alone, and what a document gives has
the same bits however far it is padded and whatever stands beside it.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor, nn

from vidseg.layers import onednn
from vidseg.layers.recording import is_recorded

from .window_moments import moments, refuse_second_derivative
from .windows import check_windows, cut_frames, first_start, num_windows, window_validity

__all__ = ["AttentiveStatisticsPooling", "SlidingWindowStatsPooling"]

_EPS = 1e-6
_BLOCK = 64  # frames of a block of the whole document
_ROWS = 64  # of a product, where kernels may depend on their number
_BUMP = 4.0  # height of the initial position bias


class _StatisticsPooling(nn.Module):
    """The layers that both poolings share: attention logits of frames, and the output."""

    def __init__(self, input_dim: int, hidden_dim: int, heads: int, output_dim: int | None) -> None:
        super().__init__()
        for name, size in (("input_dim", input_dim), ("hidden_dim", hidden_dim), ("heads", heads)):
            if size < 1:
                raise ValueError(f"{name} of a pooling must be 1 or more, got {size}")
        self.input_dim, self.heads = input_dim, heads
        self.attention = nn.Sequential(
            nn.Linear(input_dim, hidden_dim), nn.Tanh(), nn.Linear(hidden_dim, heads)
        )
        self.output = nn.Linear(2 * heads * input_dim, output_dim or input_dim)

    def _logits(self, x: Tensor) -> Tensor:
        """Gives ``(B, T, H)`` in the precision of the statistics."""
        first, tanh, last = self.attention
        logits = _apply_linear(last, tanh(_apply_linear(first, x)))
        return logits.to(_statistics_dtype(x))

    def _describe(self, mean: Tensor, variance: Tensor) -> Tensor:
        """Gives ``(B, N, out)`` from ``(B, N, H, D)`` each."""
        # The gradient of the root is infinite at 0, so the clamp comes first.
        deviation = variance.clamp_min(_EPS).sqrt()
        statistics = torch.cat([mean.flatten(2), deviation.flatten(2)], 2)
        return _apply_linear(self.output, statistics)


class AttentiveStatisticsPooling(_StatisticsPooling):
    """Pools a document to attention-weighted mean and standard deviation, and maps them.

    ``e_t = v tanh(A h_t + b) + k``, ``a = softmax_t(e)`` over valid frames, ``mu = sum a_t h_t``,
    ``sigma = sqrt(max(sum a_t (h_t - mu)^2, 1e-6))``, output ``Linear([mu; sigma])``. Statistics
    are in float32 under autocast, and about the mean of the frames, so that a large offset of the
    features costs no precision.

    Args:
        input_dim: D.
        hidden_dim: width of the attention's inner layer.
        heads: attention maps, each with statistics of its own; the output layer reads all.
        output_dim: width of the result; None for D.

    Raises:
        ValueError: if a size is below 1.
    """

    def __init__(
        self,
        input_dim: int,
        hidden_dim: int = 128,
        *,
        heads: int = 1,
        output_dim: int | None = None,
    ) -> None:
        super().__init__(input_dim, hidden_dim, heads, output_dim)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Pools documents.

        Args:
            x: ``(B, T, D)``.
            mask: bool ``(B, T)``, True = valid frame; None if all are.

        Returns:
            ``(B, out)``; zeros for a document without valid frames.

        Raises:
            ValueError: if T is 0 or the shapes do not fit.
        """
        mask, x = _checked(x, mask, self.input_dim)
        num = num_windows(x.shape[1], _BLOCK, _BLOCK, "tail")
        valid = cut_frames(mask, 0, num * _BLOCK).unfold(1, _BLOCK, _BLOCK)[:, :, None]
        logits = cut_frames(self._logits(x), 0, num * _BLOCK).unfold(1, _BLOCK, _BLOCK)
        logits = logits.masked_fill(~valid, torch.finfo(logits.dtype).min)
        # The blocks' weights are relative to the document's largest logit, which blocks of padding
        # cannot change; and the sums go from block to block, since those add zeros then.
        weights = (logits - logits.amax((1, 3), keepdim=True)).exp() * valid  # (B, n, H, 64)
        sums = weights.sum(-1)
        shares = sums / _total(sums)[:, None].clamp_min(1e-30)
        weights = weights / sums.clamp_min(1e-30)[..., None]
        means, variances = moments(x, mask, weights, start=0, stride=_BLOCK, chunk=1)
        mean = _total(shares[..., None] * means)
        spread = variances + (means - mean[:, None]).square()
        variance = _total(shares[..., None] * spread)
        pooled = self._describe(mean[:, None], variance[:, None])[:, 0]
        return pooled.masked_fill(~mask.any(1, keepdim=True), 0.0)


class SlidingWindowStatsPooling(_StatisticsPooling):
    """:class:`AttentiveStatisticsPooling` of sliding windows, with the same parameters for all.

    Args:
        input_dim: D.
        window_size: W frames.
        stride: S frames from one window to the next.
        hidden_dim: width of the attention's inner layer.
        mode: where windows lie, see :data:`~vidseg.projects.rqvae.windows.MODES`.
        heads: attention maps, each with statistics of its own; the output layer reads all.
        position_bias: whether the logits have a learned bias ``(H, W)`` by place in the window, so
            that the order of frames matters; it starts as H bumps spread over the window.
        output_dim: width of the result; None for D.
        min_valid_frames: valid frames that a window needs.
        allow_gaps: whether S may exceed W.
        chunk_windows: windows of a block, see the module.

    Raises:
        ValueError: if sizes or mode are wrong.
    """

    def __init__(
        self,
        input_dim: int,
        window_size: int = 25,
        stride: int = 12,
        hidden_dim: int = 128,
        *,
        mode: str = "same",
        heads: int = 1,
        position_bias: bool = False,
        output_dim: int | None = None,
        min_valid_frames: int = 1,
        allow_gaps: bool = False,
        chunk_windows: int = 8,
    ) -> None:
        super().__init__(input_dim, hidden_dim, heads, output_dim)
        check_windows(window_size, stride, mode, allow_gaps=allow_gaps)
        if not 1 <= min_valid_frames <= window_size:
            raise ValueError(
                f"min_valid_frames must be 1 to the window's {window_size}, got {min_valid_frames}"
            )
        if chunk_windows < 1:
            raise ValueError(f"chunk_windows must be 1 or more, got {chunk_windows}")
        self.window_size, self.stride, self.mode = window_size, stride, mode
        self.min_valid_frames, self.allow_gaps = min_valid_frames, allow_gaps
        self.chunk_windows = chunk_windows
        self.position_bias = nn.Parameter(_bumps(heads, window_size)) if position_bias else None

    def forward(self, x: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Pools the windows of documents.

        Args:
            x: ``(B, T, D)``.
            mask: bool ``(B, T)``, True = valid frame; None if all are.

        Returns:
            ``(B, N, out)``, zeros for masked windows, and bool ``(B, N)``, True = valid window.

        Raises:
            ValueError: if T is 0, mode ``drop`` leaves no window or the shapes do not fit.
        """
        mask, x = _checked(x, mask, self.input_dim)
        _, window_mask = window_validity(
            mask,
            self.window_size,
            self.stride,
            self.mode,
            self.min_valid_frames,
            allow_gaps=self.allow_gaps,
        )
        num = window_mask.shape[1]
        num_padded = num + -num % self.chunk_windows
        start = first_start(self.window_size, self.stride, self.mode)
        stop = start + (num_padded - 1) * self.stride + self.window_size
        valid, logits = (
            cut_frames(frames, start, stop).unfold(1, self.window_size, self.stride)
            for frames in (mask, self._logits(x))
        )
        if self.position_bias is not None:
            logits = logits + self.position_bias
        valid = valid[:, :, None]  # (B, n, 1, W)
        # The softmax of minus infinity alone is NaN; a finite minimum and the product are not.
        logits = logits.masked_fill(~valid, torch.finfo(logits.dtype).min)
        weights = logits.softmax(-1) * valid
        mean, variance = moments(
            x, mask, weights, start=start, stride=self.stride, chunk=self.chunk_windows
        )
        pooled = self._describe(mean, variance)[:, :num]
        return pooled.masked_fill(~window_mask[..., None], 0.0), window_mask


def _checked(x: Tensor, mask: Tensor | None, width: int) -> tuple[Tensor, Tensor]:
    """Gives a mask, and frames that are zero where it is False."""
    if x.dim() != 3 or x.shape[-1] != width:
        raise ValueError(f"pooling wants (B, T, {width}) features, got {tuple(x.shape)}")
    if x.shape[1] == 0:
        raise ValueError("a document needs 1 frame or more to be pooled, got 0")
    if mask is None:
        return torch.ones(x.shape[:2], dtype=torch.bool, device=x.device), x
    if mask.shape != x.shape[:2] or mask.dtype != torch.bool:
        raise ValueError(
            f"the mask of {tuple(x.shape)} features is bool {tuple(x.shape[:2])}, "
            f"got {mask.dtype} {tuple(mask.shape)}"
        )
    return mask, x.masked_fill(~mask[..., None], 0.0)


def _bumps(heads: int, window: int) -> Tensor:
    """Gives ``(H, W)``, each row a bell around the middle of its share of the window."""
    share = window / heads
    middles = (torch.arange(heads)[:, None] + 0.5) * share - 0.5
    return _BUMP * torch.exp(-0.5 * ((torch.arange(window) - middles) / (share / 2)).square())


def _total(x: Tensor) -> Tensor:
    """Sums over dimension 1 one after the other, so that zeros at the end change no bit."""
    return functools.reduce(torch.add, x.unbind(1))


def _statistics_dtype(x: Tensor) -> torch.dtype:
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def _apply_linear(layer: nn.Module, x: Tensor) -> Tensor:
    """Applies a layer to ``(B, n, I)`` so that a row has the same bits in every batch."""
    plain = x.device.type != "cpu" or torch.is_autocast_enabled("cpu") or is_recorded()
    if plain:
        return layer(x)
    return _LinearByParts.apply(x, layer.weight, layer.bias)  # type: ignore[no-untyped-call]


class _LinearByParts(torch.autograd.Function):
    """A linear layer whose products forward have one size for all, with first derivatives."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        if onednn.keeps_rows(weight):
            return onednn.linear(x, weight, bias)
        out = x.new_empty(*x.shape[:-1], len(weight))
        for rows, target in zip(x, out, strict=True):
            for start in range(0, len(rows), _ROWS):
                part = cut_frames(rows[None], start, start + _ROWS)[0]
                product = nn.functional.linear(part, weight, bias)
                target[start : start + _ROWS] = product[: len(rows) - start]
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        refuse_second_derivative()
        x, weight = ctx.saved_tensors
        rows = grad.flatten(0, 1)
        needs_x, needs_weight, needs_bias = ctx.needs_input_grad
        return (
            onednn.linear(grad, weight.t()) if needs_x else None,
            onednn.linear(rows.t(), x.flatten(0, 1).t()) if needs_weight else None,
            rows.sum(0) if needs_bias else None,
        )
