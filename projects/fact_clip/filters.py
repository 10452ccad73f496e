"""Filters over time as products of matrices: few taps, far apart, and little kept for gradients.

A filter computes ``y(t) = sum_k W_k x(t + o_k) + b`` with zeros beyond both ends. Frames are rows,
so every tap is a product of ``x`` with a matrix. The rows that the taps read are gathered side by
side, some hundred at a time, so that one product of a fixed size does for all taps, dilations and
lengths of videos.

Shapes: T frames, I input and O output channels, K taps.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from vidseg.layers.onednn import linear_at_once

__all__ = ["Taps", "filter_frames"]

# Rows at a time on a CPU: five taps of 512 channels then stay in its cache. Every number of rows is
# another kernel of oneDNN, which keeps them, so the last rows are rounded up.
_BLOCK = 1024
_STEP = 64
_EXACT = 4  # bytes of a value that tells a sum from the larger of its terms


class Taps(Protocol):
    """How a filter follows from weights."""

    @property
    def offsets(self) -> tuple[int, ...]:
        """Where the K taps read, in frames relative to the output."""
        ...

    @property
    def are_kept(self) -> bool:
        """Whether what :meth:`assemble` gives is kept for the gradients."""
        ...

    def assemble(self, weights: Sequence[Tensor]) -> tuple[list[Tensor], Tensor]:
        """Gives the matrix ``(O, I)`` of every tap, dense, and the bias ``(O,)``."""
        ...

    def take_apart(
        self, weights: Sequence[Tensor], taps: Sequence[Tensor], bias: Tensor
    ) -> list[Tensor]:
        """Gives the gradients of the weights from those of what :meth:`assemble` gives."""
        ...


def filter_frames(
    x: Tensor,
    taps: Taps,
    weights: Sequence[Tensor],
    *,
    relu: bool = False,
    dropout: float = 0.0,
    residual: Tensor | None = None,
) -> Tensor:
    """Applies a filter, then a ReLU and drop-out if wanted, and adds a residual.

    For the gradients it keeps ``x``, the output of a ReLU or, with drop-out, which values came
    through, and the matrices of a filter that wants them kept.

    Args:
        x: ``(T, I)``.
        taps: how the filter follows from ``weights``.
        weights: parameters.
        relu: whether a ReLU follows.
        dropout: probability with which a value is dropped then.
        residual: ``(T, O)``, added at last.

    Returns:
        ``(T, O)``. It can be differentiated once.
    """
    device = x.device.type
    if not torch.is_autocast_enabled(device):
        return _Filter.apply(x, residual, taps, relu, dropout, *weights)  # type: ignore[no-untyped-call]
    dtype = torch.get_autocast_dtype(device)
    with torch.autocast(device, enabled=False):
        residual = None if residual is None else residual.to(dtype)
        cast = [weight.to(dtype) for weight in weights]
        return _Filter.apply(x.to(dtype), residual, taps, relu, dropout, *cast)  # type: ignore[no-untyped-call]


class _Filter(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        residual: Tensor | None,
        taps: Taps,
        relu: bool,
        dropout: float,
        *weights: Tensor,
    ) -> Tensor:
        matrices, bias = taps.assemble(weights)
        matrix = torch.cat(matrices, 1) if len(matrices) > 1 else matrices[0]
        out = x.new_empty(len(x), len(matrix))
        for rows in _blocks(x):
            read = _gather(x, rows, taps.offsets)
            out[rows] = linear_at_once(read, matrix, bias)[: rows.stop - rows.start]
        if relu:
            out.relu_()
        stacked = torch.cat(matrices) if taps.are_kept and ctx.needs_input_grad[0] else None
        del matrices, matrix
        # Without a mask the ReLU's inputs are told by the output, which its reader keeps anyway:
        # what it added is beyond the rounding of the residual but for single values at the corner.
        is_masked = dropout > 0 or (residual is not None and out.element_size() < _EXACT)
        passed = out > 0 if relu and is_masked else None
        if dropout:
            kept = torch.empty_like(out, dtype=torch.bool).bernoulli_(1 - dropout)
            out.mul_(kept).mul_(1 / (1 - dropout))
            passed = kept if passed is None else passed.logical_and_(kept)
        if residual is not None:
            out.add_(residual)
        compares = relu and not is_masked
        ctx.taps, ctx.dropout, ctx.has_residual = taps, dropout, residual is not None
        ctx.compares = compares
        kept_tensors = (out, residual) if compares else (passed, None)
        ctx.save_for_backward(x, *kept_tensors, stacked, *weights)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        if torch.is_grad_enabled():
            raise RuntimeError("a filter over frames can be differentiated once only")
        x, passed, residual, stacked, *weights = ctx.saved_tensors
        taps: Taps = ctx.taps
        own = grad.contiguous()
        if ctx.compares:
            passed = passed > (0 if residual is None else residual)
        if passed is not None:
            own = own * passed
            if ctx.dropout:
                own.mul_(1 / (1 - ctx.dropout))
        x_grad = _input_gradient(own, taps, weights, stacked) if ctx.needs_input_grad[0] else None
        weight_grads: list[Any] = [None] * len(weights)
        if any(ctx.needs_input_grad[5:]):
            weight_grads = taps.take_apart(weights, _matrix_gradients(x, own, taps), own.sum(0))
        return x_grad, grad if ctx.has_residual else None, None, None, None, *weight_grads


def _input_gradient(
    grad: Tensor, taps: Taps, weights: Sequence[Tensor], stacked: Tensor | None
) -> Tensor:
    """Filters ``(T, O)`` backwards to ``(T, I)``."""
    if stacked is None:
        matrices, _ = taps.assemble(weights)
        stacked = torch.cat(matrices) if len(matrices) > 1 else matrices[0]
        del matrices
    # Stacked, so that no matrix has to be transposed in memory.
    backward = stacked.t()  # (I, K O)
    offsets = tuple(-offset for offset in taps.offsets)
    out = grad.new_empty(len(grad), len(backward))
    no_bias = grad.new_zeros(len(backward))
    for rows in _blocks(grad):
        read = _gather(grad, rows, offsets)
        out[rows] = linear_at_once(read, backward, no_bias)[: rows.stop - rows.start]
    return out


def _matrix_gradients(x: Tensor, grad: Tensor, taps: Taps) -> list[Tensor]:
    """Gives the gradient ``(O, I)`` of the matrix of every tap."""
    total = grad.new_zeros(grad.shape[1], len(taps.offsets) * x.shape[1])
    no_bias = total.new_zeros(total.shape[1])
    for rows in _blocks(x):
        read, own = _gather(x, rows, taps.offsets), _gather(grad, rows, (0,))
        total += linear_at_once(own.t(), read.t(), no_bias)
    return [own.contiguous() for own in total.split(x.shape[1], 1)]


def _blocks(x: Tensor) -> list[slice]:
    size = _BLOCK if x.device.type == "cpu" else len(x)
    return [slice(start, min(start + size, len(x))) for start in range(0, len(x), size)]


def _gather(x: Tensor, rows: slice, offsets: tuple[int, ...]) -> Tensor:
    """Puts side by side what the taps read for some rows: ``(rows, K I)``, rounded up by zeros."""
    num_rows = rows.stop - rows.start
    fill = -num_rows % _STEP if x.device.type == "cpu" else 0
    if offsets == (0,) and not fill:
        return x[rows]
    out = x.new_empty(num_rows + fill, len(offsets), x.shape[1])
    for tap, offset in enumerate(offsets):
        first = min(max(-offset - rows.start, 0), num_rows)  # the rows that read a frame of x
        last = max(min(len(x) - offset - rows.start, num_rows), first)
        out[:first, tap] = 0
        out[first:last, tap] = x[rows.start + first + offset : rows.start + last + offset]
        out[last:, tap] = 0
    return out.flatten(1)
