"""Mask logits of many queries over a whole video, kept small until it is known which count."""

from __future__ import annotations

import torch
from torch import Tensor

from vidseg.modeling.mask_encoding import MARGIN
from vidseg.structures import masks_to_boxes

__all__ = ["MaskStore"]

_OUTSIDE = -1.0


class MaskStore:
    """Keeps of every mask the box around its foreground, in half precision on the host.

    With the margin around the box, the enlarged masks are those of the full maps: beyond it every
    value that interpolation could read is negative.
    """

    def __init__(self) -> None:
        self._frames: list[list[tuple[Tensor, tuple[int, int]] | None]] = []
        self._size = (0, 0)

    def __len__(self) -> int:
        """Number of frames."""
        return len(self._frames)

    def append(self, mask_logits: Tensor) -> None:
        """Adds the mask logits ``(Q, h, w)`` of the next frame."""
        height, width = mask_logits.shape[-2:]
        self._size = (height, width)
        boxes = masks_to_boxes(mask_logits > 0).tolist()
        half = mask_logits.to(torch.float16).cpu()
        row: list[tuple[Tensor, tuple[int, int]] | None] = []
        for mask, (left, top, right, bottom) in zip(half, boxes, strict=True):
            if right <= left:
                row.append(None)
                continue
            left, top = max(left - MARGIN, 0), max(top - MARGIN, 0)
            crop = mask[top : bottom + MARGIN, left : right + MARGIN]
            row.append((crop.clone(), (top, left)))
        self._frames.append(row)

    def frame(self, index: int, rows: list[int]) -> Tensor:
        """Gives the mask logits of some rows in one frame, float32 ``(n, h, w)`` on the host."""
        height, width = self._size
        masks = torch.full((len(rows), height, width), _OUTSIDE)
        for mask, row in zip(masks, rows, strict=True):
            kept = self._frames[index][row]
            if kept is not None:
                crop, (top, left) = kept
                mask[top : top + crop.shape[0], left : left + crop.shape[1]] = crop
        return masks
