"""Attention drawn over the picture: a heat map on a dimmed frame, with the outline of the mask."""

from __future__ import annotations

from functools import cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from vidseg import rle

from .draw import Drawing, FramePainter

__all__ = ["HeatPainter", "color_bar", "inside_share", "spread"]

_MAP = "inferno"
_DIM = 0.6  # brightness of the picture where nothing was read
_MAX_COVER = 0.85  # opacity of the heat at its peak
_TEXT = (200, 200, 205)


class HeatPainter:
    """Draws attention onto the frames of one video.

    Args:
        size: (height, width) of the frames.
        scale: whole factor by which pictures are enlarged.

    Raises:
        DataError: (``paint``) if a mask has another size than the frames.
    """

    def __init__(self, size: tuple[int, int], *, scale: int = 1) -> None:
        self._outline = FramePainter(size, opacity=0.0, scale=scale)
        self._outline.line = max(2, round(min(self._outline.size) / 100))

    def paint(self, image: np.ndarray, shares: np.ndarray, mask: Drawing | None) -> np.ndarray:
        """Draws one track in one frame.

        Args:
            image: uint8 ``(H, W, 3)`` RGB; it is not changed.
            shares: what :func:`spread` gives, ``(H, W)``; the largest gets the brightest colour.
            mask: of the track, if it has one in this frame; only its outline is drawn.

        Returns:
            A new array like ``image``, ``scale`` times as high and wide.
        """
        heat = shares / max(float(shares.max()), 1e-12)  # (H, W)
        warm = _warmed(image.mean(axis=2, keepdims=True) * _DIM, heat)
        bare = [] if mask is None else [Drawing(mask.mask, mask.track_id, text="")]
        return self._outline.paint(warm, bare)


def spread(shares: np.ndarray, covered: tuple[float, float], size: tuple[int, int]) -> np.ndarray:
    """Interpolates a map of cells over the picture.

    Args:
        shares: float32 ``(h, w)``.
        covered: (height, width) that the cells span, in units of the picture's.
        size: (H, W) of the picture.

    Returns:
        float32 ``(H, W)``, values as in the cells.
    """
    cells = Image.fromarray(shares.astype(np.float32))
    box = (0.0, 0.0, cells.width / covered[1], cells.height / covered[0])
    return np.asarray(cells.resize(size[::-1], Image.Resampling.BILINEAR, box=box)).clip(0)


def inside_share(shares: np.ndarray, mask: Drawing | None) -> float:
    """Gives the part of the attention ``(H, W)`` that lies inside a mask, 0 without one."""
    total = float(shares.sum())
    if mask is None or not total:
        return 0.0
    return float(shares[rle.decode(mask.mask)].sum()) / total


def color_bar(width: int, low: str, high: str, background: tuple[int, int, int]) -> Image.Image:
    """Draws the colours from nothing to the peak between two texts, 18 pixels high."""
    font = ImageFont.load_default(12)
    picture = Image.new("RGB", (width, 18), background)
    pen = ImageDraw.Draw(picture)
    left, right = round(font.getlength(low)) + 10, width - round(font.getlength(high)) - 10
    pen.text((4, 1), low, font=font, fill=_TEXT)
    pen.text((right + 6, 1), high, font=font, fill=_TEXT)
    if right > left:
        heat = np.tile(np.linspace(0, 1, right - left), (10, 1))
        grey = np.full((*heat.shape, 1), 128 * _DIM)
        picture.paste(Image.fromarray(_warmed(grey, heat)), (left, 4))
    return picture


def _warmed(grey: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """Lays heat ``(H, W)`` from 0 to 1 over a grey picture ``(H, W, 1)``, uint8 ``(H, W, 3)``."""
    color = _palette()[(heat * 255).round().astype(np.uint8)]
    cover = (heat[..., None] * 1.5).clip(0, _MAX_COVER)
    return (grey * (1 - cover) + color * cover).round().astype(np.uint8)


@cache
def _palette() -> np.ndarray:
    """Gives 256 colours from dark to bright, float ``(256, 3)`` of range 0 to 255."""
    from matplotlib import colormaps

    return colormaps[_MAP](np.arange(256))[:, :3] * 255
