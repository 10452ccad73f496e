"""Frames to tokens: a few convolutions, and a small network on each place.

Shapes: M frames of all clips, C input channels, H x W pixels, D features, h x w grid, N = h w.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vidseg.config import CfgNode
from vidseg.layers import MLP, Conv2d, ConvNorm, build_norm

__all__ = [
    "ENCODERS",
    "NORMS",
    "STRIDES",
    "PyramidEncoder",
    "SimpleConvEncoder",
    "TokenHead",
    "build_conv_encoder",
    "pad_to_stride",
    "with_differences",
]

ENCODERS = ("conv", "pyramid")
NORMS = ("BN", "SyncBN", "GN", "none")
STRIDES = (2, 4, 8, 16)
"""What strides may multiply to."""

_FIRST_KERNEL, _KERNEL = 5, 3
_DIFFERENCE_SCALE = 3.0


class _ConvEncoder(nn.Module):
    """What the encoders have in common.

    Attributes:
        stride: pixels of a side of a token.
        divisor: of which height and width have to be multiples.
        out_channels: D.
        input_diff: whether frames come with differences, see :func:`with_differences`.
    """

    def __init__(
        self, stride: int, divisor: int, out_channels: int, *, input_diff: bool, bf16: bool
    ) -> None:
        super().__init__()
        if divisor not in STRIDES:
            known = ", ".join(map(str, STRIDES))
            raise ValueError(f"the strides multiply to {divisor}, which is none of {known}")
        self.stride, self.divisor, self.out_channels = stride, divisor, out_channels
        self.input_diff, self.bf16 = input_diff, bf16

    def forward(self, frames: Tensor) -> Tensor:
        """Encodes frames.

        Args:
            frames: ``(M, C, H, W)`` in [0, 1], C 6 with differences, else 3; H and W multiples of
                ``divisor``.

        Returns:
            ``(M, D, h, w)``.
        """
        frames = frames.contiguous(memory_format=torch.channels_last)
        if not self.bf16:
            return self.encode(frames)
        with torch.autocast(frames.device.type, torch.bfloat16):
            features = self.encode(frames)
        return features.float()

    def encode(self, frames: Tensor) -> Tensor:
        """Does so in the precision that the caller has set."""
        raise NotImplementedError


class SimpleConvEncoder(_ConvEncoder):
    """Blocks of convolution, norm and ReLU.

    Args:
        strides: of the blocks; their product is one of ``STRIDES``.
        channels: of the blocks, as many; the last one is D.
        norm: one of ``NORMS``; without a norm the convolutions have biases.
        input_diff: whether frames come with differences, see :func:`with_differences`.
        bf16: compute in bfloat16 whatever the precision around; the features are float32.

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
        bf16: bool = False,
    ) -> None:
        if len(strides) != len(channels) or not strides:
            raise ValueError(f"{len(strides)} strides do not fit {len(channels)} channels")
        stride = math.prod(strides)
        super().__init__(stride, stride, channels[-1], input_diff=input_diff, bf16=bf16)
        widths = [6 if input_diff else 3, *channels]
        self.blocks = nn.Sequential(
            *(
                _block(a, b, norm, kernel=_KERNEL if index else _FIRST_KERNEL, stride=step)
                for index, (a, b, step) in enumerate(zip(widths, channels, strides, strict=False))
            )
        )

    def encode(self, frames: Tensor) -> Tensor:
        """Runs the blocks."""
        features: Tensor = self.blocks(frames)
        return features


class PyramidEncoder(_ConvEncoder):
    """A fine level that sees little, and what a coarse one with a wide view adds to it.

    Most of the work is done on the coarse level, so that a step costs two thirds of one of four
    blocks on the fine grid, while each token sees several times as far.

    Args:
        strides: from pixels to the fine level, and from there to the coarse one.
        channels: of the fine level, of the coarse level, and D.
        norm: one of ``NORMS``.
        dilations: of the further blocks on the coarse level.
        input_diff: whether frames come with differences, see :func:`with_differences`.
        bf16: compute in bfloat16 whatever the precision around; the features are float32.

    Raises:
        ValueError: if an argument is none of the possible ones.
    """

    def __init__(
        self,
        strides: Sequence[int] = (2, 2),
        channels: Sequence[int] = (32, 64, 64),
        norm: str = "BN",
        *,
        dilations: Sequence[int] = (1, 2, 4),
        input_diff: bool = False,
        bf16: bool = False,
    ) -> None:
        if len(strides) != 2 or len(channels) != 3:
            raise ValueError(
                "a pyramid takes 2 strides, fine and coarse, and 3 channels, fine, coarse and out; "
                f"not {list(strides)} and {list(channels)}"
            )
        fine, coarse, out = channels
        super().__init__(strides[0], math.prod(strides), out, input_diff=input_diff, bf16=bf16)
        self.fine = _block(
            6 if input_diff else 3, fine, norm, kernel=_FIRST_KERNEL, stride=strides[0]
        )
        self.coarse = nn.Sequential(
            _block(fine, coarse, norm, stride=strides[1]),
            *(_block(coarse, coarse, norm, dilation=dilation) for dilation in dilations),
        )
        self.from_fine = Conv2d(fine, out, 1)
        self.from_coarse = Conv2d(coarse, out, 1)

    def encode(self, frames: Tensor) -> Tensor:
        """Runs both levels."""
        fine = self.fine(frames)
        coarse = self.from_coarse(self.coarse(fine))
        # The sizes fit since the frames are multiples of both strides.
        context = F.interpolate(coarse, fine.shape[2:], mode="bilinear", align_corners=False)
        features: Tensor = context + self.from_fine(fine)
        return features


