"""Pooling of sliding windows, against a loop that pools one window after the other.

Shapes: B documents, T frames, D channels, W frames of a window.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .case import Case, Run

if TYPE_CHECKING:
    from torch import Tensor

    from vidseg.projects.rqvae.pooling import SlidingWindowStatsPooling

__all__ = ["CASES"]

_BATCH, _FRAMES, _WIDTH, _WINDOW, _STRIDE, _HIDDEN = 8, 500, 1024, 25, 12, 128


def _module() -> SlidingWindowStatsPooling:
    from vidseg.projects.rqvae.pooling import SlidingWindowStatsPooling

    return SlidingWindowStatsPooling(_WIDTH, _WINDOW, _STRIDE, _HIDDEN)


def _pool(module: SlidingWindowStatsPooling, x: Tensor) -> Tensor:
    return module(x)[0]


def _pool_in_a_loop(module: SlidingWindowStatsPooling, x: Tensor) -> Tensor:
    """Pools each window by itself, with the same parameters; no window is masked or padded."""
    import torch

    from vidseg.projects.rqvae.windows import first_start, num_windows

    first = first_start(_WINDOW, _STRIDE)
    pooled = []
    for n in range(num_windows(x.shape[1], _WINDOW, _STRIDE)):
        start = first + n * _STRIDE
        window = x[:, max(start, 0) : start + _WINDOW]  # (B, W, D)
        weights = module.attention(window).softmax(1).mT  # (B, 1, W)
        mean = weights @ window
        variance = weights @ (window - mean).square()
        deviation = variance.clamp_min(1e-6).sqrt()
        pooled.append(module.output(torch.cat([mean, deviation], -1)[:, 0]))
    return torch.stack(pooled, 1)


def _forward(*, loop: bool) -> Run:
    import torch

    module, x = _module(), torch.randn(_BATCH, _FRAMES, _WIDTH)
    pool = _pool_in_a_loop if loop else _pool

    def run() -> object:
        with torch.no_grad():
            return pool(module, x)

    return run


def _forward_and_backward(*, loop: bool) -> Run:
    import torch

    module, x = _module(), torch.randn(_BATCH, _FRAMES, _WIDTH, requires_grad=True)
    pool = _pool_in_a_loop if loop else _pool
    gradient = torch.randn(pool(module, x).shape)
    leaves = [x, *module.parameters()]

    def run() -> object:
        return torch.autograd.grad(pool(module, x), leaves, gradient)

    return run


_SIZES = f"{_BATCH} x {_FRAMES} frames, {_WIDTH} channels, windows {_WINDOW}/{_STRIDE}"
_PEER = "the same attentive statistics of one window after the other"

CASES = (
    Case(
        name="pooling_forward",
        about=f"forward, {_SIZES}",
        peer=_PEER,
        bars={"cpu": 2.5},
        ours=lambda: _forward(loop=False),
        theirs=lambda: _forward(loop=True),
        repeats=15,
    ),
    Case(
        name="pooling",
        about=f"forward and backward, {_SIZES}",
        peer=_PEER,
        bars={"cpu": 3.5},
        ours=lambda: _forward_and_backward(loop=False),
        theirs=lambda: _forward_and_backward(loop=True),
        repeats=9,
    ),
)
