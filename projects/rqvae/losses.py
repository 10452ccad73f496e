"""How far a reconstruction is from its document; masked frames do not count.

Shapes: B documents, T frames, D width. Masks are bool, True = valid frame.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

__all__ = ["cosine_loss", "delta_loss", "squared_error"]


def squared_error(x: Tensor, y: Tensor, mask: Tensor | None = None) -> Tensor:
    """Gives the mean squared difference over valid frames and dimensions.

    Args:
        x: ``(B, T, D)``.
        y: ``(B, T, D)``.
        mask: ``(B, T)``; None if all frames are valid.

    Returns:
        A scalar, 0 without valid frames.
    """
    return _mean((x.float() - y.float()).square().mean(-1), mask)


def cosine_loss(x: Tensor, y: Tensor, mask: Tensor | None = None) -> Tensor:
    """Gives the mean of ``1 - cos(x_t, y_t)`` over valid frames; see :func:`squared_error`."""
    return _mean(1 - F.cosine_similarity(x.float(), y.float(), dim=-1), mask)


def delta_loss(x: Tensor, y: Tensor, mask: Tensor | None = None) -> Tensor:
    """Gives the squared error of differences between neighbouring frames that are both valid."""
    pairs = None if mask is None else mask[:, 1:] & mask[:, :-1]
    return squared_error(x[:, 1:] - x[:, :-1], y[:, 1:] - y[:, :-1], pairs)


def _mean(values: Tensor, mask: Tensor | None) -> Tensor:
    if mask is None:
        return values.sum() / max(values.numel(), 1)
    return (values * mask).sum() / mask.sum().clamp_min(1)
