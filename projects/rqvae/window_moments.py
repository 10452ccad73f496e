"""Mean and variance of sliding windows, a block of windows at a time.

Shapes: B documents, T frames, D width, n windows of W frames, H heads.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .windows import cut_frames

__all__ = ["moments", "refuse_second_derivative"]


def moments(
    x: Tensor, mask: Tensor, weights: Tensor, *, start: int, stride: int, chunk: int
) -> tuple[Tensor, Tensor]:
    """Gives mean and variance of windows, ``(B, n, H, D)`` each.

    Args:
        x: ``(B, T, D)``, zeros where masked.
        mask: bool ``(B, T)``.
        weights: of the frames of n windows, ``(B, n, H, W)``, zeros where masked.
        start: frame where the first window begins.
        stride: frames from one window to the next.
        chunk: windows of a block, a divisor of n.
    """
    num, window = weights.shape[1], weights.shape[3]
    span = (chunk - 1) * stride + window
    frames = cut_frames(mask, start, start + (num - 1) * stride + window)
    counts = frames.unfold(1, span, chunk * stride).sum(-1).clamp_min(1)  # (B, n / chunk)
    with torch.autocast(x.device.type, enabled=False):
        centred, variance, centre = _BlockMoments.apply(  # type: ignore[no-untyped-call]
            x, weights, counts, start, stride, chunk
        )
    by_block = centred.unflatten(1, (-1, chunk)) + centre[:, :, None, None]
    return by_block.flatten(1, 2), variance


class _BlockMoments(torch.autograd.Function):
    """Mean and variance of windows about the means of their blocks, with first derivatives.

    Moving the centre does not change mean and variance, so it has no gradient. The variance is a
    mean of squared differences: that of squares less the squared mean loses half of the digits
    wherever a window has few frames, and the gradient of the root magnifies what is lost.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weights: Tensor, counts: Tensor, start: int, stride: int, chunk: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        ctx.place = (start, stride, chunk)
        blocks = _Blocks(weights, stride, chunk, x.shape[-1])
        centre = blocks.frames.new_empty(*counts.shape, x.shape[-1])
        mean, variance = weights.new_empty(2, *weights.shape[:3], x.shape[-1])
        for block in range(counts.shape[1]):
            blocks.read(x, start + block * chunk * stride)
            torch.div(blocks.frames.sum(1), counts[:, block, None], out=centre[:, block])
            blocks.frames -= centre[:, block, None]
            windows = slice(block * chunk, (block + 1) * chunk)
            products = torch.bmm(blocks.bands[:, block], blocks.frames)
            mean[:, windows] = products.unflatten(1, (chunk, -1))
            squares = blocks.squares(mean[:, windows])
            variance[:, windows] = torch.matmul(weights[:, windows, :, None], squares)[..., 0, :]
        ctx.save_for_backward(x, weights, mean, centre)
        ctx.mark_non_differentiable(centre)
        return mean, variance, centre

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        refuse_second_derivative()
        x, weights, mean, centre = ctx.saved_tensors
        start, stride, chunk = ctx.place
        of_mean, of_variance, _ = grads
        # The derivative by frame h is a (of_mean + 2 of_variance (h - mean)), summed over windows.
        constant = of_mean - 2 * mean * of_variance
        for_frames = torch.zeros_like(x, dtype=mean.dtype) if ctx.needs_input_grad[0] else None
        for_weights = torch.empty_like(weights) if ctx.needs_input_grad[1] else None
        blocks = _Blocks(weights, stride, chunk, x.shape[-1])
        # Whoever calls may still be under autocast.
        with torch.autocast(x.device.type, enabled=False):
            for block in range(centre.shape[1]):
                first = start + block * chunk * stride
                windows = slice(block * chunk, (block + 1) * chunk)
                blocks.read(x, first)
                blocks.frames -= centre[:, block, None]
                if for_weights is not None:
                    rows = of_mean[:, windows].flatten(1, 2)
                    products = torch.bmm(rows, blocks.frames.mT)[:, None]
                    squares = blocks.squares(mean[:, windows])
                    squares *= of_variance[:, windows, :, None]
                    for_weights[:, windows] = squares.sum(-1)
                    for_weights[:, windows] += blocks.diagonals(products)[:, 0]
                if for_frames is not None:
                    band = blocks.bands[:, block].mT
                    change = torch.bmm(band, of_variance[:, windows].flatten(1, 2))
                    change.mul_(blocks.frames).mul_(2)
                    change.baddbmm_(band, constant[:, windows].flatten(1, 2))
                    low, high = _inside(first, first + change.shape[1], x.shape[1])
                    for_frames[:, low:high] += change[:, low - first : high - first]
        for_x = None if for_frames is None else for_frames.to(x.dtype)
        return for_x, for_weights, None, None, None, None


class _Blocks:
    """What the blocks of windows need, one block at a time.

    Args:
        weights: of the frames of the windows, ``(B, n, H, W)``.
        stride: frames from one window to the next.
        chunk: windows of a block, a divisor of n.
        width: D.
    """

    def __init__(self, weights: Tensor, stride: int, chunk: int, width: int) -> None:
        batch, num, heads, window = weights.shape
        self.shape, self.stride = (chunk, heads, window), stride
        span = (chunk - 1) * stride + window
        self.frames = weights.new_zeros(batch, span, width)
        self._windows = self.frames.unfold(1, window, stride).mT  # (B, chunk, W, D)
        self._differences = weights.new_empty(batch, chunk, heads, window, width)
        self.bands = weights.new_zeros(batch, num // chunk, chunk * heads, span)
        """The weights of a block's windows, each row's on the frames of its window."""
        self.diagonals(self.bands).copy_(weights.unflatten(1, (-1, chunk)))

    def read(self, x: Tensor, first: int) -> None:
        """Puts the frames from ``first`` on in place; zeros where there are none."""
        span = self.frames.shape[1]
        low, high = _inside(first, first + span, x.shape[1])
        self.frames[:, : low - first] = 0.0
        self.frames[:, low - first : high - first] = x[:, low:high]
        self.frames[:, high - first :] = 0.0

    def squares(self, mean: Tensor) -> Tensor:
        """Gives the squared differences of the frames to means ``(B, chunk, H, D)``.

        Returns:
            ``(B, chunk, H, W, D)``, good until the next call.
        """
        torch.sub(self._windows[:, :, None], mean[..., None, :], out=self._differences)
        return self._differences.square_()

    def diagonals(self, bands: Tensor) -> Tensor:
        """Views ``(B, blocks, chunk * H, span)`` as the weights, ``(B, blocks, chunk, H, W)``."""
        batch, num_blocks, rows, span = bands.shape
        chunk, heads, window = self.shape
        return bands.as_strided(
            (batch, num_blocks, chunk, heads, window),
            (num_blocks * rows * span, rows * span, heads * span + self.stride, span, 1),
        )


def _inside(first: int, last: int, num_frames: int) -> tuple[int, int]:
    """Gives the part of ``first`` to ``last - 1`` that exists; empty within it if there is none."""
    low = min(max(first, 0), max(num_frames, first), last)
    return low, max(min(last, num_frames), low)


def refuse_second_derivative() -> None:
    """Fails inside a backward pass that is itself to be differentiated.

    Raises:
        RuntimeError: if so.
    """
    # torch's once_differentiable lets one through where the first gradient needs none itself.
    if torch.is_grad_enabled():
        raise RuntimeError("pooling can be differentiated once only: leave out create_graph=True")
