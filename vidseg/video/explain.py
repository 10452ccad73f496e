"""Explanations as files: attention per track as video and strip, frame weights, query rows.

Memory does not grow with the video's pixels: it is read once, frame by frame, and of the pictures
only the small ones of the strips are kept.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from vidseg.errors import DataError
from vidseg.files import make_folder, write_atomically

from .charts import save_frame_weights, save_query_rows
from .draw import Drawing, drawings, track_color
from .heat import HeatPainter, color_bar, inside_share, spread
from .io import VideoFrame, VideoReader
from .labels import make_plate
from .sheets import BACKGROUND, AttentionSheet
from .strip import evenly
from .writer import VideoWriter

if TYPE_CHECKING:
    from vidseg.structures import Explanation, FrameAttention, VideoInstances

__all__ = ["save_explanation"]

_SHARE_NOTE = "; in brackets its share in what the track reads of the frame"
_NOTES = (
    "inside mask: the part of this query's attention that lies inside the track's mask (outline).",
    "Each map is scaled to its own peak.",
)
_UNTRACKED_NOTE = (
    "not tracked here (in the video): the tracker has no query for the track in this frame; a mask "
    "there comes from the other frames."
)
_NUM_MOMENTS = 8  # of a track, on its sheet
_MIN_SIDE = 240  # smaller frames are enlarged
_FILES = ("attention_*.mp4", "attention_*.png", "attention.json", "frame_weights.*", "anchors.*")


def save_explanation(
    source: Any,
    result: VideoInstances,
    explanation: Explanation,
    folder: str | Path,
    *,
    class_names: Sequence[str] | None = None,
) -> list[Path]:
    """Writes what a model read, in pictures and in numbers.

    ``attention_<track>.mp4`` (not for a single picture) and ``.png`` show where the track's query
    looked, ``attention.json`` holds the numbers; ``frame_weights.png`` and ``.json`` show how much
    each frame counts, ``anchors.png`` and ``.json`` which queries were tracks and which births,
    for models that have such things. Files of an earlier run in the folder are removed.

    Args:
        source: what was predicted on, anything that ``VideoReader`` takes.
        result: the tracks.
        explanation: of that result.
        folder: for the files.
        class_names: by label.

    Returns:
        The files written.

    Raises:
        DataError: if the source cannot be read or does not belong to the result, or a file cannot
            be written.
    """
    folder = Path(folder)
    make_folder(folder, "the folder of explanations")
    for pattern in _FILES:
        for old in folder.glob(pattern):
            old.unlink()
    names = _names(result, class_names)
    files: list[Path] = []
    if explanation.track_ids:
        reader = source if isinstance(source, VideoReader) else VideoReader(source, quiet=True)
        files += _save_attention(reader, result, explanation, folder, names)
    if explanation.frame_weights is not None and result.num_frames > 1:
        files += save_frame_weights(result, explanation, names, folder / "frame_weights.png")
    if explanation.rows is not None:
        files += save_query_rows(result, explanation.rows, names, folder / "anchors.png")
    return files


def _names(result: VideoInstances, class_names: Sequence[str] | None) -> dict[int, str]:
    """Gives every track's label as the overlay has it, best score first."""
    everything = drawings(result, class_names=class_names)
    texts = {drawing.track_id: drawing.text for frame in everything for drawing in frame}
    order = result.track_ids[result.scores.argsort(descending=True, stable=True)].tolist()
    return {track: texts.get(track, f"#{track}") for track in order}


def _save_attention(
    reader: VideoReader,
    result: VideoInstances,
    explanation: Explanation,
    folder: Path,
    names: dict[int, str],
) -> list[Path]:
    """Goes through the video once and draws every track."""
    objects = [
        {drawing.track_id: drawing for drawing in frame}
        for frame in drawings(result)  # by position, not by frame number
    ]
    tracks = [
        _TrackDrawer(track, names[track], _life(track, objects, explanation), reader, folder)
        for track in explanation.track_ids
    ]
    with ExitStack() as stack:
        for drawer in tracks:
            stack.enter_context(drawer)
        steps = zip(_frames(reader, result.frame_indices), explanation.attention(), strict=True)
        for number, (frame, attention) in enumerate(steps):
            for row, drawer in enumerate(tracks):
                drawer.add(frame, attention, row, objects[number].get(drawer.track))
    records = {str(drawer.track): drawer.records for drawer in tracks}
    for drawer in tracks:
        notes = _notes(explanation.attention_source, drawer.records)
        drawer.sheet.save(folder / f"attention_{drawer.track}.png", notes)
    text = json.dumps({"source": explanation.attention_source, "tracks": records}).encode()
    write_atomically(folder / "attention.json", lambda file: file.write(text))
    return [*sorted(folder.glob("attention_*")), folder / "attention.json"]


