"""What a prediction looks like: the files that ``tools/demo.py`` writes."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vidseg.files import make_folder

from .metrics import find_segments
from .segments_csv import write_segments
from .timeline import MERGED, ZERO_SHOT, Timeline
from .timeline_drawing import save_timeline

if TYPE_CHECKING:
    from .prediction import ActionPrediction

__all__ = ["write_view"]


def write_view(
    folder: Path,
    sample: Mapping[str, Any],
    prediction: ActionPrediction,
    classes: Sequence[str],
    background: Collection[int] = (),
) -> str:
    """Writes ``timeline.png`` and ``segments.csv`` of a video.

    Args:
        folder: for the files; made if it is missing.
        sample: of the video.
        prediction: for it.
        classes: of the model, by number.
        background: numbers of the background classes.

    Returns:
        How many frames and segments there are, and of which classes.

    Raises:
        UserError: if the files cannot be written.
    """
    timeline = Timeline.of(sample, prediction, classes, background)
    make_folder(folder, "the folder")
    save_timeline(folder / "timeline.png", timeline)
    write_segments(folder / "segments.csv", timeline)
    rows = [name for name in (MERGED, ZERO_SHOT) if name in timeline.rows]
    frames = f"{timeline.num_frames} frame" + "s" * (timeline.num_frames != 1)
    return "; ".join((frames, *(_say(timeline, name) for name in rows)))


def _say(timeline: Timeline, row: str) -> str:
    labels, starts, _ = find_segments(timeline.rows[row])
    names = [timeline.name_of(label) for label in dict.fromkeys(labels.tolist()) if label >= 0]
    segments = f"{len(starts)} segment" + "s" * (len(starts) != 1)
    return f"{row.replace('_', '-')}: {segments} of {', '.join(names) or 'no class'}"
