"""Pictures of codes: use of the codebooks, quality by level, documents, what a search finds.

Shapes: T frames, D features per frame, Q codebooks, K entries.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vidseg.video.figures import TEXT, new_figure, save_figure, style_axes, style_legend

from .metrics import codebook_usage

__all__ = ["Panel", "save_document", "save_retrieval", "save_snr", "save_usage"]

_MAX_COLUMNS = 4
_USED, _EVEN = (0.36, 0.65, 0.94), (0.95, 0.72, 0.32)
_RIGHT, _WRONG, _UNKNOWN = (0.35, 0.8, 0.45), (0.92, 0.36, 0.36), (0.6, 0.6, 0.62)
_FEATURES, _ERRORS = "viridis", "magma"
_SHOWN = (2.0, 98.0)  # percentiles between which the colours lie: one outlier would dim all


@dataclass(frozen=True)
class Panel:
    """A document in the picture of a search.

    Attributes:
        features: ``(T, D)``, standardised.
        title: above it.
        is_right: whether it has the topic of the query; None if topics are unknown.
    """

    features: np.ndarray
    title: str
    is_right: bool | None = None


def save_usage(counts: np.ndarray, path: Path) -> None:
    """Draws how often the entries of every codebook are used, most used first.

    Args:
        counts: ``(Q, K)`` vectors of each entry.
        path: of the picture.
    """
    usage = codebook_usage(counts)
    num_levels, size = counts.shape
    columns = min(num_levels, _MAX_COLUMNS)
    rows = -(-num_levels // columns)
    figure = new_figure(3.1 * columns + 0.4, 2.3 * rows + 0.5)
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    for level, axes in enumerate(grid.flat):
        if level >= num_levels:
            axes.set_visible(False)
            continue
        title = (
            f"level {level + 1}: {100 * usage.utilization[level]:.1f} % used,\n"
            f"perplexity {usage.perplexity[level]:.0f} of {size}"
        )
        style_axes(axes, title, whole_rows=False).title.set_fontsize(9)
        total = max(usage.num_vectors[level], 1)
        share = 100 * np.sort(counts[level])[::-1] / total
        axes.fill_between(np.arange(1, size + 1), share, step="mid", color=_USED)
        axes.axhline(100 / size, color=_EVEN, linestyle=":", linewidth=1.2)
        axes.set_xlim(0.5, size + 0.5)
        axes.set_ylim(bottom=0)
        if level % columns == 0:
            axes.set_ylabel("share of vectors, %")
        if level + columns >= num_levels:
            axes.set_xlabel("entry, by rank")
    title = (
        f"Use of the codebooks by {usage.num_vectors.max():.0f} vectors (dotted: all entries alike)"
    )
    figure.suptitle(title, color=TEXT, fontsize=11)
    save_figure(figure, path)


def save_snr(by_level: Sequence[float], unquantised: float, path: Path) -> None:
    """Draws the signal-to-noise ratio by the number of levels.

    Args:
        by_level: with the first 1, 2, ... levels, in dB.
        unquantised: without quantisation, in dB.
        path: of the picture.
    """
    levels = np.arange(1, len(by_level) + 1)
    figure = new_figure(7.2, 3.6)
    axes = style_axes(
        figure.add_subplot(), "Reconstruction by the number of levels", whole_rows=False
    )
    axes.plot(levels, by_level, marker="o", color=_USED, label="codes")
    for level, value in zip(levels, by_level, strict=True):
        where: dict[str, Any] = {"xytext": (5, -12), "textcoords": "offset points", "ha": "left"}
        axes.annotate(f"{value:.2f}", (level, value), color=TEXT, fontsize=8, **where)
    axes.axhline(unquantised, color=_EVEN, linestyle=":", label=f"not quantised: {unquantised:.2f}")
    axes.margins(x=0.1, y=0.2)
    axes.set_xlabel("levels that are decoded")
    axes.set_ylabel("SNR, dB")
    style_legend(axes)
    save_figure(figure, path)


def save_document(
    features: np.ndarray, rebuilt: np.ndarray, title: str, frame_rate: float, path: Path
) -> None:
    """Draws a document, what its codes give back, and the difference.

    Args:
        features: ``(T, D)``, standardised.
        rebuilt: ``(T, D)``, likewise.
        title: above the picture.
        frame_rate: in frames per second.
        path: of the picture.
    """
    figure = new_figure(9, 6.4)
    grid = figure.subplots(3, 1, sharex=True, sharey=True)
    low, high = _range([features])
    error = np.abs(features - rebuilt)
    rows = (
        (features, "features", _FEATURES, low, high),
        (rebuilt, "reconstruction, same colours", _FEATURES, low, high),
        (error, "absolute error", _ERRORS, 0.0, (high - low) / 2),
    )
    for axes, (picture, name, colours, least, most) in zip(grid, rows, strict=True):
        style_axes(axes, name)
        seconds = len(picture) / frame_rate
        image = _draw(axes, picture, least, most, colours, seconds)
        bar = figure.colorbar(image, ax=axes, pad=0.01, fraction=0.03)
        bar.ax.tick_params(colors=TEXT, labelsize=8)
        bar.set_label("standard deviations", color=TEXT, fontsize=8)
        axes.set_ylabel("dimension")
    grid[-1].set_xlabel("time, s")
    figure.suptitle(title, color=TEXT, fontsize=11)
    save_figure(figure, path)


def save_retrieval(rows: Sequence[Sequence[Panel]], title: str, path: Path) -> None:
    """Draws queries, each with its hits beside it; a frame tells whether the topic is right.

    Args:
        rows: a query and its hits each.
        title: above the picture.
        path: of the picture.
    """
    columns = max(map(len, rows))
    figure = new_figure(2.1 * columns + 0.4, 1.9 * len(rows) + 0.6)
    grid = figure.subplots(len(rows), columns, squeeze=False)
    low, high = _range([row[0].features for row in rows])
    for line, row in zip(grid, rows, strict=True):
        for number, axes in enumerate(line):
            if number >= len(row):
                axes.set_visible(False)
                continue
            panel = row[number]
            style_axes(axes, panel.title).title.set_fontsize(8)
            _draw(axes, panel.features, low, high, _FEATURES, len(panel.features))
            axes.set_xticks([])
            axes.set_yticks([])
            if number:
                colour = _UNKNOWN if panel.is_right is None else _frame_colour(panel.is_right)
                for spine in axes.spines.values():
                    spine.set_color(colour)
                    spine.set_linewidth(3)
    figure.suptitle(title, color=TEXT, fontsize=11)
    save_figure(figure, path)


def _frame_colour(is_right: bool) -> tuple[float, float, float]:
    return _RIGHT if is_right else _WRONG


def _draw(
    axes: Any, picture: np.ndarray, low: float, high: float, colours: str, width: float
) -> Any:
    extent = (0, width, 0, picture.shape[1])
    return axes.imshow(
        picture.T, origin="lower", aspect="auto", extent=extent, vmin=low, vmax=high, cmap=colours
    )


def _range(pictures: Sequence[np.ndarray]) -> tuple[float, float]:
    """Gives the values that the ends of the colours stand for."""
    values = np.concatenate([picture.ravel() for picture in pictures])
    low, high = np.percentile(values, _SHOWN).tolist()
    return (low, high) if high > low else (low - 1, low + 1)
