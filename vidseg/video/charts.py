"""Charts over the frames of a video: what each frame counts for, and what became of the queries.

Every track has the colour that it has in the overlay.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vidseg.files import write_atomically

from .draw import track_color
from .figures import PANEL, TEXT, new_figure, save_figure, style_axes, style_legend

if TYPE_CHECKING:
    from vidseg.structures import Explanation, QueryRows, VideoInstances

__all__ = ["save_frame_weights", "save_query_rows"]

_WAITING = 0.35  # brightness of a track's colour while its object is not seen
_MAX_LINES = 40
_MAX_MARKED = 60  # frames up to which each has a dot of its own
_WEIGHTS_TITLE = "How much each frame counts for the class of a track (no line: not at all)"
_ROOM = 0.04, 0.05  # of width and height, that the number of a birth takes


def save_frame_weights(
    result: VideoInstances, explanation: Explanation, names: dict[int, str], path: Path
) -> list[Path]:
    """Writes how much each frame counts for the class of a track, as curves and as numbers.

    Args:
        result: whose frames are meant.
        explanation: its ``frame_weights`` are drawn, and must be there.
        names: label of every track.
        path: of the picture; the numbers get its name with ``.json``.

    Returns:
        Both files.
    """
    weights = explanation.frame_weights
    assert weights is not None
    figure = new_figure(9, 4)
    axes = style_axes(figure.add_subplot(), _WEIGHTS_TITLE, whole_rows=False)
    frames = result.frame_indices
    marker = "o" if len(frames) <= _MAX_MARKED else None
    for track, row in zip(explanation.track_ids, weights.tolist(), strict=True):
        axes.plot(
            frames,
            [100 * weight if weight else float("nan") for weight in row],
            color=_color(track),
            marker=marker,
            markersize=3,
            label=names.get(track, f"#{track}"),
        )
    even = 100 / len(frames)
    label = f"all {len(frames)} alike: {even:.3g} %"
    axes.axhline(even, color=TEXT, linestyle=":", linewidth=1, label=label)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("frame")
    axes.set_ylabel("weight, % (a track's sum is 100)")
    style_legend(axes)
    save_figure(figure, path)
    table = dict(zip(map(str, explanation.track_ids), weights.tolist(), strict=True))
    return [path, _save_json(path, {"frames": frames, "weights": table})]


def save_query_rows(
    result: VideoInstances, rows: Sequence[QueryRows], names: dict[int, str], path: Path
) -> list[Path]:
    """Writes which rows of a tracker's queries were tracks and which were births.

    Args:
        result: whose frames are meant.
        rows: one per frame.
        names: label of every track of the result; they come first where not all can be drawn.
        path: of the picture; the numbers get its name with ``.json``.

    Returns:
        Both files.
    """
    frames = result.frame_indices
    lives = _lives(rows)
    shown = sorted(lives, key=lambda track: (track not in names, -len(lives[track])))[:_MAX_LINES]
    shown.sort()
    num_anchors = max((row.num_anchors for row in rows), default=1)
    heights = [1.2 + 0.28 * len(shown), 1.2 + min(0.09 * num_anchors, 4.5)]
    figure = new_figure(10, sum(heights) + 0.8)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=heights)
    title = "Track queries: one line per track, carried from frame to frame"
    if len(lives) > len(shown):
        title += f" ({len(lives) - len(shown)} short ones are left out)"
    _draw_tracks(style_axes(upper, title), rows, shown, frames, names)
    title = "Anchor queries: each may become a new track; the coloured ones did (births)"
    _draw_anchors(style_axes(lower, title), rows, frames, num_anchors)
    save_figure(figure, path)
    records = [_record(frame, row) for frame, row in zip(frames, rows, strict=True)]
    return [path, _save_json(path, {"frames": records})]


def _draw_tracks(
    axes: Any,
    rows: Sequence[QueryRows],
    shown: Sequence[int],
    frames: Sequence[int],
    names: dict[int, str],
) -> None:
    lines = {track: line for line, track in enumerate(shown)}
    picture = np.tile(np.array(PANEL), (max(len(shown), 1), len(rows), 1))
    births: list[tuple[float, int]] = []
    ends: list[tuple[float, int]] = []
    for column, row in enumerate(rows):
        for number, track, visible in zip(row.rows, row.ids, row.visible, strict=True):
            if track not in lines:
                continue
            dimmed = np.array(_color(track)) * (1 if visible else _WAITING)
            picture[lines[track], column] = dimmed
            if number >= row.num_tracks:
                births.append((frames[column], lines[track]))
        ends += [(frames[column], lines[track]) for track in row.ended if track in lines]
    # Cells are drawn a little lower than a line, so that lines of one hue stay apart.
    edges = np.arange(len(shown))[:, None] + np.array([-0.36, 0.36])
    across = _edges(frames)
    for line in range(len(shown)):
        axes.pcolormesh(across, edges[line], picture[line : line + 1], rasterized=True)
    style: dict[str, Any] = {"linestyle": "none", "color": "white", "markersize": 7}
    axes.plot(*_columns(births), marker="o", fillstyle="none", label="birth", **style)
    axes.plot(*_columns(ends), marker="x", label="end (missed for too long)", **style)
    grey = np.array((0.75, 0.75, 0.75))
    square: dict[str, Any] = {"linestyle": "none", "marker": "s", "markersize": 9}
    axes.plot([], [], color=grey, label="seen", **square)
    axes.plot([], [], color=grey * _WAITING, label="not seen, waited for", **square)
    axes.set_yticks(range(len(shown)), [names.get(i, f"#{i} not in the result") for i in shown])
    for label, track in zip(axes.get_yticklabels(), shown, strict=True):
        label.set_color(_color(track))
    axes.set_ylim(max(len(shown), 1) - 0.4, -0.6)
    axes.tick_params(labelbottom=True)
    if not shown:
        middle: dict[str, Any] = {"ha": "center", "va": "center", "transform": axes.transAxes}
        axes.text(0.5, 0.5, "no anchor became a track", color=TEXT, **middle)
    style_legend(axes)


def _draw_anchors(
    axes: Any, rows: Sequence[QueryRows], frames: Sequence[int], num_anchors: int
) -> None:
    if len(frames) <= _MAX_MARKED:
        across, down = np.meshgrid(frames, np.arange(num_anchors))
        note = "anchor that found nothing new"
        axes.plot(across.ravel(), down.ravel(), ".", color="0.4", markersize=2, label=note)
    births = [
        (frame, number - row.num_tracks, track)
        for frame, row in zip(frames, rows, strict=True)
        for number, track in zip(row.rows, row.ids, strict=True)
        if number >= row.num_tracks
    ]
    at, anchors = [frame for frame, _, _ in births], [anchor for _, anchor, _ in births]
    axes.scatter(
        at, anchors, c=[_color(track) for _, _, track in births], marker="s", s=45, zorder=3
    )
    label = "birth of the track #"
    axes.plot([], [], "s", color=(0.75, 0.75, 0.75), markersize=7, label=label)
    _number(axes, births, width=frames[-1] - frames[0] + 1, height=num_anchors)
    edges = _edges(frames)
    axes.set_xlim(edges[0], edges[-1])
    axes.set_ylim(num_anchors - 0.2, -0.8)
    axes.set_xlabel("frame")
    axes.set_ylabel("anchor = number of\nthe frame query")
    style_legend(axes)


def _number(
    axes: Any, births: Sequence[tuple[float, int, int]], *, width: float, height: float
) -> None:
    """Writes the track's number beside each birth (frame, anchor, track) that has room for it."""
    taken: list[tuple[float, int]] = []
    for frame, anchor, track in births:
        near = (
            abs(frame - x) < _ROOM[0] * width and abs(anchor - y) < _ROOM[1] * height
            for x, y in taken
        )
        if any(near):
            continue
        taken.append((frame, anchor))
        where: dict[str, Any] = {"xytext": (7, 0), "textcoords": "offset points", "va": "center"}
        text = axes.annotate(f"#{track}", (frame, anchor), color=TEXT, fontsize=8, **where)
        text.set_in_layout(False)


