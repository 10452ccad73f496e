"""Multi-scale deformable attention in plain PyTorch (Zhu et al., ICLR 2021).

Shapes: B batch, N queries, S memory tokens of all levels, C channels, M heads, L levels, P points.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .bag_sampling import sample_by_bags
from .onednn import Linear
from .recording import is_recorded

__all__ = ["MSDeformAttn", "cell_centres", "sample_levels"]


class MSDeformAttn(nn.Module):
    """Every query reads a few learned places of every feature level.

    Args:
        d_model: width of queries and memory.
        num_levels: feature levels L.
        num_heads: heads M, a divisor of ``d_model``.
        num_points: places P read per head and level.

    Raises:
        ValueError: if the heads do not divide the width.

    Source: Deformable DETR, section 4.1; the place offsets start on rays of equal angle.
    """

    def __init__(
        self,
        d_model: int,
        num_levels: int,
        *,
        num_heads: int = 8,
        num_points: int = 4,
    ) -> None:
        super().__init__()
        if d_model % num_heads:
            raise ValueError(f"{num_heads} heads do not divide the width {d_model}")
        self.num_heads, self.num_levels, self.num_points = num_heads, num_levels, num_points
        samples = num_heads * num_levels * num_points
        self.sampling_offsets = Linear(d_model, samples * 2)
        self.attention_weights = Linear(d_model, samples)
        self.value_proj = Linear(d_model, d_model)
        self.output_proj = Linear(d_model, d_model)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Starts with content-free sampling on a small star around the reference point."""
        nn.init.zeros_(self.sampling_offsets.weight)
        angle = torch.arange(self.num_heads) * (2 * math.pi / self.num_heads)
        ray = torch.stack([angle.cos(), angle.sin()], dim=-1)  # (M, 2) as (x, y)
        ray = ray / ray.abs().amax(-1, keepdim=True)
        distance = torch.arange(1, self.num_points + 1).float()
        star = torch.einsum("md,p->mpd", ray, distance)[:, None]  # (M, 1, P, 2)
        with torch.no_grad():
            self.sampling_offsets.bias.copy_(star.expand(-1, self.num_levels, -1, -1).flatten())
        nn.init.zeros_(self.attention_weights.weight)
        nn.init.zeros_(self.attention_weights.bias)
        for layer in (self.value_proj, self.output_proj):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(
        self,
        query: Tensor,
        reference: Tensor,
        memory: Tensor,
        level_sizes: Sequence[tuple[int, int]],
    ) -> Tensor:
        """Reads the memory around the reference points.

        Args:
            query: ``(B, N, C)``, decides where to read and with which weights.
            reference: ``(N, 2)`` or ``(B, N, 2)``, points as (x, y) in [0, 1] of every level.
            memory: ``(B, S, C)``, the levels flattened row by row and joined.
            level_sizes: (height, width) of every level.

        Returns:
            ``(B, N, C)``.
        """
        heads, levels, points = self.num_heads, self.num_levels, self.num_points
        value = self.value_proj(memory).unflatten(-1, (heads, -1))  # (B, S, M, D)
        logits = self.attention_weights(query).unflatten(-1, (heads, levels * points))
        weights = _softmax(logits).unflatten(-1, (levels, points))  # (B, N, M, L, P)
        offsets = self.sampling_offsets(query).unflatten(-1, (heads, levels, points, 2))
        # A tensor of the sizes would make them constants where the graph is recorded.
        columns, rows = reference.unbind(-1)
        cells = [torch.stack([columns * w, rows * h], dim=-1) for h, w in level_sizes]
        centre = torch.stack(cells, dim=-2) - 0.5  # (B or 1, N, L, 2)
        centre = centre[..., None, :, None, :].expand(*centre.shape[:-2], 1, levels, points, 2)
        x, y = (o + c for o, c in zip(offsets.unbind(-1), centre.unbind(-1), strict=True))
        out = sample_levels(value.to(x.dtype), level_sizes, x, y, weights.to(x.dtype))
        return self.output_proj(out.to(query.dtype))


def sample_levels(
    value: Tensor, level_sizes: Sequence[tuple[int, int]], x: Tensor, y: Tensor, weights: Tensor
) -> Tensor:
    """Weighted sum of bilinear samples from several feature levels.

    Args:
        value: ``(B, S, M, D)``, the levels flattened row by row and joined.
        level_sizes: (height, width) of every level; the areas sum to S.
        x: ``(B, N, M, L, P)``, columns in cells of the level, 0 at the centre of the first; outside
            of the level reads zero.
        y: rows, likewise.
        weights: ``(B, N, M, L, P)``.

    Returns:
        ``(B, N, M * D)``.

    Note:
        On a CPU the corners of the samples are summed as bags of rows; that is differentiable once
        only. Elsewhere, in other precisions and where the graph is recorded (``torch.compile``,
        export) one ``grid_sample`` per level does the same.
    """
    if _runs_on_the_spot(value, x, y, weights):
        return sample_by_bags(value, level_sizes, x, y, weights)
    batch, num, heads = weights.shape[:3]
    levels = value.split([h * w for h, w in level_sizes], dim=1)
    total: Tensor | None = None
    for level, (tokens, (height, width)) in enumerate(zip(levels, level_sizes, strict=True)):
        image = tokens.permute(0, 2, 3, 1).reshape(batch * heads, -1, height, width)
        # grid_sample counts from -1 to 1 between the outer borders.
        axes = [(axis[:, :, :, level] + 0.5) * (2 / n) - 1 for axis, n in ((x, width), (y, height))]
        places = torch.stack(axes, dim=-1).transpose(1, 2).flatten(0, 1)  # (B*M, N, P, 2)
        share = weights[:, :, :, level].transpose(1, 2).flatten(0, 1)  # (B*M, N, P)
        samples = F.grid_sample(image, places, mode="bilinear", align_corners=False)
        part = (samples * share[:, None]).sum(-1)  # (B*M, D, N)
        total = part if total is None else total + part
    if total is None:
        raise ValueError("deformable attention needs at least one feature level")
    return total.unflatten(0, (batch, heads)).permute(0, 3, 1, 2).reshape(batch, num, -1)


def _runs_on_the_spot(*tensors: Tensor) -> bool:
    """Whether plain CPU numbers are at hand, of a type that the bags can take."""
    if is_recorded():
        return False
    # Half precision cannot count the cells of a level, and the bags have no gradients in it.
    exact = (torch.float32, torch.float64)
    return all(tensor.device.type == "cpu" and tensor.dtype in exact for tensor in tensors)


def _softmax(logits: Tensor) -> Tensor:
    """Softmax over the last dimension, in float32 or wider.

    On a CPU torch's own goes through so short a dimension one entry at a time: six times slower.
    """
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    if not _runs_on_the_spot(logits):
        return logits.softmax(-1)
    powers = (logits - logits.detach().amax(-1, keepdim=True)).exp()
    return powers / powers.sum(-1, keepdim=True)


def cell_centres(
    level_sizes: Sequence[tuple[int, int]],
    *,
    device: torch.device | str | None = None,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Gives the centres of all cells of all levels as (x, y) in [0, 1], ``(S, 2)``."""
    centres = []
    for height, width in level_sizes:
        y = (torch.arange(height, device=device, dtype=dtype) + 0.5) / height
        x = (torch.arange(width, device=device, dtype=dtype) + 0.5) / width
        rows = y[:, None].expand(height, width)
        columns = x[None, :].expand(height, width)
        centres.append(torch.stack([columns, rows], dim=-1).flatten(0, 1))
    return torch.cat(centres)
