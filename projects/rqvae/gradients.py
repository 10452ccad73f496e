"""What gradients flow through a quantisation, and its loss."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["commitment", "rotate"]


def commitment(rows: Tensor, residuals: list[Tensor]) -> Tensor:
    """Gives the mean squared distance of vectors to the sums of their first 1, 2, ... entries.

    The gradients of all terms together are that of the distance to the mean of the sums.

    Args:
        rows: ``(M, V)``, what the gradient flows to.
        residuals: ``(M, V)`` by level, what its entry and those before it leave over.

    Returns:
        The mean over levels, vectors and dimensions; 0 without vectors.
    """
    if not len(rows):
        return rows.sum()
    mean = torch.zeros_like(residuals[0])
    squares = rows.new_zeros(())
    for residual in residuals:
        mean += residual
        squares += residual.square().sum()
    mean /= len(residuals)
    distance = (rows - (rows.detach() - mean)).square().mean()
    return distance + (squares / (len(residuals) * rows.numel()) - distance.detach())


def rotate(rows: Tensor, quantized: Tensor) -> Tensor:
    """Turns and scales vectors to the quantised ones by a map that counts as fixed.

    Source: Fifty et al., "Restructuring vector quantization with the rotation trick" (2024),
    section 4.

    Args:
        rows: ``(M, V)``, what the gradient flows to.
        quantized: ``(M, V)``.

    Returns:
        ``(M, V)``: ``quantized`` but for rounding.
    """
    fixed = rows.detach()
    tiny = torch.finfo(rows.dtype).tiny
    size = torch.linalg.vector_norm(fixed, dim=1, keepdim=True)
    size_q = torch.linalg.vector_norm(quantized, dim=1, keepdim=True)
    unit, unit_q = fixed / size.clamp(min=tiny), quantized / size_q.clamp(min=tiny)
    middle = unit + unit_q
    middle = middle / torch.linalg.vector_norm(middle, dim=1, keepdim=True).clamp(min=tiny)
    turned = rows - 2 * middle * (middle * rows).sum(1, keepdim=True)
    turned = turned + 2 * unit_q * (unit * rows).sum(1, keepdim=True)
    # There is no direction to turn from or to at zero.
    scale = torch.where((size > 0) & (size_q > 0), size_q / size.clamp(min=tiny), 1)
    return scale * turned
