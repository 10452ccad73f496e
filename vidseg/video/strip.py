"""Tracks over time in one picture: a row per track, its crops from left to right.

What a glance at it shows: whether a track stays on its object.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from vidseg import rle

from .draw import Drawing, FramePainter, drawings, track_color
from .images import save_image
from .io import VideoReader
from .labels import make_plate

if TYPE_CHECKING:
    from vidseg.structures import VideoInstances

__all__ = ["evenly", "save_strips"]

_GAP = 4
_BACKGROUND = (24, 24, 28)
_CAPTION = (200, 200, 205)
_CAPTION_SIZE = 12


def save_strips(
    source: Any,
    result: VideoInstances,
    output: str | Path,
    *,
    class_names: Sequence[str] | None = None,
    min_score: float = 0.0,
    num_crops: int = 10,
    crop_size: int = 96,
) -> Path | None:
    """Saves a picture with one row per track, best score first.

    A row holds crops at even steps through the track's life, each with the number of its frame.
    Every crop of a row has the same scale, so that growing and shrinking is seen.

    Args:
        source: what was predicted on, anything that ``VideoReader`` takes.
        result: the tracks.
        output: picture file.
        class_names: by label.
        min_score: tracks below it are left out.
        num_crops: per track at most.
        crop_size: side of a crop in pixels.

    Returns:
        The path, or None if there is no track to show.

    Raises:
        DataError: if the source cannot be read.
    """
    rows = _collect(result, class_names, min_score)
    if not rows:
        return None
    chosen = {track: evenly(sorted(frames), num_crops) for track, frames in rows.items()}
    crops = _cut(source, rows, chosen, crop_size)
    picture = _assemble(rows, chosen, crops, crop_size)
    save_image(picture, Path(output))
    return Path(output)


_Rows = dict[int, dict[int, Drawing]]  # track id -> frame index -> drawing


def _collect(result: VideoInstances, class_names: Sequence[str] | None, min_score: float) -> _Rows:
    rows: _Rows = {}
    objects = drawings(result, class_names=class_names, min_score=min_score)
    for frame, present in zip(result.frame_indices, objects, strict=True):
        for drawing in present:
            if rle.area(drawing.mask):
                rows.setdefault(drawing.track_id, {})[frame] = drawing
    order = {id_: rank for rank, id_ in enumerate(_ids_by_score(result))}
    return dict(sorted(rows.items(), key=lambda item: order[item[0]]))


def _ids_by_score(result: VideoInstances) -> list[int]:
    ids = result.track_ids[result.scores.argsort(descending=True, stable=True)].tolist()
    return list(dict.fromkeys(ids))


def evenly(frames: Sequence[int], count: int) -> list[int]:
    """Picks at most ``count`` of the frames at even steps, first and last included."""
    if len(frames) <= count:
        return list(frames)
    return [frames[i] for i in np.linspace(0, len(frames) - 1, count).round().astype(int)]


def _cut(
    source: Any, rows: _Rows, chosen: dict[int, list[int]], crop_size: int
) -> dict[tuple[int, int], Image.Image]:
    """Reads the video once and keeps the small crops only."""
    reader = source if isinstance(source, VideoReader) else VideoReader(source, quiet=True)
    wanted: dict[int, list[int]] = {}
    for track, frames in chosen.items():
        for index in frames:
            wanted.setdefault(index, []).append(track)
    sides = {
        track: _common_side([drawing.mask for drawing in frames.values()])
        for track, frames in rows.items()
    }
    painter = FramePainter(reader.info.size, opacity=0.18)
    crops: dict[tuple[int, int], Image.Image] = {}
    for frame in reader.frames():
        for track in wanted.pop(frame.index, ()):
            drawing = rows[track][frame.index]
            bare = Drawing(drawing.mask, drawing.track_id, text="")
            image = Image.fromarray(painter.paint(frame.image, [bare]))
            crops[track, frame.index] = _crop(image, drawing.mask, sides[track], crop_size)
        if not wanted:
            break
    return crops


def _common_side(masks: Sequence[rle.RLE]) -> float:
    """Gives the side of a square that holds nearly every box of a track, with a margin."""
    longest = rle.boxes(masks)[:, 2:].max(axis=1)
    return max(float(np.quantile(longest, 0.9)) * 1.3, 8.0)


def _crop(image: Image.Image, mask: rle.RLE, side: float, crop_size: int) -> Image.Image:
    left, top, width, height = rle.boxes([mask])[0]
    x, y = left + width / 2 - side / 2, top + height / 2 - side / 2
    box = (round(x), round(y), round(x + side), round(y + side))
    # Beyond the picture PIL crops black, which shows that the object touches the border.
    return image.crop(box).resize((crop_size, crop_size), Image.Resampling.BILINEAR)


def _assemble(
    rows: _Rows,
    chosen: dict[int, list[int]],
    crops: dict[tuple[int, int], Image.Image],
    crop_size: int,
) -> Image.Image:
    font: Any = ImageFont.load_default(_CAPTION_SIZE)
    columns = max(len(frames) for frames in chosen.values())
    label_height, caption_height = 22, _CAPTION_SIZE + 5
    row_height = label_height + crop_size + caption_height + _GAP
    width = columns * (crop_size + _GAP) + _GAP
    picture = Image.new("RGB", (max(width, 240), len(rows) * row_height + _GAP), _BACKGROUND)
    pen = ImageDraw.Draw(picture)
    for number, (track, frames) in enumerate(rows.items()):
        top = _GAP + number * row_height
        text = f"{next(iter(frames.values())).text}, {len(frames)} frames"
        plate = make_plate(text, track_color(track), 13, max_width=picture.width - 2 * _GAP)
        picture.paste(plate, (_GAP, top), plate)
        for column, frame in enumerate(chosen[track]):
            left = _GAP + column * (crop_size + _GAP)
            if (track, frame) in crops:
                picture.paste(crops[track, frame], (left, top + label_height))
            place = (left + 2, top + label_height + crop_size + 1)
            pen.text(place, str(frame), font=font, fill=_CAPTION)
    return picture
