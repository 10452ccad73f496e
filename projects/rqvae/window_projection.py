"""A linear map of the frames of every window, without copying windows apart.

Shapes: B documents, T frames, N windows of W frames every S, C width of frames, V of codes.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from vidseg.layers.onednn import linear

from .windows import cut_frames, first_start

__all__ = ["WindowProjection"]


class WindowProjection(nn.Module):
    """``Linear(W * C -> V)`` of the frames of each window, zeros where there is none.

    Statistics do not know the order of frames; this map does.

    Args:
        input_dim: C.
        output_dim: V.
        window: W.
        stride: S.
        mode: where windows lie, see ``windows.MODES``.
    """

    def __init__(
        self, input_dim: int, output_dim: int, *, window: int, stride: int, mode: str = "same"
    ) -> None:
        super().__init__()
        self.linear = nn.Linear(window * input_dim, output_dim)
        self.window, self.stride = window, stride
        self.start = first_start(window, stride, mode)

    def forward(self, frames: Tensor, num_windows: int) -> Tensor:
        """Maps ``(B, T, C)``, zeros where masked, to ``(B, num_windows, V)``."""
        stride, num_parts = self.stride, -(-self.window // self.stride)
        num_pieces = num_windows + num_parts - 1
        pieces = cut_frames(frames, self.start, self.start + num_pieces * stride)
        pieces = pieces.unflatten(1, (num_pieces, stride)).flatten(2)  # (B, N + parts - 1, S * C)
        # Windows share the pieces of one stride: each piece is mapped once for every place in a
        # window that it can have.
        missing = num_parts * pieces.shape[-1] - self.linear.in_features
        weight = F.pad(self.linear.weight, (0, missing)).unflatten(1, (num_parts, -1))
        mapped = linear(pieces, weight.transpose(0, 1).flatten(0, 1)).unflatten(-1, (num_parts, -1))
        total = mapped[:, :num_windows, 0]
        for place in range(1, num_parts):
            total = total + mapped[:, place : place + num_windows, place]
        return total + self.linear.bias