def build_conv_encoder(node: CfgNode) -> SimpleConvEncoder | PyramidEncoder:
    """Builds the encoder of ``MODEL.SLOT_BERT.ENCODER``.

    Args:
        node: that node; its ``NAME`` is one of ``ENCODERS``.

    Raises:
        ValueError: if a value is none of the possible ones.
    """
    if node.NAME not in ENCODERS:
        raise ValueError(f"encoder {node.NAME!r} is none of {', '.join(ENCODERS)}")
    common: Any = {"input_diff": node.INPUT_DIFF, "bf16": node.BF16}
    if node.NAME == "conv":
        return SimpleConvEncoder(node.STRIDES, node.CHANNELS, node.NORM, **common)
    return PyramidEncoder(
        node.STRIDES, node.CHANNELS, node.NORM, dilations=node.DILATIONS, **common
    )


def _block(
    in_channels: int,
    out_channels: int,
    norm: str,
    *,
    kernel: int = _KERNEL,
    stride: int = 1,
    dilation: int = 1,
) -> ConvNorm:
    if norm not in NORMS:
        raise ValueError(f"norm {norm!r} is none of {', '.join(NORMS)}")
    block = ConvNorm(
        in_channels,
        out_channels,
        kernel,
        stride=stride,
        dilation=dilation,
        bias=norm == "none",
        norm=build_norm("" if norm == "none" else norm, out_channels),
        relu=True,
    )
    nn.init.kaiming_normal_(block.weight, nonlinearity="relu")
    if block.bias is not None:
        nn.init.zeros_(block.bias)
    return block


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


def with_differences(
    video: Tensor, previous: Tensor | None = None, unseen: Tensor | None = None
) -> Tensor:
    """Appends to each frame three times what changed since the one before.

    Args:
        video: ``(B, T, 3, H, W)``, float.
        previous: the frame before the first one, ``(B, 3, H, W)``. Without it the first frame takes
            the difference of the second one, and a single frame zeros.
        unseen: bool ``(B, T)``, frames that others are compared as if without.

    Returns:
        ``(B, T, 6, H, W)``.
    """
    num_frames = video.shape[1]
    if previous is not None:
        video = torch.cat([previous[:, None], video], 1)
        unseen = unseen if unseen is None else F.pad(unseen, (1, 0))
    if unseen is not None:
        change = _since_last_seen(video, unseen)
    elif video.shape[1] > 1:
        change = video[:, 1:] - video[:, :-1]
        change = torch.cat([change[:, :1], change], 1)
    else:
        change = torch.zeros_like(video)
    return torch.cat([video, _DIFFERENCE_SCALE * change], 2)[:, -num_frames:]


def _since_last_seen(video: Tensor, unseen: Tensor) -> Tensor:
    """Compares frames with the last one before that was seen, the first seen as the second is."""
    numbers = torch.arange(video.shape[1], device=video.device).expand(unseen.shape)
    last_seen = numbers.masked_fill(unseen, -1).cummax(1).values
    before = F.pad(last_seen[:, :-1], (1, 0), value=-1)
    change = video - _frames_at(video, before.clamp(min=0))
    is_first = before < 0
    # Without a second one this is frame 0, and its difference to itself.
    second = (~is_first & ~unseen).int().argmax(1, keepdim=True).expand(unseen.shape)
    return torch.where(is_first[..., None, None, None], _frames_at(change, second), change)


def _frames_at(video: Tensor, numbers: Tensor) -> Tensor:
    """Takes the frames ``(B, T)`` of clips ``(B, T, C, H, W)``."""
    return video.take_along_dim(numbers[..., None, None, None], 1)
