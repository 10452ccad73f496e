"""Labels on pictures: plates with text, and where to put them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

__all__ = ["free_corner", "make_plate"]

Box = tuple[int, ...]  # left, top, right, bottom; the last two excluded


def make_plate(
    text: str, color: tuple[int, int, int], font_size: int, *, max_width: int
) -> Image.Image:
    """Renders a text on a dark plate with a bar in the track's colour.

    Args:
        text: one line; it is shortened until the plate fits.
        color: of the bar.
        font_size: in pixels.
        max_width: of the plate, in pixels.

    Returns:
        An RGBA picture.
    """
    font: Any = ImageFont.load_default(font_size)
    bar = max(3, font_size // 4)
    pad = max(2, font_size // 4)
    while len(text) > 1 and font.getlength(text) + bar + 2 * pad > max_width:
        text = text[:-2].rstrip() + "\N{HORIZONTAL ELLIPSIS}"
    ascent, descent = font.getmetrics()
    width = min(max_width, math.ceil(font.getlength(text)) + bar + 2 * pad)
    plate = Image.new("RGBA", (max(width, 1), ascent + descent + pad), (16, 16, 20, 205))
    pen = ImageDraw.Draw(plate)
    pen.rectangle((0, 0, bar - 1, plate.height), fill=(*color, 255))
    pen.text((bar + pad, pad // 2), text, font=font, fill=(255, 255, 255, 255))
    return plate


def free_corner(
    box: Box,
    plate: tuple[int, int],
    size: tuple[int, int],
    *,
    plates: Sequence[Box],
    objects: Sequence[Box] = (),
    preferred: int = 0,
) -> tuple[tuple[int, int], int]:
    """Finds a place for a plate above, below, beside or inside its object.

    Covering another plate is worst, then being moved away to stay inside the picture, then
    covering objects.

    Args:
        box: of the object.
        plate: (width, height).
        size: (height, width) of the picture.
        plates: those placed already.
        objects: boxes of all objects.
        preferred: number of the place to take if it costs little more, so that a label does not
            jump between frames.

    Returns:
        The top left corner x, y, inside the picture, and the number of the place.
    """
    left, top, right, bottom = box
    width, height = plate
    centre = (left + right - width) // 2
    wishes = np.array(
        [
            (left, top - height),
            (left, bottom),
            (right - width, top - height),
            (right - width, bottom),
            (left, top),
            (centre, (top + bottom - height) // 2),
            (right, top),
            (left - width, top),
            (left, bottom - height),
        ]
    )
    limit = np.array([max(size[1] - width, 0), max(size[0] - height, 0)])
    corners = wishes.clip(0, limit)
    moved = np.abs(corners - wishes) @ np.array([height, width]) / (width * height)
    rank = np.arange(len(wishes)) * 0.01
    rank[preferred] -= 0.15
    of_plate, _ = _covered(corners, plate, plates)
    of_label, of_object = _covered(corners, plate, objects)
    best = int((of_plate + 0.4 * moved + 0.25 * of_label + 0.5 * of_object + rank).argmin())
    return (int(corners[best, 0]), int(corners[best, 1])), best


def _covered(
    corners: np.ndarray, plate: tuple[int, int], boxes: Sequence[Box]
) -> tuple[np.ndarray, np.ndarray]:
    """Sums up what a plate at each of the corners covers: as part of the plate, of each box."""
    if not boxes:
        return np.zeros(len(corners)), np.zeros(len(corners))
    others = np.asarray(boxes)[None]  # (1, M, 4)
    first = np.maximum(corners[:, None], others[..., :2])
    last = np.minimum(corners[:, None] + np.array(plate), others[..., 2:])
    common = (last - first).clip(0).prod(axis=-1)  # (places, M)
    areas = (others[..., 2:] - others[..., :2]).prod(axis=-1)
    return common.sum(axis=-1) / (plate[0] * plate[1]), (common / areas).sum(axis=-1)
