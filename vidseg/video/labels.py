"""Labels on pictures: plates with text, and where to put them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

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
    taken: Sequence[Box],
) -> tuple[int, int]:
    """Finds the top left corner of a plate: above, below, beside or inside its object.

    The first place inside the picture that covers no other plate wins, else the one that covers
    the least.
    """
    left, top, right, bottom = box
    width, height = plate
    middle = (left + right - width) // 2
    wishes = [
        (left, top - height),
        (left, bottom),
        (right - width, top - height),
        (right - width, bottom),
        (left, top),
        (middle, (top + bottom - height) // 2),
        (right, top),
        (left - width, top),
        (left, bottom - height),
    ]
    best, least = (0, 0), math.inf
    for rank, (x, y) in enumerate(wishes):
        corner = (
            min(max(x, 0), max(size[1] - width, 0)),
            min(max(y, 0), max(size[0] - height, 0)),
        )
        moved = abs(corner[0] - x) * height + abs(corner[1] - y) * width
        covered = sum(_overlap((*corner, corner[0] + width, corner[1] + height), t) for t in taken)
        cost = covered + 0.2 * moved + rank
        if cost < least:
            best, least = corner, cost
    return best


def _overlap(first: Box, second: Box) -> int:
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    return max(width, 0) * max(height, 0)
