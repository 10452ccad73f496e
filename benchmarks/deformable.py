"""Deformable attention with gradients, against the pure PyTorch of transformers.

Shapes: B frames, S tokens of the strides 8, 16 and 32, C channels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .case import Case, Package, Run

if TYPE_CHECKING:
    from torch import Tensor

    from vidseg.layers import MSDeformAttn

__all__ = ["CASES", "TRANSFORMERS"]

TRANSFORMERS = Package("transformers", install="pip install 'vidseg[bench]'")

_WIDTH, _HEADS, _POINTS = 256, 8, 4


def _sizes(height: int, width: int) -> list[tuple[int, int]]:
    return [(-(-height // stride), -(-width // stride)) for stride in (32, 16, 8)]


def _inputs(sizes: list[tuple[int, int]], batch: int, width: int) -> tuple[Tensor, ...]:
    """Leaves ``(B, S, C)`` for query and memory, and a gradient of the output."""
    import torch

    shape = (batch, sum(h * w for h, w in sizes), width)
    query, memory, gradient = (torch.randn(shape) for _ in range(3))
    return query.requires_grad_(), memory.requires_grad_(), gradient


def _spread_out(attention: MSDeformAttn) -> None:
    """Makes the places depend on the queries, as in a trained network."""
    import torch

    for layer in (attention.sampling_offsets, attention.attention_weights):
        torch.nn.init.normal_(layer.weight, std=0.05)


def _ours(height: int, width: int, batch: int, channels: int, heads: int) -> Run:
    import torch

    from vidseg.layers import MSDeformAttn, cell_centres

    sizes = _sizes(height, width)
    attention = MSDeformAttn(channels, len(sizes), num_heads=heads, num_points=_POINTS)
    _spread_out(attention)
    query, memory, gradient = _inputs(sizes, batch, channels)
    centres = cell_centres(sizes)

    def run() -> object:
        out = attention(query, centres, memory, sizes)
        leaves = [query, memory, *attention.parameters()]
        return torch.autograd.grad(out, leaves, gradient)

    return run


def _theirs(height: int, width: int, batch: int, channels: int, heads: int) -> Run:
    import torch
    from transformers.models.mask2former import modeling_mask2former as peer

    from vidseg.layers import MSDeformAttn, cell_centres

    sizes = _sizes(height, width)
    ours = MSDeformAttn(channels, len(sizes), num_heads=heads, num_points=_POINTS)
    _spread_out(ours)
    query, memory, gradient = _inputs(sizes, batch, channels)
    attention: Any = peer.Mask2FormerPixelDecoderEncoderMultiscaleDeformableAttention(
        channels, heads, len(sizes), _POINTS
    )
    attention.load_state_dict(ours.state_dict())
    centres = cell_centres(sizes)[None, :, None].expand(batch, -1, len(sizes), -1)

    def run() -> object:
        out, _ = attention(
            query,
            encoder_hidden_states=memory,
            reference_points=centres,
            spatial_shapes_list=sizes,
        )
        leaves = [query, memory, *attention.parameters()]
        return torch.autograd.grad(out, leaves, gradient)

    return run


def _case(
    name: str, height: int, width: int, *, batch: int, channels: int = _WIDTH, heads: int = _HEADS
) -> Case:
    size = (height, width, batch, channels, heads)
    return Case(
        name=name,
        about=f"forward and backward, {batch} x {height}x{width} pixels, {channels} channels",
        peer="the deformable attention of transformers' Mask2Former",
        bars={"cpu": 1.5},
        ours=lambda: _ours(*size),
        theirs=lambda: _theirs(*size),
        needs=(TRANSFORMERS,),
        repeats=9,
    )


CASES = (
    _case("deformable_small", 96, 128, batch=16, channels=64, heads=4),
    _case("deformable_360", 360, 640, batch=2),
    _case("deformable_480", 480, 640, batch=2),
)
