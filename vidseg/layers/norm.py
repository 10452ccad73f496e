"""Normalisation by name, and a convolution that carries its norm and activation."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vidseg.collectives import sum_over_ranks, world_size
from vidseg.errors import ConfigError

from .onednn import Conv2d
from .recording import is_recorded

__all__ = ["ConvNorm", "FrozenBatchNorm2d", "SyncBatchNorm", "build_norm", "group_norm"]

_NORMS = ("", "FrozenBN", "BN", "SyncBN", "GN")


class FrozenBatchNorm2d(nn.Module):
    """Batch norm with fixed statistics and fixed scale and shift, all of them buffers.

    Args:
        channels: number of channels.
        eps: added to the variance.
    """

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int, *, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.register_buffer("weight", torch.ones(channels))
        self.register_buffer("bias", torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    @classmethod
    def from_batch_norm(cls, norm: nn.modules.batchnorm._BatchNorm) -> FrozenBatchNorm2d:
        """Freezes a trained batch norm at its present statistics."""
        frozen = cls(norm.num_features, eps=norm.eps)
        frozen.load_state_dict({name: norm.state_dict()[name] for name in frozen.state_dict()})
        return frozen

    def forward(self, x: Tensor) -> Tensor:
        """Normalises ``(B, C, H, W)``."""
        scale, shift = _fixed_affine(self)
        return torch.addcmul(shift.to(x.dtype)[:, None, None], x, scale.to(x.dtype)[:, None, None])


class SyncBatchNorm(nn.SyncBatchNorm):
    """Batch norm over the batches of all ranks, on a CPU as well, where torch's own refuses.

    With one rank it is a plain batch norm.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Normalises ``(B, C, ...)``."""
        if not (self.training and x.device.type == "cpu" and world_size() > 1):
            return super().forward(x)
        values = x.to(torch.promote_types(x.dtype, torch.float32))
        dims = [0, *range(2, x.dim())]
        per_channel = (-1, *[1] * (x.dim() - 2))
        count = sum_over_ranks(values.new_tensor([values[:, 0].numel()]))
        mean = sum_over_ranks(values.sum(dims)) / count
        centred = values - mean.view(per_channel)
        variance = sum_over_ranks(centred.square().sum(dims)) / count
        self._remember(mean.detach(), variance.detach() * (count / (count - 1).clamp(min=1)))
        scale = self.weight * (variance + self.eps).rsqrt()
        return (centred * scale.view(per_channel) + self.bias.view(per_channel)).to(x.dtype)

    @torch.no_grad()
    def _remember(self, mean: Tensor, variance: Tensor) -> None:
        self.num_batches_tracked += 1  # type: ignore
        self.running_mean.lerp_(mean, self.momentum)  # type: ignore
        self.running_var.lerp_(variance, self.momentum)  # type: ignore


class ConvNorm(Conv2d):
    """A convolution with an optional norm (child ``norm``) and an optional ReLU.

    A norm with fixed statistics is folded into the kernel, unless that is larger than a frame of
    the output: one pass over the pixels less, in training as well.

    Args:
        in_channels: input channels.
        out_channels: output channels.
        kernel_size: side of the kernel; "same" padding for odd sides.
        stride: step of the kernel.
        dilation: spacing of the kernel.
        groups: channel groups.
        bias: whether the convolution itself has a bias.
        norm: norm over the output, ``None`` for none.
        relu: whether a ReLU follows.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
        bias: bool = False,
        norm: nn.Module | None = None,
        relu: bool = False,
    ) -> None:
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride=stride,
            padding=dilation * (kernel_size // 2),
            dilation=dilation,
            groups=groups,
            bias=bias,
        )
        self.norm = norm
        self.relu = relu

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        """Maps ``(B, C_in, H, W)`` to ``(B, C_out, H', W')``.

        Args:
            x: the input.
            residual: of the output's shape, added after the norm and before the ReLU.
        """
        weight, bias = self.weight, self.bias
        if self.norm is not None and not self._is_folded(x):
            # No norm keeps its output for the backward pass.
            x = self.norm(super().forward(x))
            x = x if residual is None else x.add_(residual)
            return F.relu_(x) if self.relu else x
        if self.norm is not None:
            scale, shift = _fixed_affine(self.norm)
            weight = weight * scale[:, None, None, None]
            bias = shift if bias is None else shift + scale * bias
        return self.convolve(x, weight, bias, residual=residual, relu=self.relu)

    def _is_folded(self, x: Tensor) -> bool:
        """Whether the norm is fixed and the kernel is smaller than a frame of the output.

        A graph that is recorded must not depend on the size of a frame.
        """
        step = self.stride[0] * self.stride[1]
        if not is_recorded() and x.shape[-2] * x.shape[-1] < step * self.weight[0].numel():
            return False
        if isinstance(self.norm, nn.modules.batchnorm._BatchNorm):
            return not self.norm.training and self.norm.track_running_stats
        return isinstance(self.norm, FrozenBatchNorm2d)


def build_norm(name: str, channels: int) -> nn.Module | None:
    """Builds a norm over the channels of a feature map.

    Args:
        name: ``"FrozenBN"``, ``"BN"``, ``"SyncBN"``, ``"GN"`` or ``""`` for none.
        channels: number of channels; group norm takes 32 groups if they divide.

    Raises:
        ConfigError: if there is no norm of that name.
    """
    if name == "":
        return None
    if name == "FrozenBN":
        return FrozenBatchNorm2d(channels)
    if name == "BN":
        return nn.BatchNorm2d(channels)
    if name == "SyncBN":
        return SyncBatchNorm(channels)
    if name == "GN":
        return group_norm(channels)
    known = ", ".join(repr(norm) for norm in _NORMS)
    raise ConfigError(f"there is no norm {name!r}; set the NORM key to one of {known}")


def group_norm(channels: int) -> nn.GroupNorm:
    """Builds a group norm of 32 groups; for other widths, of fewer with two channels or more.

    A group of one channel would take away the channel's mean in every image.
    """
    most = 32 if channels % 32 == 0 else max(min(32, channels // 2), 1)
    groups = next(groups for groups in range(most, 0, -1) if channels % groups == 0)
    return nn.GroupNorm(groups, channels)


def _fixed_affine(norm: nn.Module | None) -> tuple[Tensor, Tensor]:
    """Scale and shift that a norm with fixed statistics amounts to, each ``(C,)``."""
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()  # type: ignore
    return scale, norm.bias - norm.running_mean * scale  # type: ignore
