"""How the filters of the frame branches follow from the weights of their convolutions.

Shapes: F channels, O output and I input channels, K taps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vidseg.layers.onednn import linear

__all__ = ["DilatedTaps", "FoldedTaps", "PointwiseTaps", "folding_pays"]


@dataclass(frozen=True)
class PointwiseTaps:
    """A linear map: weights ``(O, I)``, or ``(O, I, 1)`` of a 1x1 convolution, and ``(O,)``."""

    offsets: tuple[int, ...] = (0,)

    def assemble(self, weights: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """See ``filters.Taps``."""
        weight, bias = weights
        return weight.flatten(1), bias

    def take_apart(self, weights: Sequence[Tensor], taps: Tensor, bias: Tensor) -> list[Tensor]:
        """See ``filters.Taps``."""
        return [taps.view_as(weights[0]), bias]


class DilatedTaps:
    """A convolution of kernel 3: weights ``(O, I, 3)`` and ``(O,)``.

    Args:
        dilation: distance of its taps.
        num_frames: T; taps that would read beyond both ends of the video are left out.
    """

    def __init__(self, dilation: int, num_frames: int) -> None:
        self.is_short = dilation >= num_frames
        self.offsets: tuple[int, ...] = (0,) if self.is_short else (-dilation, dilation, 0)

    def assemble(self, weights: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """See ``filters.Taps``."""
        weight, bias = weights
        return _side_by_side(weight, self.is_short), bias

    def take_apart(self, weights: Sequence[Tensor], taps: Tensor, bias: Tensor) -> list[Tensor]:
        """See ``filters.Taps``."""
        return [_as_kernel(taps, self.is_short), bias]


class FoldedTaps:
    """Two convolutions of kernel 3 and the 1x1 convolution of both, as one filter of five taps.

    Weights: ``(F, F, 3)`` and ``(F,)`` of the first, likewise of the second, ``(F, 2 F, 1)`` and
    ``(F,)`` of the fusion.

    Args:
        dilations: of the first and the second convolution.
        num_frames: T; taps that would read beyond both ends of the video are left out.
    """

    def __init__(self, dilations: tuple[int, int], num_frames: int) -> None:
        first, second = (DilatedTaps(dilation, num_frames) for dilation in dilations)
        self.are_short = first.is_short, second.is_short
        # The taps in the middle meet: those of the second convolution follow in other order.
        self.offsets = (*first.offsets, *second.offsets[:-1])

    def assemble(self, weights: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """See ``filters.Taps``."""
        first, first_bias, second, second_bias, fusion, bias = weights
        left, right = fusion[..., 0].chunk(2, dim=1)  # (F, F) each
        dim = len(fusion)
        outer, inner = (
            linear(half, _side_by_side(weight, is_short).t())
            for half, weight, is_short in zip(
                (left, right), (first, second), self.are_short, strict=True
            )
        )  # (F, K F), the tap in the middle last
        outer[:, -dim:] += inner[:, -dim:]
        bias = bias + left @ first_bias + right @ second_bias
        return torch.cat([outer, inner[:, :-dim]], 1), bias

    def take_apart(self, weights: Sequence[Tensor], taps: Tensor, bias: Tensor) -> list[Tensor]:
        """See ``filters.Taps``."""
        fusion = weights[4]
        dim = len(fusion)
        size = dim if self.are_short[0] else 3 * dim
        outer = taps[:, :size]
        inner = torch.cat([taps[:, size:], outer[:, -dim:]], 1)
        grads: list[Tensor] = []
        halves: list[Tensor] = []
        for i, part in enumerate((outer, inner)):
            weight, own_bias = weights[2 * i : 2 * i + 2]
            half = fusion[:, i * dim : (i + 1) * dim, 0]
            is_short = self.are_short[i]
            own = linear(half.t(), part.t())  # (F, K F)
            grads += [_as_kernel(own, is_short), half.t() @ bias]
            half_grad = linear(part, _side_by_side(weight, is_short))  # (F, F)
            halves.append(half_grad.addr_(bias, own_bias))
        return [*grads, torch.cat(halves, 1)[..., None], bias]


def folding_pays(
    num_frames: int, dim: int, dilations: tuple[int, int], *, with_gradients: bool
) -> bool:
    """Tells whether five taps and their folding cost less than two convolutions and their fusion.

    Args:
        num_frames: T.
        dim: F.
        dilations: of both convolutions.
        with_gradients: whether a backward pass follows.
    """
    taps = sum(1 if dilation >= num_frames else 3 for dilation in dilations)
    # In products of F x F matrices: per frame and pass the fusion's two and the shared tap are
    # saved; folding takes one per tap, and three more for the gradients, of which one repeats it.
    saved = 3 * (3 if with_gradients else 1) * num_frames
    return saved > (4 if with_gradients else 1) * taps * dim


def _side_by_side(weight: Tensor, is_short: bool) -> Tensor:
    """Lays out ``(O, I, 3)`` as ``(O, K I)``: the taps before, after and in the middle."""
    if is_short:
        return weight[..., 1]
    return torch.cat([weight[..., 0], weight[..., 2], weight[..., 1]], 1)


def _as_kernel(taps: Tensor, is_short: bool) -> Tensor:
    """Undoes :func:`_side_by_side`; taps that were left out get zeros."""
    if is_short:
        return torch.nn.functional.pad(taps[..., None], (1, 1))
    before, after, middle = taps.chunk(3, dim=1)
    return torch.stack([before, middle, after], 2)