def _lives(rows: Sequence[QueryRows]) -> dict[int, range]:
    """Gives from which to which frame every track was kept, by id."""
    lives: dict[int, range] = {}
    for column, row in enumerate(rows):
        for track in row.ids:
            first = lives[track].start if track in lives else column
            lives[track] = range(first, column + 1)
    return lives


def _record(frame: int, row: QueryRows) -> dict[str, Any]:
    """Gives one frame's rows for the file."""
    kept = list(zip(row.rows, row.ids, row.visible, strict=True))
    num_tracks = row.num_tracks
    return {
        "frame": frame,
        "num_tracks": num_tracks,
        "num_anchors": row.num_anchors,
        "tracks": [{"row": n, "id": i, "visible": v} for n, i, v in kept if n < num_tracks],
        "births": [
            {"row": n, "anchor": n - num_tracks, "id": i} for n, i, _ in kept if n >= num_tracks
        ],
        "ended": row.ended,
    }


def _edges(frames: Sequence[int]) -> np.ndarray:
    """Gives the borders of the frames' columns, one more than frames."""
    middle = np.asarray(frames, dtype=float)
    if len(middle) < 2:
        return np.array([middle[0] - 0.5, middle[0] + 0.5])
    inner = (middle[1:] + middle[:-1]) / 2
    first, last = 1.5 * middle[0] - 0.5 * middle[1], 1.5 * middle[-1] - 0.5 * middle[-2]
    return np.concatenate([[first], inner, [last]])


def _columns(points: Sequence[tuple[float, int]]) -> tuple[list[float], list[int]]:
    return [x for x, _ in points], [y for _, y in points]


def _color(track: int) -> tuple[float, float, float]:
    red, green, blue = track_color(track)
    return red / 255, green / 255, blue / 255


def _save_json(path: Path, content: Any) -> Path:
    path = path.with_suffix(".json")
    text = json.dumps(content).encode()
    write_atomically(path, lambda file: file.write(text))
    return path
