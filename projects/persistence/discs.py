"""Blobs as masks: discs in the run-length form of results."""

from __future__ import annotations

import math

from vidseg import rle
from vidseg.rle import RLE

from .detections import Detections

__all__ = ["encode_disc", "encode_track"]


def encode_track(blobs: Detections, size: tuple[int, int]) -> list[RLE | None]:
    """Gives the masks of a track, one per frame, ``None`` where it has no blob.

    Args:
        blobs: of the track, one per frame at most.
        size: (height, width) of the masks; the blobs' places are scaled to it.
    """
    scale = size[0] / blobs.size[0], size[1] / blobs.size[1]
    masks: list[RLE | None] = [None] * blobs.num_frames
    columns = (values.tolist() for values in (blobs.frame, blobs.y, blobs.x, blobs.radius))
    for frame, y, x, radius in zip(*columns, strict=True):
        # Pixel centres are at halves when a picture is resized.
        center = ((y + 0.5) * scale[0] - 0.5, (x + 0.5) * scale[1] - 0.5)
        masks[frame] = encode_disc(center, (radius * scale[0], radius * scale[1]), size)
    return masks


def encode_disc(
    center: tuple[float, float], radii: tuple[float, float], size: tuple[int, int]
) -> RLE:
    """Encodes an ellipse with axes along the picture's, without ever drawing it.

    Args:
        center: row and column; the pixel that holds it belongs to the disc in any case.
        radii: likewise, in pixels.
        size: (height, width) of the mask.
    """
    height, width = size
    (y, x), (vertical, horizontal) = center, radii
    middle = (
        min(max(round(y), 0), height - 1),
        min(max(round(x), 0), width - 1),
    )
    counts, end = [], 0  # runs of 0 and 1 in column order; where the last one ended
    first = min(math.ceil(x - horizontal), middle[1])
    last = max(math.floor(x + horizontal), middle[1])
    for column in range(max(first, 0), min(last, width - 1) + 1):
        inside = 1 - ((column - x) / horizontal) ** 2
        half = vertical * math.sqrt(inside) if inside > 0 else -1.0
        top, bottom = max(math.ceil(y - half), 0), min(math.floor(y + half), height - 1)
        if column == middle[1]:
            top, bottom = min(top, middle[0]), max(bottom, middle[0])
        if bottom < top:
            continue
        start = column * height + top
        counts += [start - end, bottom - top + 1]
        end = start + bottom - top + 1
    return rle.from_text({"size": [height, width], "counts": [*counts, height * width - end]})
