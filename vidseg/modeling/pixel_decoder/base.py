"""What every pixel decoder returns, and helpers that they share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from vidseg.errors import ConfigError, nearest
from vidseg.layers import ConvNorm, build_norm
from vidseg.structures import ShapeSpec

__all__ = ["PixelFeatures", "conv_norm", "select_shapes", "xavier_fill"]


@dataclass
class PixelFeatures:
    """Result of a pixel decoder for B frames.

    Args:
        mask_features: ``(B, C_mask, h, w)`` at the finest stride.
        multi_scale: three maps ``(B, C, h_l, w_l)``, coarse to fine.
    """

    mask_features: Tensor
    multi_scale: list[Tensor]


def select_shapes(
    input_shape: Mapping[str, ShapeSpec], names: Iterable[str], *, key: str
) -> dict[str, ShapeSpec]:
    """Picks the wanted feature maps, finest first.

    Args:
        input_shape: what the backbone gives.
        names: what is wanted.
        key: the config key that wants it, for the message.

    Raises:
        ConfigError: if the backbone does not give one of them.
    """
    for name in names:
        if name not in input_shape:
            near = ", ".join(nearest(name, input_shape)) or ", ".join(input_shape)
            raise ConfigError(
                f"{key} asks for the feature map {name!r}, which the backbone does not give; "
                f"nearest: {near}"
            )
    picked = {name: input_shape[name] for name in names}
    return dict(sorted(picked.items(), key=lambda item: item[1].stride))


def conv_norm(
    in_channels: int, out_channels: int, kernel_size: int, *, norm: str, relu: bool = False
) -> ConvNorm:
    """A convolution with norm (bias only without one), xavier-filled."""
    layer = ConvNorm(
        in_channels,
        out_channels,
        kernel_size,
        bias=norm == "",
        norm=build_norm(norm, out_channels),
        relu=relu,
    )
    xavier_fill(layer)
    return layer


def xavier_fill(layer: nn.Conv2d) -> None:
    """Fills a kernel uniformly for linear activations and its bias with zeros."""
    nn.init.kaiming_uniform_(layer.weight, a=1)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