def _notes(source: str, records: Sequence[dict[str, Any]]) -> list[str]:
    """Explains the words that stand beside a track's pictures."""
    shared = any(record["query"] >= 0 and record["share"] < 1 for record in records)
    untracked = any(record["query"] < 0 for record in records)
    return [
        f"Attention: {source}.",
        f"query: the frame query shown{_SHARE_NOTE if shared else ''}.",
        *_NOTES,
        *([_UNTRACKED_NOTE] if untracked else ()),
    ]


def _frames(reader: VideoReader, indices: Sequence[int]) -> Iterator[VideoFrame]:
    """Yields the frames of a result."""
    wanted = iter(indices)
    expected = next(wanted, None)
    for frame in reader.frames():
        if frame.index == expected:
            yield frame
            expected = next(wanted, None)
        if expected is None:
            return
    raise DataError(f"the source has no frame {expected}, which the result has")


def _life(track: int, objects: Sequence[dict[int, Drawing]], explanation: Explanation) -> list[int]:
    """Gives the positions of the frames in which there is something to see of a track."""
    rows = explanation.rows or []
    tracked = [number for number, row in enumerate(rows) if track in row.ids]
    present = [number for number, frame in enumerate(objects) if track in frame]
    return tracked or present or list(range(len(objects)))


class _TrackDrawer:
    """Draws one track, frame after frame, into its video and onto its sheet.

    Args:
        track: id.
        name: label of the overlay.
        life: positions of the frames of which some are shown on the sheet.
        reader: of the video.
        folder: for the video.
    """

    def __init__(
        self, track: int, name: str, life: Sequence[int], reader: VideoReader, folder: Path
    ) -> None:
        size = reader.info.size
        scale = max(1, math.ceil(_MIN_SIDE / min(size)))
        self.track = track
        self.records: list[dict[str, Any]] = []
        self._name = name
        self._painter = HeatPainter(size, scale=scale)
        self._width = size[1] * scale
        self._shown = set(evenly(life, _NUM_MOMENTS))
        self.sheet = AttentionSheet(track, name, size, len(self._shown))
        self._start: float | None = None
        self._writer = (
            None
            if reader.is_picture
            else VideoWriter(folder / f"attention_{track}.mp4", fps=reader.info.fps)
        )

    def __enter__(self) -> _TrackDrawer:
        return self

    def __exit__(self, *error: Any) -> None:
        if self._writer is not None:
            self._writer.__exit__(*error)

    def add(
        self, frame: VideoFrame, attention: FrameAttention, row: int, mask: Drawing | None
    ) -> None:
        """Draws the next frame; ``row`` is the track's in ``attention``."""
        cells = attention.maps[row].numpy()
        shares = spread(cells, attention.covered, frame.image.shape[:2])
        record = {
            "frame": frame.index,
            "query": attention.queries[row],
            "share": round(attention.shares[row], 4),
            "inside": round(inside_share(shares, mask), 4),
            "peak": round(float(cells.max()), 4),
        }
        picture = self._painter.paint(frame.image, shares, mask)
        if len(self.records) in self._shown:
            self.sheet.add(frame.image, picture, mask, _captions(record, mask is not None))
        self.records.append(record)
        if self._writer is not None:
            self._start = frame.time if self._start is None else self._start
            self._writer.write(self._framed(picture, record, mask), time=frame.time - self._start)

    def _framed(self, picture: np.ndarray, record: dict[str, Any], mask: Drawing | None) -> Any:
        """Puts the texts above the picture and the colours below it."""
        captions = [text for text in _captions(record, mask is not None) if text]
        lines = [f"attention of {self._name}", ", ".join(captions)]
        plates = [
            make_plate(text, track_color(self.track), 13, max_width=self._width) for text in lines
        ]
        head = sum(plate.height for plate in plates) + 4
        canvas = Image.new("RGB", (self._width, head + picture.shape[0] + 22), BACKGROUND)
        top = 2
        for plate in plates:
            canvas.paste(plate, (0, top), plate)
            top += plate.height
        canvas.paste(Image.fromarray(picture), (0, head))
        peak = f"read most ({record['peak']:.1%} in a cell)" if record["query"] >= 0 else ""
        bar = color_bar(self._width, "not read", peak, BACKGROUND)
        canvas.paste(bar, (0, head + picture.shape[0] + 2))
        return np.asarray(canvas)


def _captions(record: dict[str, Any], has_mask: bool) -> list[str]:
    """Says in a few words what a frame's numbers are."""
    frame = f"frame {record['frame']}"
    if record["query"] < 0:
        return [frame, "not tracked here", "" if has_mask else "no mask"]
    share = f" ({record['share']:.0%})" if record["share"] < 1 else ""  # else it is the track
    query = f"query {record['query']}{share}"
    inside = f"{record['inside']:.0%} inside mask" if has_mask else "no mask"
    return [frame, query, inside]
