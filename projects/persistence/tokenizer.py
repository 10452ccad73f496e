"""Blobs to tokens: what they look like, where and when they are.

Shapes: B clips, N tokens of the longest of them (at least 1), C channels, P side of a patch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vidseg.layers.onednn import Linear

from .detections import Detections

__all__ = ["POSITIONS", "TIMES", "ObjectTokenizer", "Tokens", "sinusoidal_code"]

TIMES = ("sinusoidal", "learned", "none")
POSITIONS = ("absolute", "none")

# Pixels or frames of the shortest wave, so that neighbours are told apart, and of the longest.
_WAVES = (4.0, 1024.0)
_CODE = 32  # channels of the code of a number


@dataclass
class Tokens:
    """The blobs of a batch of clips, each clip filled up to the longest.

    Attributes:
        tokens: ``(B, N, C)``, zeros in the padding.
        padding_mask: bool ``(B, N)``, True = padding.
        frame_index: int64 ``(B, N)``, 0 in the padding.
        boxes: float32 ``(B, N, 4)``: left, top, right and bottom of the blobs in pixels.
        scale: float32 ``(B,)``, what takes the pixels of a clip to those of frames 64 high.
        num_frames: of each clip.
    """

    tokens: Tensor
    padding_mask: Tensor
    frame_index: Tensor
    boxes: Tensor
    scale: Tensor
    num_frames: list[int]

    @property
    def lengths(self) -> list[int]:
        """Number of tokens of each clip."""
        return (~self.padding_mask).sum(1).tolist()

    @property
    def centers(self) -> Tensor:
        """Float32 ``(B, N, 2)``: row and column in pixels."""
        x0, y0, x1, y1 = self.boxes.unbind(-1)
        return torch.stack([(y0 + y1) / 2, (x0 + x1) / 2], -1)

    @property
    def radii(self) -> Tensor:
        """Float32 ``(B, N)`` in pixels."""
        return (self.boxes[..., 2] - self.boxes[..., 0]) / 2


class ObjectTokenizer(nn.Module):
    """Sums linear maps of patch, place, frame index, and of radius and confidence.

    Args:
        encoder: uint8 ``(n, 3, P, P)`` to ``(n, C)``.
        dim: C.
        time: code of the frame index: ``"sinusoidal"``, ``"learned"`` or ``"none"``.
        position: code of row and column: ``"absolute"`` or ``"none"``.
        max_frames: rows of the learned code.
        grey: take the largest of the colour channels for all of them.

    Raises:
        ValueError: if an argument is out of range.
    """

    def __init__(
        self,
        encoder: nn.Module,
        dim: int = 256,
        *,
        time: str = "sinusoidal",
        position: str = "absolute",
        max_frames: int = 128,
        grey: bool = False,
    ) -> None:
        super().__init__()
        for name, value, choices in (("time", time, TIMES), ("position", position, POSITIONS)):
            if value not in choices:
                raise ValueError(f"{name} {value!r} is none of {', '.join(choices)}")
        self.encoder = encoder
        self.dim, self.grey = dim, grey
        self.shape_proj = Linear(2, dim)
        self.place_proj = Linear(2 * _CODE, dim) if position == "absolute" else None
        self.time_proj = Linear(_CODE, dim) if time == "sinusoidal" else None
        self.time_embed = nn.Embedding(max_frames, dim) if time == "learned" else None

    def forward(self, clips: Sequence[Detections], patches: Sequence[Tensor]) -> Tokens:
        """Turns the detections of clips into tokens.

        Args:
            clips: B clips; one may have no detection at all.
            patches: uint8 ``(n, 3, P, P)`` of each clip, of one P.

        Returns:
            The tokens, on the device of the parameters.

        Raises:
            ValueError: see :meth:`check`.
        """
        for one, own in zip(clips, patches, strict=True):
            self.check(one, own)
        device = self.shape_proj.weight.device
        lengths = torch.tensor([len(one) for one in clips])
        padding_mask = (torch.arange(max(1, *lengths.tolist())) >= lengths[:, None]).to(device)
        frame = torch.cat([one.frame for one in clips]).to(device)
        centers = torch.cat([one.centers for one in clips]).to(device)
        radius = torch.cat([one.radius for one in clips]).to(device)
        confidence = torch.cat([one.confidence for one in clips]).to(device)
        looks = torch.cat(list(patches)).to(device)
        if self.grey:
            looks = looks.amax(1, keepdim=True).expand(-1, 3, -1, -1)
        x = self.encoder(looks)
        x = x + self.shape_proj(torch.stack([radius / 4 - 1, confidence], 1))
        if self.place_proj is not None:
            x = x + self.place_proj(sinusoidal_code(centers, _CODE).flatten(1))
        if self.time_proj is not None:
            x = x + self.time_proj(sinusoidal_code(frame, _CODE))
        if self.time_embed is not None:
            x = x + self.time_embed(frame)
        y, column = centers.unbind(1)
        boxes = torch.stack([column - radius, y - radius, column + radius, y + radius], 1)
        return Tokens(
            tokens=_padded(x, padding_mask),
            padding_mask=padding_mask,
            frame_index=_padded(frame, padding_mask),
            boxes=_padded(boxes, padding_mask),
            scale=torch.tensor([64 / one.size[0] for one in clips], device=device),
            num_frames=[one.num_frames for one in clips],
        )

    def check(self, detections: Detections, patches: Tensor) -> None:
        """Checks whether a clip can be turned into tokens.

        Raises:
            ValueError: if patches and detections do not fit, or a clip has more frames than the
                learned code.
        """
        if len(detections) != len(patches):
            raise ValueError(f"{len(detections)} detections cannot have {len(patches)} patches")
        if self.time_embed is None or detections.num_frames <= self.time_embed.num_embeddings:
            return
        raise ValueError(
            f"{detections.num_frames} frames are more than the {self.time_embed.num_embeddings} "
            "of the learned time code; set MODEL.PERSISTENCE.TIME sinusoidal, or raise MAX_FRAMES, "
            "and train again"
        )


def sinusoidal_code(values: Tensor, channels: int) -> Tensor:
    """Codes numbers by sines and cosines (Vaswani et al., NeurIPS 2017, section 3.5).

    Args:
        values: ``(...)``, in units of which one is told apart: pixels or frames.
        channels: width of the code, even.

    Returns:
        float32 ``(..., channels)``.
    """
    shortest, longest = (2 * math.pi / wave for wave in _WAVES)
    steps = torch.linspace(0, 1, channels // 2, device=values.device)
    phase = values.float()[..., None] * (shortest * (longest / shortest) ** steps)
    return torch.cat([phase.sin(), phase.cos()], -1)


def _padded(rows: Tensor, padding_mask: Tensor) -> Tensor:
    """Lays ``(sum of lengths, ...)`` out as ``(B, N, ...)``."""
    out = rows.new_zeros(padding_mask.numel(), *rows.shape[1:])
    out = out.index_copy(0, (~padding_mask).flatten().nonzero()[:, 0], rows)
    return out.unflatten(0, padding_mask.shape)
