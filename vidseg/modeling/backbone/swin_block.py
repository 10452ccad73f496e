"""Blocks of the Swin Transformer: attention within (shifted) windows (Liu et al., ICCV 2021).

Shapes: B batch, H W cells of a map, C channels, W windows, N cells of a window, h heads, K cut
windows.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vidseg.layers import Linear

__all__ = ["SwinBlock", "WindowCuts", "cut_windows"]

_CUT = -100.0  # added to the attention logits of cells that only the cyclic shift brought together


class SwinBlock(nn.Module):
    """Attention within windows and an MLP, each with a norm before and a residual.

    Args:
        width: channels C.
        num_heads: attention heads, a divisor of ``width``.
        window_size: side of a window in cells.
        mlp_ratio: hidden channels of the MLP as a multiple of ``width``.
        qkv_bias: whether queries, keys and values have a bias.
        qk_scale: factor on the attention logits; ``None`` for 1 / root of the head's width.
        drop: dropout of the projection and in the MLP.
        attn_drop: dropout of the attention weights.
        drop_path: probability that an update is left out for a sample in training.
    """

    def __init__(
        self,
        width: int,
        num_heads: int,
        window_size: int,
        *,
        mlp_ratio: float,
        qkv_bias: bool,
        qk_scale: float | None,
        drop: float,
        attn_drop: float,
        drop_path: float,
    ) -> None:
        super().__init__()
        self.window_size, self.drop_path = window_size, drop_path
        self.norm1 = nn.LayerNorm(width)
        self.attn = _WindowAttention(
            width, num_heads, window_size, qkv_bias=qkv_bias, qk_scale=qk_scale, dropout=attn_drop
        )
        self.norm2 = nn.LayerNorm(width)
        self.mlp = _Mlp(width, int(width * mlp_ratio), drop)
        self.drop = nn.Dropout(drop)

    def forward(self, x: Tensor, cuts: WindowCuts | None) -> Tensor:
        """Runs the block on ``(B, H, W, C)``.

        Args:
            x: a map of any size.
            cuts: of ``cut_windows`` for windows shifted by half their side; ``None`` for unshifted.
        """
        x = x + self._keep(self.drop(self._attend(self.norm1(x), cuts)))
        return x + self._keep(self.mlp(self.norm2(x)))

    def _attend(self, x: Tensor, cuts: WindowCuts | None) -> Tensor:
        height, width = x.shape[1:3]
        side, shift = self.window_size, 0 if cuts is None else self.window_size // 2
        x = F.pad(x, (0, 0, 0, -width % side, 0, -height % side))
        if shift:
            x = x.roll((-shift, -shift), dims=(1, 2))
        x = x.unflatten(2, (-1, side)).unflatten(1, (-1, side))  # (B, rows, side, columns, side, C)
        rows, columns = x.shape[1], x.shape[3]
        windows = x.transpose(2, 3).flatten(3, 4).flatten(1, 2)  # (B, W, N, C)
        windows = self.attn(windows, cuts)
        x = windows.unflatten(2, (side, side)).unflatten(1, (rows, columns)).transpose(2, 3)
        x = x.flatten(3, 4).flatten(1, 2)
        if shift:
            x = x.roll((shift, shift), dims=(1, 2))
        return x[:, :height, :width]

    def _keep(self, update: Tensor) -> Tensor:
        """Leaves the update out for some samples in training."""
        if not (self.training and self.drop_path):
            return update
        # Costs 150 MiB and seconds, which only this training should pay.
        from torchvision.ops import stochastic_depth

        return stochastic_depth(update, self.drop_path, mode="row")


class _WindowAttention(nn.Module):
    """Multi-head self-attention in every window, with a learned bias per relative position."""

    relative_position_index: Tensor

    def __init__(
        self,
        width: int,
        num_heads: int,
        window_size: int,
        *,
        qkv_bias: bool,
        qk_scale: float | None,
        dropout: float,
    ) -> None:
        super().__init__()
        self.num_heads, self.scale, self.dropout = num_heads, qk_scale, dropout
        table = torch.zeros((2 * window_size - 1) ** 2, num_heads)
        self.relative_position_bias_table = nn.Parameter(table)
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)
        self.register_buffer("relative_position_index", _relative_positions(window_size))
        self.qkv = Linear(width, 3 * width, bias=qkv_bias)
        self.proj = Linear(width, width)

    def forward(self, windows: Tensor, cuts: WindowCuts | None) -> Tensor:
        """Attends within ``(B, W, N, C)``; ``cuts`` says which windows hold parts of several."""
        qkv = self.qkv(windows).unflatten(-1, (3, self.num_heads, -1))  # (B, W, N, 3, h, C/h)
        qkv = qkv.permute(3, 0, 1, 4, 2, 5)  # (3, B, W, h, N, C/h)
        bias = self.relative_position_bias_table[self.relative_position_index]
        bias = bias.permute(2, 0, 1)[None].to(qkv.dtype)  # (1, h, N, N)
        out = self._read(qkv, bias)
        if cuts is not None:
            # Only a few windows at two borders: a mask for all of them costs more than doing these
            # twice.
            masks = bias + cuts.masks[:, None].to(qkv.dtype)  # (K, h, N, N)
            again = self._read(qkv[:, :, cuts.windows], masks.repeat(len(windows), 1, 1, 1))
            out = out.index_copy(1, cuts.windows, again)
        return self.proj(out.transpose(2, 3).flatten(3))

    def _read(self, qkv: Tensor, bias: Tensor) -> Tensor:
        q, k, v = qkv.flatten(1, 2)
        out = F.scaled_dot_product_attention(
            q,
            k,
            v,
            attn_mask=bias,
            dropout_p=self.dropout if self.training else 0.0,
            scale=self.scale,
        )
        return out.unflatten(0, qkv.shape[1:3])  # (B, W, h, N, C/h)


class _Mlp(nn.Module):
    """Two linear layers with a GELU."""

    def __init__(self, width: int, hidden: int, drop: float) -> None:
        super().__init__()
        self.fc1 = Linear(width, hidden)
        self.fc2 = Linear(hidden, width)
        self.drop = nn.Dropout(drop)

    def forward(self, x: Tensor) -> Tensor:
        return self.drop(self.fc2(self.drop(F.gelu(self.fc1(x)))))


@dataclass(frozen=True)
class WindowCuts:
    """Windows in which a cyclic shift brings cells of opposite borders together.

    Args:
        windows: their numbers, int64 ``(K,)``.
        masks: what is added to their attention logits, ``(K, N, N)``.
    """

    windows: Tensor
    masks: Tensor


def cut_windows(size: tuple[int, int], side: int, device: torch.device) -> WindowCuts:
    """Finds the windows that a shift by half a window cuts.

    Args:
        size: (height, width) of the map in cells, which is filled up to whole windows.
        side: of a window.
        device: of the result.
    """
    shift = side // 2
    rows, columns = (-(-cells // side) for cells in size)
    # The last `shift` rows and columns come from the opposite border, and within the last windows
    # what lies before them does not touch them.
    bands = []
    for count in (rows, columns):
        cell = torch.arange(count * side, device=device)
        bands.append((cell >= (count - 1) * side).long() + (cell >= count * side - shift))
    region = 3 * bands[0][:, None] + bands[1]  # (rows * side, columns * side)
    region = region.unflatten(1, (columns, side)).unflatten(0, (rows, side))
    region = region.transpose(1, 2).flatten(2).flatten(0, 1)  # (W, N)
    right = range(columns - 1, (rows - 1) * columns, columns)
    bottom = range((rows - 1) * columns, rows * columns)
    windows = torch.tensor([*right, *bottom], device=device)
    region = region[windows]
    masks = (region[:, :, None] != region[:, None, :]) * _CUT
    return WindowCuts(windows, masks)


def _relative_positions(side: int) -> Tensor:
    """Row of the bias table for every pair of cells of a window, int64 ``(N, N)``."""
    cell = torch.arange(side * side)
    row, column = cell // side, cell % side
    down = row[:, None] - row + side - 1
    right = column[:, None] - column + side - 1
    return down * (2 * side - 1) + right
