"""Panels of one frame side by side: original, truth, segmentation, reconstruction, every slot.

The same panels make the rows of a picture and the frames of a video.

Shapes: K slots, H W pixels, h w pixels of a panel.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from vidseg.video.labels import make_plate

from .clip_view import Color, SlotFrame, slot_color

__all__ = [
    "FramePanels",
    "PanelRow",
    "area_shares",
    "area_text",
    "nearest_resized",
    "panel_size",
    "resized",
    "resized_smoothly",
    "segmentation_picture",
    "slot_picture",
    "truth_picture",
]

_BACKGROUND = (24, 24, 28)
_CAPTION = (200, 200, 205)
_GAP = 4
_FONT_SIZE = 12
_LINE = _FONT_SIZE + 4
_HEADER = _FONT_SIZE + 12
_CHECKER, _CHECKER_SIDE = (np.float32(222), np.float32(246)), 8
_UNKNOWN, _NOTHING, _MISSED = (0, 0, 0), (58, 58, 64), (255, 255, 255)


def panel_size(size: tuple[int, int], *, longest: int) -> tuple[int, int]:
    """Gives the size of panels for frames: a whole multiple, or smaller than the frames.

    Args:
        size: (height, width) of the frames.
        longest: side in pixels that a panel is not longer than.
    """
    side = max(size)
    if side <= longest:
        return size[0] * (longest // side), size[1] * (longest // side)
    return max(1, round(size[0] * longest / side)), max(1, round(size[1] * longest / side))


def resized(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resizes uint8 ``(H, W, 3)``: with hard edges if enlarged, smoothly if reduced."""
    if picture.shape[:2] == size:
        return picture
    larger = size[0] >= picture.shape[0]
    how = Image.Resampling.NEAREST if larger else Image.Resampling.BOX
    return np.asarray(Image.fromarray(picture).resize(size[::-1], how))


def segmentation_picture(
    segmentation: np.ndarray, frame: np.ndarray | None = None, *, opacity: float = 1.0
) -> np.ndarray:
    """Paints every pixel in the colour of its slot.

    Args:
        segmentation: ``(H, W)``.
        frame: uint8 ``(H, W, 3)`` that shines through in grey.
        opacity: of the colours, 0 to 1.
    """
    colors = np.array([slot_color(slot) for slot in range(int(segmentation.max(initial=0)) + 1)])
    return _blended(colors[segmentation], frame, opacity)


def truth_picture(
    label_map: np.ndarray,
    slots: Mapping[int, int],
    frame: np.ndarray | None = None,
    *,
    opacity: float = 1.0,
) -> np.ndarray:
    """Paints true objects in the colours of their slots; white ones have none.

    Args:
        label_map: ``(H, W)``: 0 background, -1 unknown.
        slots: slot of each object.
        frame: uint8 ``(H, W, 3)`` that shines through in grey.
        opacity: of the colours, 0 to 1.
    """
    colors: list[Color] = [_UNKNOWN, _NOTHING]
    for label in range(1, int(label_map.max(initial=0)) + 1):
        colors.append(slot_color(slots[label]) if label in slots else _MISSED)
    return _blended(np.array(colors)[label_map + 1], frame, opacity)


