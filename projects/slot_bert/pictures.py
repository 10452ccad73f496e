"""Pictures and videos of a clip: what every slot sees of its frames.

Shapes: T frames, K slots, I iterations, H W pixels, h w of the attention.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from PIL import Image

from vidseg.video.images import save_image
from vidseg.video.strip import evenly

from .clip_view import ClipView, SlotFrame
from .panels import FramePanels, soft_resized
from .video_output import SlotVideos

__all__ = ["Grid", "save_clip_grid", "save_clip_pictures", "save_iterations"]

_PANEL = 128  # longest side in pixels
_MARGIN = 76
_FPS = 8.0  # of clips that have no rate of their own


def save_clip_pictures(
    folder: Path, sample: Mapping[str, Any], prediction: Mapping[str, Any]
) -> list[Path]:
    """Writes ``grid.png``, ``panels.mp4`` and ``panels.gif`` of a clip to a folder of its own.

    Args:
        folder: holds the folders of the clips.
        sample: of the evaluation: ``video_id``, ``frames`` and, if known, ``label_maps``.
        prediction: see ``ClipView.of``.

    Returns:
        The files written.

    Raises:
        DataError: if frames and prediction do not belong together, or a file cannot be written.
    """
    own = folder / quote(str(sample["video_id"]), safe=" ")  # some data sets have paths as ids
    view = ClipView.of(sample["frames"], prediction, sample.get("label_maps"))
    _save_grid(own / "grid.png", view)
    with SlotVideos(own, view[0], fps=_FPS, names=["panels"]) as videos:
        for number in range(len(view)):
            videos.write(view[number], time=number / _FPS)
    return [own / "grid.png", *videos.files]


def save_clip_grid(
    path: Path,
    frames: Any,
    prediction: Mapping[str, Any],
    *,
    label_maps: Any | None = None,
    max_frames: int = 8,
    opacity: float = 0.65,
) -> None:
    """Draws frames as rows: original, truth, segmentation, reconstruction, what each slot sees.

    Below each slot stands its share of the frame. A slot has the same colour in all rows; a true
    object has that of the slot that covers it best over the clip, and is white if none is left.

    Args:
        path: of the picture.
        frames: ``(T, C, H, W)``, uint8 or float in [0, 1].
        prediction: see ``ClipView.of``.
        label_maps: true objects ``(T, H, W)``: 0 background, -1 unknown.
        max_frames: rows at most; of a longer clip they are evenly spaced.
        opacity: of the colours on the frame, 0 to 1.

    Raises:
        DataError: if frames and prediction do not belong together, or the file cannot be written.
    """
    view = ClipView.of(frames, prediction, label_maps)
    _save_grid(path, view, max_frames=max_frames, opacity=opacity)


def save_iterations(path: Path, frame: SlotFrame, attention: np.ndarray) -> None:
    """Draws how the slots share a frame out, a row for every iteration of slot attention.

    Args:
        path: of the picture.
        frame: what is attended to.
        attention: after each iteration, float ``(I, K, h, w)``, sum 1 over K.

    Raises:
        DataError: if the file cannot be written.
    """
    rows = []
    for number, maps in enumerate(attention, 1):
        masks = np.stack([soft_resized(one, frame.size) for one in maps])
        step = SlotFrame(frame.image, masks, masks.argmax(0))
        rows.append((step, f"iteration {number}"))
    grid = Grid(rows[0][0])
    grid.save(path, [grid.draw(*row) for row in rows])


class Grid:
    """Draws a picture of rows of panels.

    Args:
        first: frame like which the others are.
        opacity: of the colours on the frame, 0 to 1.
    """

    def __init__(self, first: SlotFrame, *, opacity: float = 0.65) -> None:
        self._painter = FramePanels.like(first, longest=_PANEL, opacity=opacity, margin=_MARGIN)

    def draw(self, frame: SlotFrame, label: str) -> np.ndarray:
        """Draws the row of a frame."""
        return self._painter.layout.row(*self._painter.panels(frame), label)

    def save(self, path: Path, rows: Sequence[np.ndarray]) -> None:
        """Writes the picture of some rows."""
        save_image(Image.fromarray(np.concatenate([self._painter.layout.header(), *rows])), path)


def _save_grid(path: Path, view: ClipView, *, max_frames: int = 8, opacity: float = 0.65) -> None:
    grid = Grid(view[0], opacity=opacity)
    chosen = evenly(range(len(view)), max_frames)
    grid.save(path, [grid.draw(view[number], f"frame {number}") for number in chosen])
