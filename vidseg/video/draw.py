"""Tracks drawn onto frames: a tint, an outline and a label in one colour per track.

The colour depends on the track id alone, so that the same track looks the same in every window,
run and picture.
"""

from __future__ import annotations

import colorsys
import logging
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageDraw

from vidseg import rle
from vidseg.errors import DataError

from .images import IMAGE_SUFFIXES, save_image
from .io import VideoFrame, VideoReader
from .labels import Box, free_corner, make_plate
from .writer import VideoWriter

if TYPE_CHECKING:
    from vidseg.structures import VideoInstances

__all__ = [
    "Drawing",
    "FramePainter",
    "class_text",
    "drawings",
    "overlay_windows",
    "save_overlay",
    "track_color",
]

logger = logging.getLogger(__name__)

_GOLDEN_RATIO = 0.61803398875
_LUMINANCE = np.array([0.299, 0.587, 0.114])
_MIN_LUMINANCE = 0.5
# Each far from those before it in CIELAB, and none too dark to be seen on shadows.
_PALETTE = bytes.fromhex(
    "ff4b2d 00e600 6969ff 00e6ff fff000 ff2dc3 788721 ffb4e1 3c87c3 ffb478"
    "c3ffa5 b45a69 00b44b d22dff 96c300 3c9678 ff9600 b469c3 b4691e ff3c78"
)
_CROWD = 16  # visible tracks beyond which labels shrink to the id
_MAX_CACHED_PLATES = 512

Color = tuple[int, int, int]