def slot_picture(frame: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Cuts out what a slot sees, before a checkerboard.

    Args:
        frame: uint8 ``(H, W, 3)``.
        mask: float ``(H, W)`` in [0, 1].
    """
    alpha = mask[..., None].astype(np.float32)
    board = _checkerboard(frame.shape[0], frame.shape[1])
    return (frame * alpha + board * (1 - alpha)).round().astype(np.uint8)


def _blended(colors: np.ndarray, frame: np.ndarray | None, opacity: float) -> np.ndarray:
    if frame is None or opacity >= 1:
        return colors.astype(np.uint8)
    # Without its own colours the frame does not change those of the slots.
    grey = frame.mean(axis=2, keepdims=True)
    return (colors * opacity + grey * (1 - opacity)).round().astype(np.uint8)


@cache
def _checkerboard(height: int, width: int) -> np.ndarray:
    rows, columns = np.arange(height) // _CHECKER_SIDE, np.arange(width) // _CHECKER_SIDE
    dark, bright = _CHECKER
    return np.where((rows[:, None] + columns) % 2, dark, bright)[..., None]


@dataclass(frozen=True)
class PanelRow:
    """Lays panels of one size out in a row, with titles above and captions below.

    Attributes:
        size: (height, width) of a panel.
        titles: of the columns.
        colors: of the bar beside each title; None for no bar.
        margin: width of the column for labels on the left.
    """

    size: tuple[int, int]
    titles: Sequence[str]
    colors: Sequence[Color | None]
    margin: int = 0

    @property
    def width(self) -> int:
        """Of a row in pixels."""
        return self.margin + _GAP + len(self.titles) * (self.size[1] + _GAP)

    def header(self) -> np.ndarray:
        """Draws the titles."""
        picture = Image.new("RGB", (self.width, _HEADER), _BACKGROUND)
        pen = ImageDraw.Draw(picture)
        for column, (title, color) in enumerate(zip(self.titles, self.colors, strict=True)):
            left = self._left(column)
            if color is None:
                pen.text((left + 2, 4), title, font=_font(), fill=_CAPTION)
            else:
                plate = make_plate(title, color, _FONT_SIZE, max_width=self.size[1])
                picture.paste(plate, (left, 3), plate)
        return np.asarray(picture)

    def row(
        self, panels: Sequence[np.ndarray], captions: Sequence[str], label: str = ""
    ) -> np.ndarray:
        """Draws a row.

        Args:
            panels: uint8 ``(h, w, 3)`` each.
            captions: below the panels.
            label: on the left.
        """
        height = self.size[0] + _LINE
        canvas = np.full((height, self.width, 3), _BACKGROUND, dtype=np.uint8)
        for column, panel in enumerate(panels):
            left = self._left(column)
            canvas[: self.size[0], left : left + self.size[1]] = panel
        picture = Image.fromarray(canvas)
        pen = ImageDraw.Draw(picture)
        for column, caption in enumerate(captions):
            if caption:
                place = (self._left(column) + 2, self.size[0] + 1)
                pen.text(place, caption, font=_font(), fill=_CAPTION)
        pen.text((_GAP, self.size[0] // 2 - _FONT_SIZE), label, font=_font(), fill=_CAPTION)
        return np.asarray(picture)

    def _left(self, column: int) -> int:
        return self.margin + _GAP + column * (self.size[1] + _GAP)


@dataclass(frozen=True)
class FramePanels:
    """Draws the panels of one frame after the other.

    Attributes:
        size: (height, width) of a panel.
        num_slots: K.
        has_truth: whether there is a column of the true objects.
        has_reconstruction: whether there is one of the reconstruction.
        opacity: of the colours on the frame, 0 to 1.
        margin: width of the column for labels on the left.
    """

    size: tuple[int, int]
    num_slots: int
    has_truth: bool = False
    has_reconstruction: bool = True
    opacity: float = 0.65
    margin: int = 0

    @classmethod
    def like(
        cls, frame: SlotFrame, *, longest: int, opacity: float = 0.65, margin: int = 0
    ) -> FramePanels:
        """Gives the columns for frames like this one; a panel's longest side is given."""
        return cls(
            panel_size(frame.size, longest=longest),
            frame.num_slots,
            has_truth=frame.label_map is not None,
            has_reconstruction=frame.reconstruction is not None,
            opacity=opacity,
            margin=margin,
        )

    @property
    def layout(self) -> PanelRow:
        """Titles and places of the columns."""
        titles = ["original", *["truth"] * self.has_truth, "segmentation"]
        titles += ["reconstruction"] * self.has_reconstruction
        slots = range(self.num_slots)
        colors = [*[None] * len(titles), *map(slot_color, slots)]
        return PanelRow(
            self.size, [*titles, *(f"slot {slot}" for slot in slots)], colors, self.margin
        )

    def panels(self, frame: SlotFrame) -> tuple[list[np.ndarray], list[str]]:
        """Draws the panels of a frame and says what is below them, one for each column."""
        image = resized(frame.image, self.size)
        panels = [image]
        if frame.label_map is not None:
            truth = nearest_resized(frame.label_map, self.size)
            slots = frame.slots_of_objects
            panels.append(truth_picture(truth, slots, image, opacity=self.opacity))
        painted = nearest_resized(frame.segmentation, self.size)
        panels.append(segmentation_picture(painted, image, opacity=self.opacity))
        if frame.reconstruction is not None:
            panels.append(resized_smoothly(frame.reconstruction, self.size))
        captions = [""] * len(panels)
        panels += self.slots(image, frame.masks)
        captions += [area_text(share) for share in area_shares(frame.segmentation, self.num_slots)]
        return panels, captions

    def slots(self, frame: np.ndarray, masks: np.ndarray) -> list[np.ndarray]:
        """Draws what every slot sees of a frame ``(h, w, 3)`` of the panels' size."""
        return [slot_picture(frame, soft_resized(mask, self.size)) for mask in masks]


def area_shares(segmentation: np.ndarray, num_slots: int) -> np.ndarray:
    """Gives the share of each slot in the pixels, ``(K,)``."""
    counts = np.bincount(segmentation.ravel(), minlength=num_slots)
    return counts / max(segmentation.size, 1)


def area_text(share: float) -> str:
    """Writes a share; nothing at all differs from very little."""
    return "-" if share == 0 else f"{100 * share:.1f} %"


def nearest_resized(labels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resizes a map of labels ``(H, W)``, taking the nearest one's."""
    height, width = labels.shape
    rows = ((np.arange(size[0]) + 0.5) * height / size[0]).astype(np.int64)
    columns = ((np.arange(size[1]) + 0.5) * width / size[1]).astype(np.int64)
    return labels[rows[:, None], columns]


def soft_resized(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resizes a soft mask ``(H, W)`` bilinearly; a larger one is averaged."""
    if mask.shape == size:
        return mask
    image = Image.fromarray(mask.astype(np.float32))
    return np.asarray(image.resize(size[::-1], Image.Resampling.BILINEAR)).clip(0, 1)


def resized_smoothly(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resizes uint8 ``(H, W, 3)`` bilinearly: what a network drew has no hard pixels."""
    if picture.shape[:2] == size:
        return picture
    return np.asarray(Image.fromarray(picture).resize(size[::-1], Image.Resampling.BILINEAR))


@cache
def _font() -> Any:
    return ImageFont.load_default(_FONT_SIZE)
