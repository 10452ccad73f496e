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
    are_kept: bool = False

    def assemble(self, weights: Sequence[Tensor]) -> tuple[list[Tensor], Tensor]:
        """See ``filters.Taps``."""
        weight, bias = weights
        return [weight.flatten(1)], bias

    def take_apart(
        self, weights: Sequence[Tensor], taps: Sequence[Tensor], bias: Tensor
    ) -> list[Tensor]:
        """See ``filters.Taps``."""
        return [taps[0].view_as(weights[0]), bias]


class DilatedTaps:
    """A convolution of kernel 3: weights ``(O, I, 3)`` and ``(O,)``.

    Args:
        dilation: distance of its taps.
        num_frames: T; taps that would read beyond both ends of the video are left out.
    """

    def __init__(self, dilation: int, num_frames: int) -> None:
        self.are_kept = False
        is_short = dilation >= num_frames
        self.offsets: tuple[int, ...] = (0,) if is_short else (-dilation, 0, dilation)

    def assemble(self, weights: Sequence[Tensor]) -> tuple[list[Tensor], Tensor]:
        """See ``filters.Taps``."""
        weight, bias = weights
        return self.matrices(weight), bias

    def take_apart(
        self, weights: Sequence[Tensor], taps: Sequence[Tensor], bias: Tensor
    ) -> list[Tensor]:
        """See ``filters.Taps``."""
        return [self.kernel(taps), bias]

    def matrices(self, weight: Tensor) -> list[Tensor]:
        """Takes the taps that read something out of a kernel ``(O, I, 3)``: ``(O, I)`` each."""
        used = (1,) if len(self.offsets) == 1 else (0, 1, 2)
        return [weight[..., tap].contiguous() for tap in used]

    def kernel(self, taps: Sequence[Tensor]) -> Tensor:
        """Undoes :meth:`matrices`; taps that were left out get zeros."""
        if len(taps) == 1:
            return torch.nn.functional.pad(taps[0][..., None], (1, 1))
        return torch.stack(list(taps), 2)


class FoldedTaps:
    """Two convolutions of kernel 3 and the 1x1 convolution of both, as one filter of five taps.

    Weights: ``(F, F, 3)`` and ``(F,)`` of the first, likewise of the second, ``(F, 2 F, 1)`` and
    ``(F,)`` of the fusion.

    Args:
        dilations: of the first and the second convolution.
        num_frames: T; taps that would read beyond both ends of the video are left out.
        keep: whether the folded taps are kept for the gradients, 5 F F values; else they are folded
            again, 6 F F F products.
    """

    def __init__(self, dilations: tuple[int, int], num_frames: int, *, keep: bool = False) -> None:
        self.are_kept = keep
        self.parts = tuple(DilatedTaps(dilation, num_frames) for dilation in dilations)
        first, second = (part.offsets for part in self.parts)
        self.offsets = (*first, *(offset for offset in second if offset))

    def assemble(self, weights: Sequence[Tensor]) -> tuple[list[Tensor], Tensor]:
        """See ``filters.Taps``."""
        bias = weights[5]
        folded: list[list[Tensor]] = []
        for i, (part, half) in enumerate(zip(self.parts, _halves(weights[4]), strict=True)):
            weight, own_bias = weights[2 * i : 2 * i + 2]
            folded.append([linear(half, matrix.t()) for matrix in part.matrices(weight)])
            bias = bias + half @ own_bias
        first, second = folded
        first[len(first) // 2] += second.pop(len(second) // 2)
        return [*first, *second], bias

    def take_apart(
        self, weights: Sequence[Tensor], taps: Sequence[Tensor], bias: Tensor
    ) -> list[Tensor]:
        """See ``filters.Taps``."""
        size = len(self.parts[0].offsets)
        first, second = list(taps[:size]), list(taps[size:])
        second.insert(len(second) // 2, first[size // 2])
        grads: list[Tensor] = []
        half_grads: list[Tensor] = []
        halves = _halves(weights[4])
        for i, (part, own) in enumerate(zip(self.parts, (first, second), strict=True)):
            weight, own_bias = weights[2 * i : 2 * i + 2]
            half = halves[i]
            grads.append(part.kernel([linear(half.t(), tap.t()) for tap in own]))
            grads.append(half.t() @ bias)
            half_grad = torch.outer(bias, own_bias)
            for tap, matrix in zip(own, part.matrices(weight), strict=True):
                half_grad += linear(tap, matrix)
            half_grads.append(half_grad)
        return [*grads, torch.cat(half_grads, 1)[..., None], bias]


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


def _halves(fusion: Tensor) -> list[Tensor]:
    """What a fusion ``(F, 2 F, 1)`` applies to the first and to the second convolution."""
    return [half.contiguous() for half in fusion[..., 0].chunk(2, dim=1)]