def track_color(track_id: int) -> Color:
    """Gives the colour of a track; ids near each other get colours far apart."""
    if 0 <= track_id < len(_PALETTE) // 3:
        red, green, blue = _PALETTE[3 * track_id : 3 * track_id + 3]
        return red, green, blue
    hue = (0.02 + track_id * _GOLDEN_RATIO) % 1.0
    # Hues come close to each other after a dozen ids: brightness and saturation tell those apart.
    saturation = (0.85, 0.6, 1.0)[track_id // 13 % 3]
    value = (1.0, 0.85)[track_id // 39 % 2]
    color = np.array(colorsys.hsv_to_rgb(hue, saturation, value))
    # Blue and violet of full saturation are too dark to be seen on shadows.
    lacking = max(0.0, _MIN_LUMINANCE - float(color @ _LUMINANCE))
    red, green, blue = ((color + lacking * (1 - color)) * 255).round().astype(int).tolist()
    return red, green, blue


def class_text(label: int, class_names: Sequence[str] | None) -> str:
    """Gives the name of a class, or its number where no name is known."""
    if class_names is not None and 0 <= label < len(class_names):
        return class_names[label]
    return f"class {label}"


@dataclass(frozen=True)
class Drawing:
    """One track in one frame: mask as RLE, id, and the texts of its long and its short label."""

    mask: rle.RLE
    track_id: int
    text: str
    short_text: str = ""


class FramePainter:
    """Draws tracks onto the frames of one video, in order.

    It remembers where the labels of the last frame were, to keep them from jumping.

    Args:
        size: (height, width) of the frames.
        opacity: of the tint, 0 to 1.
        boxes: whether to draw bounding boxes as well.
        scale: whole factor by which pictures are enlarged, so that labels fit small frames.

    Raises:
        DataError: if a mask has another size than the frames.
    """

    def __init__(
        self,
        size: tuple[int, int],
        *,
        opacity: float = 0.42,
        boxes: bool = False,
        scale: int = 1,
    ) -> None:
        self.frame_size = size
        self.scale = scale
        size = (size[0] * scale, size[1] * scale)
        self.size = size
        self.opacity = opacity
        self.boxes = boxes
        side = min(size)
        self.line = max(1, round(side / 400))
        self.font_size = int(np.clip(round(math.sqrt(size[0] * size[1]) / 42), 10, 40))
        self._plates: dict[tuple[str, Color, int], Image.Image] = {}
        self._places: dict[int, int] = {}  # track id -> place of its label in the last frame

    def paint(self, image: np.ndarray, objects: Sequence[Drawing]) -> np.ndarray:
        """Draws the objects of one frame, the largest first so that small ones stay visible.

        Args:
            image: uint8 ``(H, W, 3)`` RGB; it is not changed.
            objects: in any order.

        Returns:
            A new array like ``image``, ``scale`` times as high and wide.
        """
        canvas = Image.fromarray(image)
        if self.scale > 1:
            canvas = canvas.resize(self.size[::-1], Image.Resampling.BICUBIC)
        placed = self._boxes_of(objects)
        placed.sort(key=lambda pair: -(pair[1][2] - pair[1][0]) * (pair[1][3] - pair[1][1]))
        for drawing, box in placed:
            self._tint(canvas, drawing, box)
        if self.boxes:
            pen = ImageDraw.Draw(canvas)
            for drawing, (left, top, right, bottom) in placed:
                outline = track_color(drawing.track_id)
                pen.rectangle((left, top, right - 1, bottom - 1), outline=outline, width=self.line)
        self._label(canvas, placed)
        return np.asarray(canvas)

    def _boxes_of(self, objects: Sequence[Drawing]) -> list[tuple[Drawing, Box]]:
        """Pairs the objects that have pixels with their boxes left, top, right, bottom."""
        for drawing in objects:
            if tuple(drawing.mask["size"]) != tuple(self.frame_size):
                height, width = drawing.mask["size"]
                raise DataError(
                    f"a mask of track {drawing.track_id} is {width}x{height}, but the frames are "
                    f"{self.frame_size[1]}x{self.frame_size[0]}: the result belongs to another "
                    "video"
                )
        corners = rle.boxes([drawing.mask for drawing in objects]).astype(int)
        corners[:, 2:] += corners[:, :2]
        corners *= self.scale
        return [
            (drawing, tuple(box))
            for drawing, box in zip(objects, corners.tolist(), strict=True)
            if box[2] > box[0] and box[3] > box[1]
        ]

    def _tint(self, canvas: Image.Image, drawing: Drawing, box: Box) -> None:
        """Blends the mask and its outline in one pass over its box."""
        left, top, right, bottom = box
        inside = rle.decode(drawing.mask)
        if self.scale > 1:
            inside = inside.repeat(self.scale, axis=0).repeat(self.scale, axis=1)
        inside = inside[top:bottom, left:right]
        alpha = np.where(inside, np.uint8(255 * self.opacity), np.uint8(0))
        alpha[inside & ~_eroded(inside, self.line, box, self.size)] = 255
        canvas.paste(track_color(drawing.track_id), (left, top), Image.fromarray(alpha))

    def _label(self, canvas: Image.Image, placed: Sequence[tuple[Drawing, Box]]) -> None:
        """Puts a plate at every object, beside the plates that are there already."""
        crowded = len(placed) > _CROWD
        taken: list[Box] = []
        boxes = [box for _, box in placed]
        last, self._places = self._places, {}
        for drawing, box in reversed(placed):  # the small ones have the least choice
            text = drawing.short_text if crowded and drawing.short_text else drawing.text
            if not text:
                continue
            size = round(self.font_size * 0.8) if crowded else self.font_size
            plate = self._plate(text, track_color(drawing.track_id), size)
            corner, self._places[drawing.track_id] = free_corner(
                box,
                plate.size,
                self.size,
                plates=taken,
                objects=boxes,
                preferred=last.get(drawing.track_id, 0),
            )
            taken.append((*corner, corner[0] + plate.width, corner[1] + plate.height))
            canvas.paste(plate, corner, plate)

    def _plate(self, text: str, color: Color, font_size: int) -> Image.Image:
        key = (text, color, font_size)
        if key not in self._plates:
            if len(self._plates) >= _MAX_CACHED_PLATES:
                self._plates.clear()
            self._plates[key] = make_plate(text, color, font_size, max_width=self.size[1])
        return self._plates[key]


def drawings(
    result: VideoInstances,
    *,
    class_names: Sequence[str] | None = None,
    min_score: float = 0.0,
) -> list[list[Drawing]]:
    """Gives what there is to draw, frame by frame in the order of ``result.frame_indices``.

    A track that appears with several classes is drawn once, with the one of highest score.
    """
    frames: list[list[Drawing]] = [[] for _ in result.frame_indices]
    drawn: set[int] = set()
    scores, labels, ids = result.scores.tolist(), result.labels.tolist(), result.track_ids.tolist()
    for row in sorted(range(len(scores)), key=lambda row: -scores[row]):
        if scores[row] < min_score or ids[row] in drawn:
            continue
        drawn.add(ids[row])
        short = f"#{ids[row]}"
        text = f"{class_text(labels[row], class_names)} {scores[row]:.2f} {short}"
        for frame, mask in zip(frames, result.masks[row], strict=True):
            if mask is not None:
                frame.append(Drawing(mask, ids[row], text, short))
    return frames


def save_overlay(
    source: Any,
    result: VideoInstances,
    output: str | Path,
    *,
    class_names: Sequence[str] | None = None,
    min_score: float = 0.0,
    boxes: bool = False,
    min_side: int = 0,
) -> Path:
    """Draws a result onto its video, frame by frame: memory does not grow with the video.

    Only the frames that ``result.frame_indices`` names are written, at their own times.

    Args:
        source: what was predicted on, anything that ``VideoReader`` takes.
        result: the tracks.
        output: an ``.mp4`` file, or a picture such as ``.png`` for a result of one frame.
        class_names: by label; class numbers are shown where it is None.
        min_score: tracks below it are left out.
        boxes: whether to draw bounding boxes as well.
        min_side: frames whose shorter side is below it are enlarged by a whole factor.

    Returns:
        The path written.

    Raises:
        DataError: if the source cannot be read or does not belong to the result, if the output
            cannot be written, or if a picture is wanted of more than one frame.
    """
    output = Path(output)
    frames = painted_frames(
        source,
        result,
        class_names=class_names,
        min_score=min_score,
        boxes=boxes,
        min_side=min_side,
    )
    if output.suffix.lower() in IMAGE_SUFFIXES:
        if result.num_frames != 1:
            raise DataError(
                f"{output} holds one picture, the result has {result.num_frames} frames"
            )
        _, _, image = next(frames)
        save_image(Image.fromarray(image), output)
        return output
    with_time = ((time, fps, image) for fps, time, image in frames)
    first = next(with_time, None)
    if first is None:
        raise DataError(f"the result has no frame to draw, {output} is not written")
    with VideoWriter(output, fps=first[1]) as writer:
        writer.write(first[2], time=0.0)
        for time, _, image in with_time:
            writer.write(image, time=time - first[0])
    return output


def overlay_windows(
    windows: Iterable[VideoInstances],
    next_frame: Callable[[], VideoFrame],
    output: str | Path,
    *,
    fps: float,
    class_names: Sequence[str] | None = None,
    min_score: float = 0.0,
    boxes: bool = False,
    min_side: int = 0,
) -> Iterator[VideoInstances]:
    """Passes windows on and draws each onto its frames; the video is complete after the last.

    Args:
        windows: results of consecutive windows, as they become known.
        next_frame: gives the frames that they are of, in order.
        output: an ``.mp4`` file.
        fps: nominal frames per second.
        class_names: as in ``save_overlay``, like the others.
        min_score: see above.
        boxes: see above.
        min_side: see above.

    Raises:
        DataError: if the output cannot be written.
    """
    start, painter = 0.0, None
    with VideoWriter(output, fps=fps) as writer:
        for window in windows:
            for objects in drawings(window, class_names=class_names, min_score=min_score):
                frame = next_frame()
                if painter is None:
                    size = (frame.image.shape[0], frame.image.shape[1])
                    scale = max(1, math.ceil(min_side / min(size)))
                    start, painter = frame.time, FramePainter(size, boxes=boxes, scale=scale)
                writer.write(painter.paint(frame.image, objects), time=frame.time - start)
            yield window


def painted_frames(
    source: Any,
    result: VideoInstances,
    *,
    class_names: Sequence[str] | None = None,
    min_score: float = 0.0,
    boxes: bool = False,
    min_side: int = 0,
) -> Iterator[tuple[float, float, np.ndarray]]:
    """Yields (frames per second, time, picture) of the frames of a result; see ``save_overlay``."""
    reader = VideoReader(source, quiet=True) if not isinstance(source, VideoReader) else source
    objects = dict(
        zip(
            result.frame_indices,
            drawings(result, class_names=class_names, min_score=min_score),
            strict=True,
        )
    )
    scale = max(1, math.ceil(min_side / min(reader.info.size)))
    painter = FramePainter(reader.info.size, boxes=boxes, scale=scale)
    last = max(objects, default=-1)
    for frame in reader.frames():
        if frame.index in objects:
            image = painter.paint(frame.image, objects.pop(frame.index))
            yield reader.info.fps, frame.time, image
        if frame.index >= last:
            break
    if objects:
        raise DataError(
            f"{reader.info.path or 'the source'} has no frame {min(objects)}, which the result "
            "has: it belongs to another video"
        )


def _eroded(mask: np.ndarray, radius: int, box: Box, size: tuple[int, int]) -> np.ndarray:
    """Pixels whose neighbours up to ``radius`` away in the four directions are all inside.

    The picture's border is no outline: an object cut off there is open.
    """
    left, top, right, bottom = box
    padded = np.pad(mask, radius)
    if top == 0:
        padded[:radius] = True
    if left == 0:
        padded[:, :radius] = True
    if bottom == size[0]:
        padded[-radius:] = True
    if right == size[1]:
        padded[:, -radius:] = True
    height, width = mask.shape
    inner = slice(radius, radius + height), slice(radius, radius + width)
    result = padded[inner].copy()
    for step in range(1, radius + 1):
        result &= padded[radius - step : radius - step + height, inner[1]]
        result &= padded[radius + step : radius + step + height, inner[1]]
        result &= padded[inner[0], radius - step : radius - step + width]
        result &= padded[inner[0], radius + step : radius + step + width]
    return result
