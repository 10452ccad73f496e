"""Videos of slots: each panel for itself and all side by side, as mp4 and as gif.

Shapes: K slots, H W pixels.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType

import numpy as np

from vidseg.video.writer import VideoWriter

from .clip_view import Color, SlotFrame, slot_color
from .gif import GifWriter
from .panels import (
    FramePanels,
    PanelRow,
    area_shares,
    area_text,
    nearest_resized,
    panel_size,
    resized,
    resized_smoothly,
    segmentation_picture,
)

__all__ = ["FORMATS", "VIDEOS", "SlotVideos"]

FORMATS = ("mp4", "gif")
VIDEOS = ("original", "segmentation", "reconstruction", "slots", "panels")
_PANEL, _SLOT, _ENLARGED, _LARGEST = 128, 160, 256, 640  # longest sides in pixels


class SlotVideos:
    """Writes videos of ``VIDEOS``; ``panels`` shows the others side by side.

    Sizes are bounded: small frames are enlarged by a whole factor, large ones reduced.

    Args:
        folder: for the files.
        first: the first frame, which tells sizes and columns.
        fps: nominal frames per second.
        names: what to write; there is no reconstruction if the model draws none.
        formats: of ``FORMATS``.
        opacity: of the colours on the frame, 0 to 1.

    Attributes:
        files: that are written.

    Raises:
        DataError: if a file cannot be written.
    """

    def __init__(
        self,
        folder: Path,
        first: SlotFrame,
        *,
        fps: float,
        names: Sequence[str] = VIDEOS,
        formats: Sequence[str] = FORMATS,
        opacity: float = 0.65,
    ) -> None:
        size = first.size
        self._size = panel_size(size, longest=_ENLARGED if max(size) <= _ENLARGED else _LARGEST)
        self._painter = FramePanels.like(first, longest=_PANEL, opacity=opacity)
        self._header = self._painter.layout.header()
        self._cells = FramePanels.like(first, longest=_SLOT)
        self._mosaic = _mosaic(self._cells.size, first.num_slots)
        drawing: dict[str, Callable[[SlotFrame], np.ndarray]] = {
            "original": lambda frame: resized(frame.image, self._size),
            "segmentation": self._segmentation,
            "reconstruction": self._reconstruction,
            "slots": self._slots,
            "panels": self._panels,
        }
        if first.reconstruction is None:
            del drawing["reconstruction"]
        self._drawing = {name: drawing[name] for name in names if name in drawing}
        self._stack = contextlib.ExitStack()
        self._writers: dict[str, list[VideoWriter | GifWriter]] = {}
        for name in self._drawing:
            self._writers[name] = [_open(folder / f"{name}.{kind}", fps) for kind in formats]
            for writer in self._writers[name]:
                self._stack.enter_context(writer)
        self.files = [writer.path for writers in self._writers.values() for writer in writers]

    def __enter__(self) -> SlotVideos:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def write(self, frame: SlotFrame, *, time: float) -> None:
        """Appends a frame to every video, ``time`` seconds after the first."""
        for name, draw in self._drawing.items():
            picture = draw(frame)
            for writer in self._writers[name]:
                writer.write(picture, time=time)

    def _segmentation(self, frame: SlotFrame) -> np.ndarray:
        below = resized(frame.image, self._size)
        slots = nearest_resized(frame.segmentation, self._size)
        return segmentation_picture(slots, below, opacity=self._painter.opacity)

    def _reconstruction(self, frame: SlotFrame) -> np.ndarray:
        assert frame.reconstruction is not None
        return resized_smoothly(frame.reconstruction, self._size)

    def _slots(self, frame: SlotFrame) -> np.ndarray:
        """Draws all slots in rows and columns."""
        panels = self._cells.slots(resized(frame.image, self._cells.size), frame.masks)
        captions = [area_text(share) for share in area_shares(frame.segmentation, len(panels))]
        columns = len(self._mosaic[0].titles)
        rows = []
        for number, layout in enumerate(self._mosaic):
            part = slice(number * columns, (number + 1) * columns)
            rows += [layout.header(), layout.row(panels[part], captions[part])]
        return np.concatenate(rows)

    def _panels(self, frame: SlotFrame) -> np.ndarray:
        row = self._painter.layout.row(*self._painter.panels(frame))
        return np.concatenate([self._header, row])


def _open(path: Path, fps: float) -> VideoWriter | GifWriter:
    return GifWriter(path, fps=fps) if path.suffix == ".gif" else VideoWriter(path, fps=fps)


def _mosaic(size: tuple[int, int], num_slots: int) -> list[PanelRow]:
    """Gives the rows in which the slots stand, about as many as there are columns."""
    columns = math.ceil(math.sqrt(num_slots))
    rows = []
    for start in range(0, num_slots, columns):
        slots = range(start, min(start + columns, num_slots))
        empty = columns - len(slots)
        titles = [*(f"slot {slot}" for slot in slots), *[""] * empty]
        colors: list[Color | None] = [*map(slot_color, slots), *[None] * empty]
        rows.append(PanelRow(size, titles, colors))
    return rows
