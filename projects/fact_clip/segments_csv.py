"""Segments of a video as a table: from which to which frame, which action, how sure."""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from urllib.parse import unquote

import numpy as np

from vidseg.errors import DataError, UserError, nearest
from vidseg.evaluation.report import write_text

from .metrics import find_segments
from .timeline import MERGED, TITLES, Timeline

__all__ = ["FOLDER", "read_results", "read_segments", "write_segments"]

FOLDER = "segments"
"""Where an evaluation puts these tables."""

_HEADER = (
    *("row", "segment", "first_frame", "last_frame", "start_seconds", "end_seconds"),
    *("class_id", "class", "probability"),
)


def write_segments(path: Path, timeline: Timeline) -> None:
    """Writes the segments of every row of a timeline as csv, background too.

    Frames count from 0, and the last belongs to the segment. Seconds are empty if the frame rate is
    unknown; ``probability`` is the mean over the segment, of the merged labels alone. Frames
    without a label are left out.

    Raises:
        DataError: if the file cannot be written.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_HEADER)
    for name, labels in timeline.rows.items():
        for number, (action, start, stop) in enumerate(zip(*find_segments(labels), strict=True)):
            if action < 0:
                continue
            has_score = name == MERGED and number < len(timeline.scores)
            probability = f"{timeline.scores[number]:.4f}" if has_score else ""
            seconds = [_seconds(int(frame), timeline.frame_rate) for frame in (start, stop)]
            place = [number, start, stop - 1, *seconds]
            writer.writerow([name, *place, action, timeline.name_of(action), probability])
    write_text(path, text.getvalue())


def read_results(folder: Path, videos: Sequence[str] = ()) -> Iterator[Timeline]:
    """Reads the segments that an evaluation left.

    Args:
        folder: of the evaluation, with ``segments`` and ``per_class.csv``.
        videos: names of those to read; all if empty.

    Raises:
        DataError: if there are none, or a file cannot be read.
        UserError: if there is no such video.
    """
    files = {unquote(path.stem): path for path in sorted((folder / FOLDER).glob("*.csv"))}
    if not files:
        raise DataError(f"{folder} is no folder of an evaluation: it has no {FOLDER}/*.csv")
    for video in videos:
        if video not in files:
            close = ", ".join(nearest(video, files) or list(files)[:3])
            raise UserError(f"{folder / FOLDER} has no video {video!r}; nearest: {close}")
    classes, background = _read_classes(folder / "per_class.csv")
    for video in videos or files:
        yield read_segments(files[video], classes, background)


def read_segments(
    path: Path, classes: Mapping[int, str] | None = None, background: Collection[int] = ()
) -> Timeline:
    """Reads what ``write_segments`` wrote.

    Args:
        path: of the file.
        classes: names by number, besides those in the file.
        background: numbers of the background classes, which the file does not tell.

    Raises:
        DataError: if it cannot be read; names the line.
    """
    names = dict(classes or {})
    runs: dict[str, list[tuple[int, int, int]]] = {}
    scores, frame_rate = [], 0.0
    for line, row in _read_rows(path, _HEADER):
        try:
            action, first, last = (int(row[k]) for k in ("class_id", "first_frame", "last_frame"))
            seconds = float(row["end_seconds"] or 0)
            if row["probability"]:
                scores.append(float(row["probability"]))
        except ValueError as error:
            raise DataError(f"{path}, line {line}: {error}") from None
        if row["row"] not in TITLES:
            known = ", ".join(TITLES)
            raise DataError(f"{path}, line {line}: {row['row']!r} is no row; known: {known}")
        own = runs.setdefault(row["row"], [])
        if action < 0 or last < first or first < (own[-1][2] if own else 0):
            raise DataError(
                f"{path}, line {line}: a segment has a class from 0 on and lies behind the one "
                f"before it, got class {action} and frames {first} to {last}"
            )
        own.append((action, first, last + 1))
        names.setdefault(action, row["class"])
        frame_rate = (last + 1) / seconds if seconds else frame_rate
    length = max((own[-1][2] for own in runs.values()), default=0)
    if not length:
        raise DataError(f"{path} holds no segments")
    rows = {}
    for name, own in runs.items():
        rows[name] = np.full(length, -1, dtype=np.int64)
        for action, start, stop in own:
            rows[name][start:stop] = action
    num_merged = len(runs.get(MERGED, ()))
    return Timeline(
        name=unquote(path.stem),
        classes=[names.get(number, "") for number in range(max(names) + 1)],
        rows=rows,
        background=background,
        frame_rate=round(frame_rate, 2),
        scores=scores if len(scores) == num_merged else (),
    )


def _read_classes(path: Path) -> tuple[dict[int, str], list[int]]:
    """Gives the names of classes, and which are background; nothing if there is no such file."""
    if not path.is_file():
        return {}, []
    names, background = {}, []
    for line, row in _read_rows(path, ("class_id", "class", "is_background")):
        try:
            names[int(row["class_id"])] = row["class"]
            if int(row["is_background"]):
                background.append(int(row["class_id"]))
        except ValueError as error:
            raise DataError(f"{path}, line {line}: {error}") from None
    return names, background


def _read_rows(path: Path, needed: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """Gives the rows of a table with the numbers of their lines."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        raise DataError(f"{path} cannot be read: {reason}") from None
    reader = csv.DictReader(io.StringIO(text))
    missing = [name for name in needed if name not in (reader.fieldnames or ())]
    if missing:
        raise DataError(f"{path} has no column {missing[0]!r}; the first line must name it")
    for row in reader:
        if any(row[name] is None for name in needed):
            raise DataError(f"{path}, line {reader.line_num}: columns are missing")
        yield reader.line_num, row


def _seconds(frame: int, frame_rate: float) -> str:
    return f"{frame / frame_rate:.4f}" if frame_rate else ""
