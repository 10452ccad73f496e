"""From the vectors of windows back to frames: attention over windows, and overlapping patches.

Shapes: B documents, T frames, N windows of W frames every S, C latent width, V code width. Masks
are bool, True = valid.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vidseg.layers.attention import CrossAttentionLayer, FFNLayer, SelfAttentionLayer
from vidseg.layers.onednn import Linear

from .encoder import sinusoidal_positions, start_small
from .windows import cut_frames, first_start

__all__ = ["MultiWindowDecoder", "OverlapAdd"]


class MultiWindowDecoder(nn.Module):
    """Lets the queries of frames read the vectors of windows.

    Blocks of self-attention over frames, cross-attention to the windows and a feed-forward network,
    all residual and normalised before. A window is known by its middle, which is encoded like the
    times of the frames: attention alone would not know which window is where.

    Args:
        latent_dim: C.
        num_layers: twice the number of blocks, so even.
        nhead: attention heads.
        dim_feedforward: inner width of the networks; 0 for 4 C.
        dropout: of attention weights and of what blocks add.
        memory_positions: whether windows have positions at all.
        context: frames to each side that self-attention sees; 0 for all.
        memory_reach: frames between a frame and the middles of the windows it may read, at most; 0
            for all windows.

    Raises:
        ValueError: if ``num_layers`` is odd or below 2.
    """

    def __init__(
        self,
        latent_dim: int,
        num_layers: int = 4,
        nhead: int = 8,
        *,
        dim_feedforward: int = 0,
        dropout: float = 0.0,
        context: int = 0,
        memory_positions: bool = True,
        memory_reach: float = 0.0,
    ) -> None:
        super().__init__()
        if num_layers < 2 or num_layers % 2:
            raise ValueError(
                f"a decoder of {num_layers} layers: the number must be even, 2 or more, since "
                "every block counts as two"
            )
        hidden = dim_feedforward or 4 * latent_dim
        blocks = range(num_layers // 2)
        self.memory_norm = nn.LayerNorm(latent_dim)
        self.self_attn_layers = nn.ModuleList(
            SelfAttentionLayer(latent_dim, nhead, dropout=dropout, pre_norm=True, radius=context)
            for _ in blocks
        )
        self.cross_attn_layers = nn.ModuleList(
            CrossAttentionLayer(latent_dim, nhead, dropout=dropout, pre_norm=True) for _ in blocks
        )
        self.ffn_layers = nn.ModuleList(
            FFNLayer(latent_dim, hidden, dropout=dropout, pre_norm=True) for _ in blocks
        )
        for self_attn, cross_attn, ffn in zip(
            self.self_attn_layers, self.cross_attn_layers, self.ffn_layers, strict=True
        ):
            start_small(self_attn.self_attn, cross_attn.multihead_attn, ffn)
        self.norm = nn.LayerNorm(latent_dim)
        # Frames to each side on which an output depends by self-attention; None: all.
        self.reach = context * len(blocks) or None
        self.memory_positions = memory_positions
        self.memory_reach = memory_reach

    def forward(
        self,
        queries: Tensor,
        memory: Tensor,
        centres: Tensor | None = None,
        *,
        window_mask: Tensor | None = None,
        frame_mask: Tensor | None = None,
        first_frame: int | Tensor = 0,
    ) -> Tensor:
        """Runs the blocks.

        Args:
            queries: ``(B, T, C)``, the positional queries of the frames.
            memory: ``(B, N, C)``, vectors of the windows in any order.
            centres: ``(N,)`` or ``(B, N)``, the middles of the windows in frames; None for windows
                in their order that share the frames evenly.
            window_mask: ``(B, N)``; None if all windows are valid.
            frame_mask: ``(B, T)``; None if all frames are valid.
            first_frame: time of the first query, on the clock of the centres.

        Returns:
            ``(B, T, C)``.
        """
        channels = queries.shape[-1]
        num_frames, num = queries.shape[1], memory.shape[1]
        times = first_frame + torch.arange(num_frames, device=queries.device)
        if centres is None:
            shares = torch.arange(num, device=queries.device) + 0.5
            centres = first_frame + shares * (num_frames / max(num, 1)) - 0.5
        memory_pos = query_pos = None
        if self.memory_positions:
            query_pos = sinusoidal_positions(times, channels).to(queries.dtype)
            memory_pos = sinusoidal_positions(centres, channels).to(queries.dtype)
        far = None
        if self.memory_reach:
            far = (times[:, None] - centres[..., None, :]).abs() > self.memory_reach
        padding = None if frame_mask is None else frame_mask.logical_not()
        hidden = None if window_mask is None else window_mask.logical_not()
        memory = self.memory_norm(memory)
        x = queries
        for self_attn, cross_attn, ffn in zip(
            self.self_attn_layers, self.cross_attn_layers, self.ffn_layers, strict=True
        ):
            x = self_attn(x, key_padding_mask=padding)
            x = cross_attn(
                x,
                memory,
                query_pos=query_pos,
                memory_pos=memory_pos,
                attn_mask=far,
                key_padding_mask=hidden,
            )
            x = ffn(x)
        return self.norm(x)


class OverlapAdd(nn.Module):
    """Lets every window lay out its frames, and blends them where windows overlap.

    Each window becomes W frames by a linear map; they are added up under a Hann taper, divided by
    the sum of the tapers and mapped to the width of the decoder.

    Args:
        code_dim: V.
        latent_dim: C.
        window: W.
        stride: S.
        mode: where windows lie, see ``windows.MODES``.
        frame_dim: width of the frames before the last map.
    """

    taper: Tensor

    def __init__(
        self,
        code_dim: int,
        latent_dim: int,
        *,
        window: int,
        stride: int,
        mode: str = "same",
        frame_dim: int = 64,
    ) -> None:
        super().__init__()
        self.window, self.stride, self.width = window, stride, frame_dim
        self.start = first_start(window, stride, mode)
        self.frames = Linear(code_dim, window * frame_dim)
        self.output = Linear(frame_dim, latent_dim)
        # At the middles of frames, where it is nowhere zero.
        place = (torch.arange(window, dtype=torch.float64) + 0.5) / window
        taper = torch.sin(torch.pi * place).square().float()
        self.register_buffer("taper", taper, persistent=False)

    def forward(
        self, windows: Tensor, window_mask: Tensor, *, first_window: int, start: int, stop: int
    ) -> Tensor:
        """Lays out the frames ``start`` to ``stop - 1`` of documents.

        Args:
            windows: ``(B, N, V)``, consecutive ones.
            window_mask: ``(B, N)``.
            first_window: number of the first of them.
            start: first frame wanted.
            stop: the one after the last.

        Returns:
            ``(B, stop - start, C)``; frames that no valid window covers are those of silence.
        """
        weights = (self.taper * window_mask[..., None])[..., None]  # (B, N, W, 1)
        frames = self.frames(windows).float().unflatten(-1, (self.window, -1))
        total = self._add_up(torch.cat([frames * weights, weights], -1))
        begin = self.start + first_window * self.stride
        values, sums = cut_frames(total, start - begin, stop - begin).split([self.width, 1], -1)
        return self.output(values / sums.clamp_min(1e-12))

    def _add_up(self, frames: Tensor) -> Tensor:
        """Adds windows ``(B, N, W, F)`` up where they overlap, ``(B, N * S + ..., F)``."""
        batch, num, window, width = frames.shape
        num_parts = -(-window // self.stride)
        # A window is cut into parts of one stride; the same part of all windows is one piece.
        frames = nn.functional.pad(frames, (0, 0, 0, num_parts * self.stride - window))
        parts = frames.unflatten(2, (num_parts, self.stride))
        total = frames.new_zeros(batch, num + num_parts - 1, self.stride, width)
        for place in range(num_parts):
            total[:, place : place + num] += parts[:, :, place]
        return total.flatten(1, 2)
