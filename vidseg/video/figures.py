"""The common look of figures that are drawn with matplotlib."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vidseg.files import write_atomically

__all__ = [
    "BACKGROUND",
    "PANEL",
    "TEXT",
    "new_figure",
    "save_figure",
    "style_axes",
    "style_legend",
]

BACKGROUND = (24 / 255, 24 / 255, 28 / 255)
PANEL = (40 / 255, 40 / 255, 46 / 255)
TEXT = (0.85, 0.85, 0.87)


def new_figure(width: float, height: float) -> Any:
    """Makes an empty figure of a size in inches."""
    from matplotlib.figure import Figure

    # Not through pyplot: no window system, no global state.
    return Figure(figsize=(width, height), dpi=110, facecolor=BACKGROUND, layout="constrained")


def style_axes(axes: Any, title: str, *, whole_rows: bool = True) -> Any:
    """Gives axes the common colours, a title and round ticks.

    Args:
        axes: of a figure.
        title: above them.
        whole_rows: whether the vertical axis counts things, so that halves mean nothing.
    """
    from matplotlib.ticker import MaxNLocator

    axes.set_facecolor(PANEL)
    axes.set_title(title, color=TEXT, fontsize=11, loc="left")
    axes.tick_params(colors=TEXT, labelsize=9)
    axes.xaxis.label.set_color(TEXT)
    axes.yaxis.label.set_color(TEXT)
    for axis in (axes.xaxis, axes.yaxis):
        whole = {"integer": True} if axis is axes.xaxis or whole_rows else {}
        axis.set_major_locator(MaxNLocator(steps=[1, 2, 5, 10], min_n_ticks=1, **whole))
    for spine in axes.spines.values():
        spine.set_color((0.4, 0.4, 0.42))
    return axes


def style_legend(axes: Any) -> None:
    """Puts the legend beside the axes."""
    axes.legend(
        loc="upper left",
        bbox_to_anchor=(1.01, 1),
        fontsize=9,
        labelcolor=TEXT,
        facecolor=BACKGROUND,
        edgecolor="none",
    )


def save_figure(figure: Any, path: Path) -> None:
    """Writes a png file.

    Raises:
        OSError: if the disk is full or not writable.
    """
    write_atomically(path, lambda file: figure.savefig(file, format="png"))
