"""Pictures of a clip: frames from top to bottom, beside each what every slot sees of it.

Shapes: T frames, K slots, I iterations, H W pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from vidseg.video.images import save_image
from vidseg.video.strip import evenly

from .clip_view import ClipView
from .panels import FramePanels, panel_size

__all__ = ["GRID_PANEL", "save_clip_grid"]

GRID_PANEL = 128  # longest side of a panel in pixels
_MARGIN = 62


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
    painter = FramePanels(
        panel_size(view.size, longest=GRID_PANEL),
        view.num_slots,
        has_truth=view.label_maps is not None,
        has_reconstruction=view.reconstruction is not None,
        opacity=opacity,
        margin=_MARGIN,
    )
    layout = painter.layout
    rows = [layout.header()]
    for number in evenly(range(view.num_frames), max_frames):
        rows.append(layout.row(*frame_panels(painter, view, number), f"frame {number}"))
    save_image(Image.fromarray(np.concatenate(rows)), path)


def frame_panels(
    painter: FramePanels, view: ClipView, number: int
) -> tuple[list[np.ndarray], list[str]]:
    """Draws the panels of one frame of a clip."""
    truth = None
    if view.label_maps is not None:
        truth = view.label_maps[number], view.slots_of_objects
    drawn = view.reconstruction
    return painter.panels(
        view.frames[number],
        view.masks[number],
        view.segmentation[number],
        reconstruction=None if drawn is None else drawn[number],
        truth=truth,
    )
