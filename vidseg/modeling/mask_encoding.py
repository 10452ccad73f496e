"""Small mask logits to run-length encoded masks of the original resolution.

The published chain (resize to the padded image, crop, resize to the original size) is linear and
separable, so it is one short sum per pixel and axis, and only needed around a mask's foreground.

Shapes: n masks, h w mask pixels, H W output pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from pycocotools import mask as coco_mask
from torch import Tensor
from torch.nn import functional as F

from vidseg.rle import RLE
from vidseg.structures import masks_to_boxes

__all__ = ["MARGIN", "encode_masks", "encode_window"]

Size = tuple[int, int]

MARGIN = 2
"""How many cells beside its foreground can influence a mask: one for each resize."""


def encode_masks(
    mask_logits: Tensor, padded_size: Size, image_size: Size, output_size: Size
) -> list[RLE | None]:
    """Brings the masks of one frame to the original resolution and encodes them.

    Args:
        mask_logits: ``(n, h, w)``, covering the padded image.
        padded_size: (height, width) that the network saw.
        image_size: part of it that is image.
        output_size: size of the original video.

    Returns:
        n encoded masks, ``None`` for an empty one.
    """
    height, width = mask_logits.shape[-2:]
    rows = _resize_axis(height, padded_size[0], image_size[0], output_size[0])
    columns = _resize_axis(width, padded_size[1], image_size[1], output_size[1])
    encoded: list[RLE | None] = []
    # Resized values lie between their neighbours: where nothing is positive there is no mask.
    boxes = masks_to_boxes(mask_logits > 0).tolist()
    for mask, (left, top, right, bottom) in zip(mask_logits, boxes, strict=True):
        if right <= left:
            encoded.append(None)
            continue
        part = mask[max(top - MARGIN, 0) : bottom + MARGIN, max(left - MARGIN, 0) : right + MARGIN]
        y, tall = rows.resize(part.float().contiguous(), top, bottom)  # (H', w')
        x, logits = columns.resize(tall.T.contiguous(), left, right)  # (W', H'): runs go down
        window = (logits > 0).cpu().numpy()
        encoded.append(encode_window(window, (x, y), output_size))
    return encoded


def encode_window(window: np.ndarray, origin: tuple[int, int], size: Size) -> RLE | None:
    """Encodes a mask that is background outside a window.

    Args:
        window: bool ``(W', H')``, transposed.
        origin: (x, y) of its first pixel in the image.
        size: (height, width) of the image.

    Returns:
        The encoded mask, ``None`` if it is empty.
    """
    height, width = size
    # A background pixel around every column closes its runs.
    closed = np.zeros((window.shape[0], window.shape[1] + 2), dtype=bool)
    closed[:, 1:-1] = window
    flat = closed.ravel()
    column, row = np.divmod(np.flatnonzero(flat[1:] != flat[:-1]), closed.shape[1])
    edges = (column + origin[0]) * height + row + origin[1]
    if not len(edges):
        return None
    # A run that ends where the next one starts goes on from a column's foot to the next one's top.
    starts, ends = edges[0::2], edges[1::2]
    split = starts[1:] != ends[:-1]
    starts, ends = starts[np.r_[True, split]], ends[np.r_[split, True]]
    counts = np.diff(np.r_[0, np.stack([starts, ends], axis=1).ravel(), height * width])
    if counts[-1] == 0:
        counts = counts[:-1]
    return coco_mask.frPyObjects(
        {"size": [height, width], "counts": counts.tolist()}, height, width
    )


@dataclass(frozen=True)
class _Axis:
    """Resizing along one axis: every output is a weighted sum of a few neighbouring cells.

    Args:
        cells: which ones, int64 ``(outputs, taps)``.
        weights: ``(outputs, taps)``.
        first: first output that a cell influences, ``(cells,)``.
        last: last one, ``(cells,)``.
    """

    cells: Tensor
    weights: Tensor
    first: list[int]
    last: list[int]

    def resize(self, part: Tensor, start: int, stop: int) -> tuple[int, Tensor]:
        """Resizes the first axis of a part of a mask.

        Args:
            part: the cells from ``start`` to ``stop`` (excluded) with ``MARGIN`` beside them where
                there is room, ``(cells', other)``, contiguous.
            start: first cell that may be foreground.
            stop: end of the cells that may be foreground.

        Returns:
            The first output that those cells influence, and all of them, ``(outputs', other)``.
        """
        begin, end = min(self.first[start:stop]), max(self.last[start:stop]) + 1
        if end <= begin:
            return 0, part[:0]
        cells = (self.cells[begin:end] - max(start - MARGIN, 0)).clamp(0, len(part) - 1)
        weights = self.weights[begin:end].to(part.device)
        sums = F.embedding_bag(cells.to(part.device), part, per_sample_weights=weights, mode="sum")
        return begin, sums


@lru_cache(maxsize=32)
def _resize_axis(cells: int, padded: int, image: int, output: int) -> _Axis:
    """The chain of resizes along one axis; one entry per size of video."""
    weights = _bilinear(torch.eye(cells), padded)[:image]
    if image != output:
        weights = _bilinear(weights, output)
    used = weights > 0
    outputs = torch.arange(output)[:, None]
    # A cell in the padding, or between the samples of a small output, influences nothing.
    first = torch.where(used, outputs, output).amin(0)
    last = torch.where(used, outputs, -1).amax(0)
    taps = int(used.sum(1).max())
    near = used.int().argmax(1, keepdim=True) + torch.arange(taps)
    inside = near < cells
    near = near.clamp(max=cells - 1)
    return _Axis(near, weights.gather(1, near) * inside, first.tolist(), last.tolist())


def _bilinear(rows: Tensor, length: int) -> Tensor:
    """Resizes the first axis as ``interpolate(mode="bilinear", align_corners=False)`` does."""
    scale = len(rows) / length
    place = ((torch.arange(length, dtype=torch.float64) + 0.5) * scale - 0.5).clamp(min=0)
    low = place.floor().long().clamp(max=len(rows) - 1)
    high = (low + 1).clamp(max=len(rows) - 1)
    share = (place - low).float()[:, None]
    return torch.lerp(rows[low], rows[high], share)
