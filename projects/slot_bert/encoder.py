"""Frames to tokens: four convolutions, and a small network on each place.

Shapes: M frames of all clips, C input channels, H x W pixels, D features, h x w grid, N = h w.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from vidseg.layers import ConvNorm, build_norm
from vidseg.layers.mlp import MLP

__all__ = [
    "NORMS",
    "STRIDES",
    "SimpleConvEncoder",
    "TokenHead",
    "pad_to_stride",
    "with_differences",
]

NORMS = ("BN", "SyncBN", "GN", "none")
STRIDES = (2, 4, 8, 16)
"""Products of the strides of the blocks."""

_FIRST_KERNEL, _KERNEL = 5, 3
_DIFFERENCE_SCALE = 3.0


class SimpleConvEncoder(nn.Module):
    """Blocks of convolution, norm and ReLU.

    Args:
        strides: of the blocks; their product is one of ``STRIDES``.
        channels: of the blocks, as many; the last one is D.
        norm: one of ``NORMS``; without a norm the convolutions have biases.
        input_diff: whether frames come with differences, see :func:`with_differences`.

    Raises:
        ValueError: if an argument is none of the possible ones.
    """

    def __init__(
        self,
        strides: Sequence[int] = (2, 2, 2, 2),
        channels: Sequence[int] = (48, 96, 192, 384),
        norm: str = "BN",
        *,
        input_diff: bool = False,
    ) -> None:
        super().__init__()
        if len(strides) != len(channels) or not strides:
            raise ValueError(f"{len(strides)} strides do not fit {len(channels)} channels")
        if math.prod(strides) not in STRIDES:
            known = ", ".join(map(str, STRIDES))
            raise ValueError(f"the product of the strides {list(strides)} is none of {known}")
        if norm not in NORMS:
            raise ValueError(f"norm {norm!r} is none of {', '.join(NORMS)}")
        self.stride, self.out_channels = math.prod(strides), channels[-1]
        self.input_diff = input_diff
        widths = [6 if input_diff else 3, *channels]
        blocks = [
            ConvNorm(
                widths[index],
                widths[index + 1],
                _KERNEL if index else _FIRST_KERNEL,
                stride=stride,
                bias=norm == "none",
                norm=build_norm("" if norm == "none" else norm, widths[index + 1]),
                relu=True,
            )
            for index, stride in enumerate(strides)
        ]
        self.blocks = nn.Sequential(*blocks)
        for block in blocks:
            nn.init.kaiming_normal_(block.weight, nonlinearity="relu")
            if block.bias is not None:
                nn.init.zeros_(block.bias)

    def forward(self, frames: Tensor) -> Tensor:
        """Encodes frames.

        Args:
            frames: ``(M, C, H, W)`` in [0, 1], C 6 with differences, else 3; H and W multiples of
                ``stride``.

        Returns:
            ``(M, D, h, w)``.
        """
        features: Tensor = self.blocks(frames.contiguous(memory_format=torch.channels_last))
        return features


class TokenHead(nn.Module):
    """Adds the code of the place, and maps each place by a two-layer network.

    Args:
        dim: D.
        position: gives the code of a grid, ``(N, D)``; None for no code.
    """

    def __init__(self, dim: int, position: nn.Module | None) -> None:
        super().__init__()
        self.position = position
        self.norm = nn.LayerNorm(dim)
        self.mlp = MLP(dim, dim, dim, 2)

    def forward(self, features: Tensor) -> Tensor:
        """Turns maps ``(M, D, h, w)`` into tokens ``(M, N, D)``, row by row."""
        tokens = features.flatten(2).mT
        if self.position is not None:
            tokens = tokens + self.position(*features.shape[2:])
        out: Tensor = self.mlp(self.norm(tokens))
        return out


def pad_to_stride(frames: Tensor, stride: int) -> Tensor:
    """Mirrors rows and columns at the lower and right border up to a multiple of the stride.

    Args:
        frames: ``(..., H, W)``, of any size from one pixel.
        stride: of the encoder.

    Returns:
        The frames, or themselves if they fit; ``[..., :H, :W]`` undoes it.
    """
    for dim in (-2, -1):
        size = frames.shape[dim]
        if size % stride:
            place = torch.arange(size + -size % stride, device=frames.device)
            # A border that is wider than the picture swings to and fro.
            place = place % max(2 * size - 2, 1)
            frames = frames.index_select(dim, torch.minimum(place, 2 * size - 2 - place).abs())
    return frames


def with_differences(video: Tensor, previous: Tensor | None = None) -> Tensor:
    """Appends to each frame three times what changed since the one before.

    Args:
        video: ``(B, T, 3, H, W)``, float.
        previous: the frame before the first one, ``(B, 3, H, W)``. Without it the first frame takes
            the difference of the second one, and a single frame zeros.

    Returns:
        ``(B, T, 6, H, W)``.
    """
    if previous is not None:
        before = torch.cat([previous[:, None], video[:, :-1]], 1)
        change = video - before
    elif video.shape[1] > 1:
        change = video[:, 1:] - video[:, :-1]
        change = torch.cat([change[:, :1], change], 1)
    else:
        change = torch.zeros_like(video)
    return torch.cat([video, _DIFFERENCE_SCALE * change], 2)
