"""The tracks of a clip over time: where each was seen, what was decided, and what is true.

Shapes: T frames, N tokens of the clip.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vidseg.video.figures import TEXT, new_figure, save_figure, style_axes, style_legend

from .clip_view import COLORS, NAMES, PERSISTENT, TRANSIENT, UNKNOWN, ClipView

if TYPE_CHECKING:
    from .prediction import TokenPrediction

__all__ = ["save_tracks"]

_MAX_LANES = 40
_CELL = 0.56  # height of a cell, in lanes
_STRIPE = 0.14  # height of the truth below it
_FAINT = 0.3  # opacity of an undecided cell
_ALIEN = (1.0, 0.25, 0.35)


def save_tracks(path: Path, sample: Mapping[str, Any], prediction: TokenPrediction) -> None:
    """Draws a lane per track of the Hungarian tracker, with decisions above and truth below.

    Args:
        path: of the picture.
        sample: of the evaluation, with its frames.
        prediction: of that clip.
    """
    view = ClipView.of(sample, prediction)
    tracks = _ordered(view)
    left_out = len(tracks) - _MAX_LANES
    tracks = tracks[:_MAX_LANES]
    figure = new_figure(13, 1.7 + 0.42 * max(len(tracks), 2))
    title = f"{view.name}: tracks over time, and what each blob is decided to be"
    if left_out > 0:
        title += f" ({left_out} shorter tracks are left out)"
    axes = style_axes(figure.add_subplot(), title)
    for lane, track in enumerate(tracks):
        _draw_lane(axes, view, track, lane)
    axes.set_yticks(range(len(tracks)), [_name(view, track) for track in tracks], fontsize=8)
    axes.set_xlim(-0.7, view.num_frames - 0.3)
    axes.set_ylim(max(len(tracks), 1) - 0.3, -0.6)
    axes.set_xlabel("frame")
    _explain(axes, view)
    save_figure(figure, path)


def _ordered(view: ClipView) -> list[int]:
    """Gives the tracks: those of persistent objects first, then by length."""
    numbers = np.unique(view.tracks).tolist()
    lengths = {track: int((view.tracks == track).sum()) for track in numbers}
    return sorted(numbers, key=lambda track: (-_true_class(view, track), -lengths[track], track))


def _draw_lane(axes: Any, view: ClipView, track: int, lane: int) -> None:
    """Draws one track: a cell per blob, a stripe below where its object is really visible."""
    from matplotlib.patches import Rectangle

    main = _object(view, track)
    if main >= 0:
        color = COLORS[int(view.object_labels[main])]
        for number in np.flatnonzero(view.presence[main]).tolist():
            corner = (number - 0.5, lane + _CELL / 2 + 0.03)
            axes.add_patch(Rectangle(corner, 1, _STRIPE, color=color, linewidth=0))
    for token in np.flatnonzero(view.tracks == track):
        decision, probability = int(view.decision[token]), float(view.probability[token])
        sure = _FAINT + (1 - _FAINT) * abs(2 * probability - 1)
        number = int(view.frame[token])
        other = view.has_truth and view.object_ids[token] != main
        edge: dict[str, Any] = {"edgecolor": _ALIEN, "linewidth": 1.8} if other else {}
        corner = (number - 0.42, lane - _CELL / 2)
        cell = Rectangle(corner, 0.84, _CELL, facecolor=(*COLORS[decision], sure), **edge)
        axes.add_patch(cell)
        if view.is_wrong[token]:
            axes.plot(number, lane, marker="x", color="black", markersize=7)


def _name(view: ClipView, track: int) -> str:
    """Tells of a track what was decided and what its object is."""
    chosen = view.tracks == track
    mean = float(view.probability[chosen].mean())
    kind, score = (PERSISTENT, mean) if mean > 0.5 else (TRANSIENT, 1 - mean)
    seen = int(np.unique(view.frame[chosen]).size)
    text = f"track {track}, {seen} of {view.num_frames} frames: {NAMES[kind]} {score:.2f}"
    main = _object(view, track)
    if not view.has_truth:
        return text
    if main < 0:
        return f"{text}\ntruth: no object"
    return f"{text}\ntruth: {NAMES[int(view.object_labels[main])]} object {main}"


def _object(view: ClipView, track: int) -> int:
    """Gives the object that most blobs of a track are of, -1 for none."""
    ids, counts = np.unique(view.object_ids[view.tracks == track], return_counts=True)
    return int(ids[counts.argmax()])


def _true_class(view: ClipView, track: int) -> int:
    main = _object(view, track)
    return int(view.object_labels[main]) if main >= 0 and view.has_truth else UNKNOWN


def _explain(axes: Any, view: ClipView) -> None:
    """Says what colours, stripes and marks mean."""
    square: dict[str, Any] = {"linestyle": "none", "marker": "s", "markersize": 10}
    for kind in (PERSISTENT, TRANSIENT):
        axes.plot([], [], color=COLORS[kind], label=f"decided: {NAMES[kind]}", **square)
    pale = (*COLORS[PERSISTENT], _FAINT)
    axes.plot([], [], color=pale, label="the paler, the less sure", **square)
    if view.has_truth:
        label = "stripe: its object is visible,\nin the colour of the true class"
        axes.plot([], [], color=TEXT, linewidth=4, label=label)
        cross: dict[str, Any] = {"linestyle": "none", "marker": "x", "color": TEXT}
        axes.plot([], [], label="wrong decision", **cross)
        frame: dict[str, Any] = {"markerfacecolor": "none", "markeredgecolor": _ALIEN}
        label = "blob of another object\nthan the track's"
        axes.plot([], [], markeredgewidth=1.8, label=label, **square, **frame)
    style_legend(axes)
