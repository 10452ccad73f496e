"""The vision transformer of DINOv2 (Oquab et al., 2023) as a trunk of tokens.

Shapes: B batch, H W patches, N tokens, C channels, h heads.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vidseg.layers import Conv2d, Linear

__all__ = ["DinoVisionTransformer"]

_EPS = 1e-6
_SCALE_AT_START = 1e-5


class DinoVisionTransformer(nn.Module):
    """Patches, a class token and learned positions; the blocks are run by whoever holds the trunk.

    Args:
        width: channels of a token.
        depth: blocks.
        num_heads: attention heads, a divisor of ``width``.
        patch_size: side of a patch in pixels; kernels of files for another one are resized.
        grid_size: patches per side that the positions were learned for.
        mlp_ratio: hidden channels of a block's MLP as a multiple of ``width``.

    Note:
        ``mask_token`` and ``norm`` are in every published file and used by none of its segmenters;
        they do not train.
    """

    def __init__(
        self,
        width: int,
        depth: int,
        num_heads: int,
        *,
        patch_size: int = 16,
        grid_size: int = 37,
        mlp_ratio: float = 4.0,
    ) -> None:
        super().__init__()
        self.width, self.patch_size, self.grid_size = width, patch_size, grid_size
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + grid_size**2, width))
        self.mask_token = nn.Parameter(torch.zeros(1, width), requires_grad=False)
        self.patch_embed = _PatchEmbed(width, patch_size)
        hidden = int(width * mlp_ratio)
        self.blocks = nn.ModuleList(_Block(width, num_heads, hidden) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=_EPS).requires_grad_(False)
        nn.init.normal_(self.cls_token, std=1e-6)
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        for part in self.modules():
            if isinstance(part, nn.Linear):
                nn.init.trunc_normal_(part.weight, std=0.02)
                nn.init.zeros_(part.bias)

    def tokens(self, frames: Tensor) -> Tensor:
        """Gives the tokens that enter the first block, the class token first.

        Args:
            frames: ``(B, 3, height, width)``, sides divisible by the patch size.

        Returns:
            ``(B, 1 + H * W, C)``.
        """
        patches = self.patch_embed(frames)  # (B, C, H, W)
        x = patches.flatten(2).transpose(1, 2)
        x = torch.cat([self.cls_token.expand(len(x), -1, -1).to(x.dtype), x], dim=1)
        return x + self._positions(patches.shape[2], patches.shape[3])

    @property
    def unpublished(self) -> tuple[str, ...]:
        """What some files of this network do not hold, and nothing reads."""
        return ("mask_token",)

    def fit_pretrained(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Resizes a patch kernel that a file has for another patch size."""
        name = "patch_embed.proj.weight"
        kernel, size = state.get(name), (self.patch_size, self.patch_size)
        if kernel is None or kernel.dim() != 4 or kernel.shape[2:] == size:
            return state
        resized = F.interpolate(kernel.float(), size=size, mode="bilinear", align_corners=True)
        return {**state, name: resized}

    def _positions(self, height: int, width: int) -> Tensor:
        """Positions of the class token and of ``height`` x ``width`` patches, ``(1, N, C)``."""
        side = self.grid_size
        if (height, width) == (side, side):
            return self.pos_embed
        grid = self.pos_embed[:, 1:].float().transpose(1, 2).unflatten(2, (side, side))
        # DINOv2 adds a tenth of a patch against rounding; it moves every sample a little, so
        # weights expect it.
        scale = ((height + 0.1) / side, (width + 0.1) / side)
        grid = F.interpolate(grid, scale_factor=scale, mode="bicubic")
        patches = grid.flatten(2).transpose(1, 2).to(self.pos_embed.dtype)
        return torch.cat([self.pos_embed[:, :1], patches], dim=1)


class _PatchEmbed(nn.Module):
    """One token per patch."""

    def __init__(self, width: int, patch_size: int) -> None:
        super().__init__()
        self.proj = Conv2d(3, width, patch_size, stride=patch_size)

    def forward(self, frames: Tensor) -> Tensor:
        return self.proj(frames)


class _Block(nn.Module):
    """Self-attention and an MLP, each with a norm before, a learned scale after, and a residual."""

    def __init__(self, width: int, num_heads: int, hidden: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=_EPS)
        self.attn = _Attention(width, num_heads)
        self.ls1 = _LayerScale(width)
        self.norm2 = nn.LayerNorm(width, eps=_EPS)
        self.mlp = _Mlp(width, hidden)
        self.ls2 = _LayerScale(width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.ls1(self.attn(self.norm1(x)))
        return x + self.ls2(self.mlp(self.norm2(x)))


class _Attention(nn.Module):
    """Multi-head self-attention."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = Linear(width, 3 * width)
        self.proj = Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        qkv = self.qkv(x).unflatten(-1, (3, self.num_heads, -1))  # (B, N, 3, h, C/h)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        out = F.scaled_dot_product_attention(q, k, v)
        return self.proj(out.transpose(1, 2).flatten(2))


class _Mlp(nn.Module):
    """Two linear layers with a GELU."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = Linear(width, hidden)
        self.fc2 = Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class _LayerScale(nn.Module):
    """A learned factor per channel, small at the start."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((width,), _SCALE_AT_START))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma
