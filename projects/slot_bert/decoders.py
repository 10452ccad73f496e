"""Decoders: what a slot draws, and how strongly it claims each pixel.

Sources: spatial broadcast decoder, Watters et al., 2019; one MLP for all pixels as in Seitzer et
al., ICLR 2023 (DINOSAUR).

Shapes: M frames, K slots, Ds slot width, C channels drawn, R decode size, P pixels.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vidseg.layers.onednn import Linear

from .positions import FourierPosition

__all__ = ["DECODERS", "BroadcastDecoder", "PixelMLPDecoder", "build_decoder"]

DECODERS = ("broadcast", "mlp")
_GRID = 8  # of the broadcast decoder, where slots are repeated on


class BroadcastDecoder(nn.Module):
    """Repeats a slot on an 8 x 8 grid with a learned position code and up-samples it.

    Args:
        slot_dim: width of a slot.
        size: side of the result; 8 times a power of two.
        channels: width of the transposed convolutions.
        out_channels: of what is drawn; 3 for RGB.

    Shape:
        - input ``(M, K, Ds)``
        - output: drawn ``(M, K, C, R, R)``, linear, and mask logits ``(M, K, R, R)``

    Raises:
        ValueError: for a size that the up-sampling does not reach.
    """

    def __init__(
        self, slot_dim: int, *, size: int = 128, channels: int = 16, out_channels: int = 3
    ) -> None:
        super().__init__()
        num_layers = (size // _GRID).bit_length() - 1
        if size < _GRID or _GRID << num_layers != size:
            raise ValueError(f"size {size} of a broadcast decoder is not 8 times a power of two")
        self.size, self.out_channels = size, out_channels
        self.position = nn.Parameter(torch.randn(slot_dim, _GRID, _GRID) * slot_dim**-0.5)
        widths = [slot_dim, *[channels] * num_layers]
        self.layers = nn.ModuleList(
            nn.ConvTranspose2d(a, b, 4, stride=2, padding=1) for a, b in pairwise(widths)
        )
        self.head = nn.Conv2d(widths[-1], out_channels + 1, 3, padding=1)

    def no_weight_decay(self) -> set[str]:
        """Names the parameters that the optimiser leaves as large as they are."""
        return {"position"}

    def forward(self, slots: Tensor) -> tuple[Tensor, Tensor]:
        """Draws slots; see the class for shapes."""
        num_frames, num_slots, width = slots.shape
        x = slots.reshape(-1, width, 1, 1) + self.position  # (M*K, Ds, 8, 8)
        x = x.contiguous(memory_format=torch.channels_last)
        for layer in self.layers:
            x = F.relu_(layer(x))
        x = self.head(x).view(num_frames, num_slots, -1, self.size, self.size)
        return x[:, :, : self.out_channels], x[:, :, self.out_channels]


class PixelMLPDecoder(nn.Module):
    """Draws each pixel by itself, by an MLP of the slot and the pixel's position.

    Args:
        slot_dim: width of a slot.
        size: side of the result.
        hidden_dim: width of the MLP.
        out_channels: of what is drawn; 3 for RGB.

    Shape:
        - input ``(M, K, Ds)``
        - output: drawn ``(M, K, C, R, R)``, linear, and mask logits ``(M, K, R, R)``
    """

    def __init__(
        self, slot_dim: int, *, size: int = 32, hidden_dim: int = 64, out_channels: int = 3
    ) -> None:
        super().__init__()
        self.size, self.out_channels = size, out_channels
        self.slot_layer = Linear(slot_dim, hidden_dim, bias=False)
        self.position = FourierPosition(hidden_dim)
        self.hidden_layer = Linear(hidden_dim, hidden_dim)
        self.head = nn.Linear(hidden_dim, out_channels + 1)

    def forward(self, slots: Tensor) -> tuple[Tensor, Tensor]:
        """Draws slots; see the class for shapes."""
        drawn, logits = self.decode_pixels(slots, None)
        grid = (self.size, self.size)
        return drawn.unflatten(-1, grid), logits.unflatten(-1, grid)

    def decode_pixels(self, slots: Tensor, index: Tensor | None) -> tuple[Tensor, Tensor]:
        """Draws some of the pixels.

        Args:
            slots: ``(M, K, Ds)``.
            index: int64 ``(P,)``, positions among the R x R, row by row; None for all.

        Returns:
            What is drawn ``(M, K, C, P)``, and mask logits ``(M, K, P)``.
        """
        codes = self.position(self.size, self.size)  # (R * R, hidden)
        codes = codes if index is None else codes[index]
        # A slot's part is computed once for all pixels, a pixel's part once for all slots.
        x = self.slot_layer(slots)[:, :, None] + codes  # (M, K, P, hidden)
        x = self.head(self.hidden_layer(F.relu_(x), relu=True)).transpose(-1, -2)
        return x[:, :, : self.out_channels], x[:, :, self.out_channels]

    def sample_pixels(self, share: float) -> Tensor | None:
        """Draws which pixels a training step decodes: int64 ``(P,)``, sorted; None for all."""
        count = self.size**2
        if share >= 1:
            return None
        kept = torch.randperm(count, device=self.head.weight.device)[: max(round(share * count), 1)]
        return kept.sort().values


def build_decoder(
    name: str, slot_dim: int, *, size: int, channels: int, out_channels: int = 3
) -> BroadcastDecoder | PixelMLPDecoder:
    """Builds the decoder of a name.

    Args:
        name: one of ``DECODERS``.
        slot_dim: width of a slot.
        size: side of the result.
        channels: width of the layers.
        out_channels: of what is drawn.

    Raises:
        ValueError: if there is no such decoder, or it cannot reach the size.
    """
    if name == "broadcast":
        return BroadcastDecoder(slot_dim, size=size, channels=channels, out_channels=out_channels)
    if name == "mlp":
        return PixelMLPDecoder(slot_dim, size=size, hidden_dim=channels, out_channels=out_channels)
    raise ValueError(f"decoder {name!r} is none of {', '.join(DECODERS)}")
