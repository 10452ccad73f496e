"""Segments of a video as a table: from which to which frame, which action, how sure."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from vidseg.evaluation.report import write_text

from .metrics import find_segments
from .timeline import MERGED, Timeline

__all__ = ["HEADER", "write_segments"]

HEADER = (
    *("row", "segment", "first_frame", "last_frame", "start_seconds", "end_seconds"),
    *("class_id", "class", "probability"),
)


def write_segments(path: Path, timeline: Timeline) -> None:
    """Writes the segments of every row of a timeline as csv, background too.

    Frames count from 0, and the last belongs to the segment. Seconds are empty if the frame rate is
    unknown; ``probability`` is the mean over the segment, of the merged prediction alone. Frames
    without a label are left out.

    Raises:
        DataError: if the file cannot be written.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(HEADER)
    for name, labels in timeline.rows.items():
        for number, (action, start, stop) in enumerate(zip(*find_segments(labels), strict=True)):
            if action < 0:
                continue
            probability = f"{timeline.scores[number]:.4f}" if name == MERGED else ""
            seconds = [_seconds(int(frame), timeline.frame_rate) for frame in (start, stop)]
            place = [number, start, stop - 1, *seconds]
            writer.writerow([name, *place, action, timeline.classes[action], probability])
    write_text(path, text.getvalue())


def _seconds(frame: int, frame_rate: float) -> str:
    return f"{frame / frame_rate:.3f}" if frame_rate else ""
