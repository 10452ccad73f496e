"""The curves of a run in one picture: losses, gradients, learning rate, metrics."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vidseg.video.figures import PANEL, TEXT, new_figure, save_figure, style_axes

from .scalars import is_auxiliary, is_loss

__all__ = ["headline_metrics", "save_curves"]

_MAX_COLUMNS = 3
_MAX_METRICS = 6  # panels
_MAX_LINES = 9  # that one panel has room for
_MAX_LOSSES = 8  # lines that one panel can tell apart
_WIDE_RANGE = (
    20.0  # ratio of the largest to the smallest value from which on a scale is logarithmic
)
_COLORS = ("#5ca6f0", "#f2b852", "#59cc73", "#eb5c5c", "#b98cf0", "#5ad1d1", "#f08cc0", "#b5bd57")
_TOTAL = "#ffffff"
_RATE = "learning rate"

Rows = Sequence[dict[str, Any]]


def save_curves(path: Path, training: Rows, evaluation: Rows, headline: Sequence[str] = ()) -> None:
    """Draws a run.

    Args:
        path: of the picture.
        training: dicts with ``iteration`` and scalars, in order.
        evaluation: the same with flat metrics.
        headline: metrics to draw, by their flat names or the ends of these; if none of them is
            there, the first ones.

    Raises:
        OSError: if the disk is full or not writable.
    """
    metrics = headline_metrics(evaluation, headline)
    panels = _panels(training, evaluation, metrics)
    names = [name for found in metrics.values() for name in found]
    single = [
        (name, points[0][1]) for name in names if len(points := _points(evaluation, name)) == 1
    ]
    num_panels = len(panels) + bool(single)
    if not num_panels:
        return
    columns = 2 if num_panels == 4 else min(num_panels, _MAX_COLUMNS)
    num_rows = -(-num_panels // columns)
    figure = new_figure(4.2 * columns, 2.7 * num_rows)
    grid = figure.subplots(num_rows, columns, squeeze=False)
    last = max(row["iteration"] for row in [*training, *evaluation])
    for index, axes in enumerate(grid.flat):
        if index < len(panels):
            _draw(axes, *panels[index], last)
        else:
            axes.set_axis_off()
        if index < len(panels) and index + columns >= len(panels):
            axes.set_xlabel("iteration", color=TEXT, fontsize=9)
    if single:  # a curve of one point shows nothing
        _tell(grid.flat[len(panels)], single)
    save_figure(figure, path)


def headline_metrics(rows: Rows, headline: Sequence[str]) -> dict[str, list[str]]:
    """Gives the flat names of each headline metric that the rows have, one for each data set.

    Without any headline metric, the first ones stand for themselves.
    """
    names = [name for name in dict.fromkeys(k for row in rows for k in row) if name != "iteration"]
    found: dict[str, list[str]] = {}
    taken: set[str] = set()
    for end in headline:
        own = [name for name in names if f"/{name}".endswith(f"/{end}") and name not in taken]
        taken.update(own)
        if own:
            found[end] = own
    found = found or {name: [name] for name in names}
    return dict(list(found.items())[:_MAX_METRICS])


Lines = list[tuple[str, str, list[tuple[int, float]]]]
"""Label, colour and points of each line of a panel."""


def _panels(
    training: Rows, evaluation: Rows, metrics: Mapping[str, Sequence[str]]
) -> list[tuple[str, Lines]]:
    """Gives the title and the lines of each panel that has any."""
    names = dict.fromkeys(name for row in training for name in row)
    losses = [name for name in names if is_loss(name) and not is_auxiliary(name)][:_MAX_LOSSES]
    lines = list(zip(losses, _COLORS, strict=False)) if len(losses) > 1 else []
    panels = [("loss", _lines(training, [*lines, ("total_loss", _TOTAL)]))]
    for title, name in (("gradient norm", "grad_norm"), (_RATE, "lr")):
        panels.append((title, _lines(training, [(name, _COLORS[0])])))
    for title, own in metrics.items():
        found = [name for name in own if len(_points(evaluation, name)) > 1]
        panels.append((title, _lines(evaluation, list(zip(found, _COLORS, strict=False)))))
    return [(title, lines) for title, lines in panels if any(points for *_, points in lines)]


def _lines(rows: Rows, names: Sequence[tuple[str, str]]) -> Lines:
    return [(name, color, _points(rows, name)) for name, color in names]


def _points(rows: Rows, name: str) -> list[tuple[int, float]]:
    return [
        (row["iteration"], float(row[name]))
        for row in rows
        if isinstance(row.get(name), int | float) and math.isfinite(row[name])
    ]


def _draw(axes: Any, title: str, lines: Lines, last: int) -> None:
    style_axes(axes, title, whole_rows=False).title.set_fontsize(10)
    drawn = [(label, color, points) for label, color, points in lines if points]
    for label, color, points in drawn:
        marker = "o" if len(points) < 20 else ""
        xs, ys = zip(*points, strict=True)
        axes.plot(xs, ys, color=color, linewidth=1.3, marker=marker, markersize=3, label=label)
    axes.set_xlim(-0.02 * last, 1.02 * max(last, 1))
    values = [value for *_, points in drawn for _, value in points]
    if title != _RATE and min(values) > 0 and max(values) > _WIDE_RANGE * min(values):
        axes.set_yscale("log")
    axes.grid(color=(1, 1, 1, 0.08))
    if len(drawn) > 1:
        axes.legend(fontsize=7, labelcolor=TEXT, facecolor=PANEL, edgecolor="none", framealpha=0.7)


def _tell(axes: Any, values: Sequence[tuple[str, float]]) -> None:
    """Writes the metrics of a run that was evaluated once."""
    style_axes(axes, "evaluation at the end").title.set_fontsize(10)
    lines = [f"{name}  {value:.4g}" for name, value in values[:_MAX_LINES]]
    if len(values) > _MAX_LINES:
        lines.append(f"and {len(values) - _MAX_LINES} more")
    text = "\n".join(lines)
    axes.text(0.02, 0.95, text, color=TEXT, fontsize=8, va="top", linespacing=1.5)
