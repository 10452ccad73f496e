"""Attention between the tokens of a clip as a graph: who looks at whom, and is it the same object.

Shapes: N tokens of the clip.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vidseg.video.figures import TEXT, new_figure, save_figure, style_axes, style_legend

from .clip_view import COLORS, NAMES, UNKNOWN, ClipView

if TYPE_CHECKING:
    from .prediction import TokenPrediction

__all__ = ["same_object_share", "save_token_graph"]

_PER_TOKEN = 3  # lines that leave a token
_MAX_LINES = 1500
_MAX_LANES = 30
_SAME, _OTHER = (0.45, 0.85, 0.55), (0.95, 0.35, 0.60)
_BOW = 0.10  # height of an arc per frame that it spans, in lanes
_SPREAD = 0.17  # between blobs of one frame in one lane, in lanes
_POINTS = 16  # of an arc


def save_token_graph(path: Path, sample: Mapping[str, Any], prediction: TokenPrediction) -> None:
    """Draws the tokens along time, a lane per object, joined where attention is strongest.

    Every token has up to three lines, to the other tokens that it attends to most, if they get
    more than an even share. Without known objects the lanes are those of the tracks.

    Args:
        path: of the picture.
        sample: of the evaluation, with its frames.
        prediction: of that clip, with its attention matrix.
    """
    view = ClipView.of(sample, prediction)
    matrix = prediction.matrix.detach().float().numpy()  # (N, N)
    groups = view.object_ids if view.has_truth else view.tracks
    lanes, names = _lanes(view, groups)
    shown, places = lanes >= 0, lanes + _SPREAD * _ranks(view.frame, lanes)
    figure = new_figure(13, 1.9 + 0.62 * len(names))
    axes = style_axes(figure.add_subplot(), _title(view, matrix, groups))
    _draw_lines(axes, view, matrix, groups, places)
    for kind, color in COLORS.items():
        chosen = shown & (view.truth == kind if view.has_truth else view.decision == kind)
        axes.scatter(view.frame[chosen], places[chosen], s=46, color=color, zorder=3)
        if chosen.any():
            axes.scatter([], [], s=46, color=color, label=_kind_name(kind, view.has_truth))
    wrong = shown & view.is_wrong
    if wrong.any():
        cross: dict[str, Any] = {"marker": "x", "s": 30, "color": "black", "zorder": 4}
        axes.scatter(view.frame[wrong], places[wrong], label="wrong decision", **cross)
    axes.set_yticks(range(len(names)), names)
    axes.set_xlim(-0.6, view.num_frames - 0.4)
    axes.set_ylim(max(len(names) - 0.4, places.max(initial=0) + 0.3), -0.95)
    axes.set_xlabel("frame")
    if len(view):
        style_legend(axes)
    else:
        middle: dict[str, Any] = {"ha": "center", "va": "center", "transform": axes.transAxes}
        axes.text(0.5, 0.5, "no blob was found in this clip", color=TEXT, **middle)
    save_figure(figure, path)


def same_object_share(matrix: np.ndarray, groups: np.ndarray) -> tuple[float, float]:
    """Gives which part of the attention between tokens stays within an object, and the even part.

    Only tokens of an object count, and not what a token gives itself.

    Args:
        matrix: attention, ``(N, N)``, a query in each row.
        groups: object of every token, ``(N,)``; negative for none.

    Returns:
        Both from 0 to 1; not a number if no token has an object.
    """
    among = matrix * (1 - np.eye(len(matrix)))
    same = (groups[:, None] == groups) & (groups[:, None] >= 0) & ~np.eye(len(groups), dtype=bool)
    rows = groups >= 0
    if not rows.any() or len(groups) < 2:
        return float("nan"), float("nan")
    given = among[rows].sum(1).clip(1e-12)
    return (
        float(((among * same)[rows].sum(1) / given).mean()),
        float(same[rows].sum(1).mean() / (len(groups) - 1)),
    )


def _title(view: ClipView, matrix: np.ndarray, groups: np.ndarray) -> str:
    what = "object" if view.has_truth else "track"
    title = f"{view.name}: where each blob looks, in the last layer (its {_PER_TOKEN} strongest)"
    share, even = same_object_share(matrix, groups)
    if np.isnan(share):
        return title
    part = f"{100 * share:.0f} % stays with the same {what}, {100 * even:.0f} % if it were even"
    return f"{title}; {part}"


def _lanes(view: ClipView, groups: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Gives the lane of every token, -1 for those left out, and the lanes' names."""
    numbers = [int(g) for g in np.unique(groups) if g >= 0]
    if view.has_truth:
        numbers.sort(key=lambda g: (-int(view.object_labels[g]), g))
        names = [f"object {g}\n{NAMES[int(view.object_labels[g])]}" for g in numbers]
    else:
        names = [f"track {g}" for g in numbers]
        if len(numbers) > _MAX_LANES:  # the longest stay
            counts = {g: int((groups == g).sum()) for g in numbers}
            numbers = sorted(sorted(numbers, key=lambda g: -counts[g])[:_MAX_LANES])
            names = [f"track {g}" for g in numbers]
    lanes = np.full(len(view), -1)
    for lane, group in enumerate(numbers):
        lanes[groups == group] = lane
    if view.has_truth and (groups < 0).any():
        lanes[groups < 0] = len(names)
        names.append("no object")
    return lanes, names


def _ranks(frame: np.ndarray, lanes: np.ndarray) -> np.ndarray:
    """Counts the tokens of each frame and lane from 0, ``(N,)``."""
    seen: Counter[tuple[int, int]] = Counter()
    ranks = np.zeros(len(frame))
    for token, place in enumerate(zip(frame.tolist(), lanes.tolist(), strict=True)):
        ranks[token] = seen[place]
        seen[place] += 1
    return ranks


def _draw_lines(
    axes: Any, view: ClipView, matrix: np.ndarray, groups: np.ndarray, places: np.ndarray
) -> None:
    """Draws arcs from every token to those that it attends to most, strong ones on top."""
    from matplotlib.collections import LineCollection

    among = matrix * (1 - np.eye(len(matrix)))
    order = np.argsort(-among, axis=1, kind="stable")[:, :_PER_TOKEN]
    pairs = [
        (float(among[i, j]), i, int(j))
        for i in np.flatnonzero(places >= 0)
        for j in order[i]
        if among[i, j] > 1 / len(among) and places[j] >= 0
    ]
    pairs = sorted(pairs)[-_MAX_LINES:]
    if not pairs:
        return
    peak = pairs[-1][0]
    place = np.linspace(0, 1, _POINTS)
    arcs, colors = [], []
    for weight, i, j in pairs:
        start, end = (np.array([view.frame[k], places[k]], dtype=float) for k in (i, j))
        arc = start + place[:, None] * (end - start)
        arc[:, 1] -= 4 * _BOW * min(abs(end[0] - start[0]), 7) * place * (1 - place)
        arcs.append(arc)
        is_same = groups[i] == groups[j] and groups[i] >= 0
        colors.append((*(_SAME if is_same else _OTHER), 0.15 + 0.85 * weight / peak))
    axes.add_collection(LineCollection(arcs, colors=colors, linewidths=1.3, zorder=2))
    what = "object" if view.has_truth else "track"
    axes.plot([], [], color=_SAME, label=f"to the same {what}")
    axes.plot([], [], color=_OTHER, label=f"to another {what}")


def _kind_name(kind: int, has_truth: bool) -> str:
    if kind == UNKNOWN:
        return "of no object"
    return f"truly {NAMES[kind]}" if has_truth else f"decided {NAMES[kind]}"
