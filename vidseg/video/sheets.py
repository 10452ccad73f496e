"""A track's attention at a few moments in one picture: the frames above, the heat maps below."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from vidseg.files import write_atomically

from .draw import Drawing, FramePainter, track_color
from .heat import color_bar
from .labels import make_plate

__all__ = ["BACKGROUND", "AttentionSheet"]

BACKGROUND = (24, 24, 28)
_CAPTION = (200, 200, 205)
_FONT_SIZE = 12
_LINE = _FONT_SIZE + 4
_GAP = 6
_WIDTH = 1488  # of a sheet with four moments or more
_MIN_COLUMNS = 4


class AttentionSheet:
    """Collects the moments of one track.

    Args:
        track: id, which gives the colour.
        name: title.
        size: (height, width) of the frames.
        num_moments: that will be added.
    """

    def __init__(self, track: int, name: str, size: tuple[int, int], num_moments: int) -> None:
        self._color = track_color(track)
        self._name = name
        self._painter = FramePainter(size)
        width = _WIDTH // max(num_moments, _MIN_COLUMNS) - _GAP
        self._tile = (width, max(1, round(width * size[0] / size[1])))
        self._columns: list[tuple[Image.Image, Image.Image, Sequence[str]]] = []

    def add(
        self, image: np.ndarray, heat: np.ndarray, mask: Drawing | None, captions: Sequence[str]
    ) -> None:
        """Adds a moment: the frame ``(H, W, 3)``, its heat map of any size, up to three texts."""
        bare = [] if mask is None else [Drawing(mask.mask, mask.track_id, text="")]
        tiles = [
            Image.fromarray(picture).resize(self._tile, Image.Resampling.BICUBIC)
            for picture in (self._painter.paint(image, bare), heat)
        ]
        self._columns.append((tiles[0], tiles[1], captions))

    def save(self, path: Path, notes: Sequence[str]) -> None:
        """Writes the picture, with notes that say what is in it."""
        font: Any = ImageFont.load_default(_FONT_SIZE)
        width = max(len(self._columns), 2) * (self._tile[0] + _GAP) + _GAP
        lines = [line for note in notes for line in textwrap.wrap(note, width // 7)]
        tops = 30, 30 + self._tile[1] + _GAP
        bottom = tops[1] + self._tile[1] + 2
        height = bottom + 3 * _LINE + _GAP + 22 + len(lines) * _LINE + _GAP
        picture = Image.new("RGB", (width, height), BACKGROUND)
        pen = ImageDraw.Draw(picture)
        plate = make_plate(f"attention of {self._name}", self._color, 14, max_width=width)
        picture.paste(plate, (_GAP, 4), plate)
        for column, (*tiles, captions) in enumerate(self._columns):
            left = _GAP + column * (self._tile[0] + _GAP)
            for tile, top in zip(tiles, tops, strict=True):
                picture.paste(tile, (left, top))
            for number, text in enumerate(captions):
                pen.text((left + 2, bottom + number * _LINE), text, font=font, fill=_CAPTION)
        top = bottom + 3 * _LINE + _GAP
        bar = color_bar(min(width - 2 * _GAP, 360), "not read", "read most", BACKGROUND)
        picture.paste(bar, (_GAP, top))
        for number, text in enumerate(lines):
            pen.text((_GAP, top + 22 + number * _LINE), text, font=font, fill=_CAPTION)
        write_atomically(path, lambda file: picture.save(file, format="png"))
