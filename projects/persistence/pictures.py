"""Pictures of a clip: what was found and decided, where attention went, the tracks over time.

Shapes: T frames, N tokens of the clip, H W pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np

from vidseg.video.figures import BACKGROUND, TEXT, new_figure, save_figure, style_axes, style_legend
from vidseg.video.strip import evenly

from .clip_view import COLORS, NAMES, PERSISTENT, TRANSIENT, UNKNOWN, ClipView
from .token_graph import save_token_graph
from .track_lanes import save_tracks

if TYPE_CHECKING:
    from .prediction import TokenPrediction

__all__ = [
    "Heat",
    "attention_source",
    "curves_by_class",
    "save_attention_sample",
    "save_clip_pictures",
]

_MAX_FRAMES, _MIN_COLUMNS, _MAX_COLUMNS = 16, 5, 8
_TILE = 1.6  # width of a frame in inches
_LEGEND = 2.6  # width of the explanations in inches
_CURVES = 2.0  # height of the curves in inches
_STYLES: dict[int, Any] = {
    PERSISTENT: "-",
    TRANSIENT: (0, (2.2, 1.2)),
    UNKNOWN: (0, (0.6, 1.2)),
}  # of the truth
_WRONG = (1.0, 0.25, 0.35)
_HEAT = "inferno"
_DIM = 0.45  # brightness of frames under the heat
_MAX_COVER = 0.85  # opacity of the heat at its peak


def save_clip_pictures(
    folder: Path, sample: Mapping[str, Any], prediction: TokenPrediction
) -> list[Path]:
    """Writes all pictures of a clip: ``attention_sample_``, ``token_graph_``, ``tracks_<id>.png``.

    Args:
        folder: for the files; it must exist.
        sample: of the evaluation, with its frames.
        prediction: of that clip.

    Returns:
        The files written.
    """
    writers = {
        "attention_sample": save_attention_sample,
        "token_graph": save_token_graph,
        "tracks": save_tracks,
    }
    files = []
    clip = quote(str(sample["video_id"]), safe=" ")  # some data sets have paths as ids
    for name, write in writers.items():
        path = folder / f"{name}_{clip}.png"
        write(path, sample, prediction)
        files.append(path)
    return files


def save_attention_sample(
    path: Path, sample: Mapping[str, Any], prediction: TokenPrediction
) -> None:
    """Draws frames with decisions, the attention as heat map, and its course over the frames.

    Of a long clip up to 16 frames are shown, evenly spaced; the curves cover all frames.

    Args:
        path: of the picture.
        sample: of the evaluation, with its frames.
        prediction: of that clip, with its attention.
    """
    view = ClipView.of(sample, prediction)
    source = attention_source(prediction)
    attention = prediction.attention[source].detach().float().numpy()  # (N,)
    shown = evenly(range(view.num_frames), _MAX_FRAMES)
    columns = min(max(len(shown), _MIN_COLUMNS), _MAX_COLUMNS)
    bands = [shown[start : start + columns] for start in range(0, len(shown), columns)]
    height, width = view.frames.shape[1:3]
    tall = _TILE * height / width
    figure = new_figure(
        _TILE * columns + _LEGEND + 0.7, (2 * tall + 0.4) * len(bands) + _CURVES + 0.8
    )
    grid = figure.add_gridspec(
        2 * len(bands) + 1,
        columns + 1,
        width_ratios=[*[_TILE] * columns, _LEGEND],
        height_ratios=[*[tall] * (2 * len(bands)), _CURVES],
    )
    heat = Heat(view, attention)
    for line, band in enumerate(bands):
        for column, number in enumerate(band):
            _draw_frame(figure.add_subplot(grid[2 * line, column]), view, number)
            heat.draw(figure.add_subplot(grid[2 * line + 1, column]), number)
    _explain_frames(figure.add_subplot(grid[0, -1]), view)
    heat.explain(figure.add_subplot(grid[1, -1]))
    _draw_curves(figure.add_subplot(grid[-1, :-1]), view, attention, source)
    figure.add_subplot(grid[-1, -1]).set_axis_off()
    figure.suptitle(view.summary(), color=TEXT, fontsize=12, x=0.01, ha="left")
    save_figure(figure, path)


def attention_source(prediction: TokenPrediction) -> str:
    """Gives the attention that pictures show: the summary query's, else that of the last layer."""
    if "summary" in prediction.attention:
        return "summary"
    return list(prediction.attention)[-1]


def _draw_frame(axes: Any, view: ClipView, number: int) -> None:
    """Draws a circle per blob: the decision as colour, the true class as line; crosses errors."""
    from matplotlib.patches import Circle

    _show(axes, view.frames[number], f"frame {number}")
    for token in np.flatnonzero(view.frame == number):
        x, y, radius = (float(values[token]) for values in (view.x, view.y, view.radius))
        color = COLORS[int(view.decision[token])]
        line = _STYLES[int(view.truth[token]) if view.has_truth else PERSISTENT]
        style: dict[str, Any] = {"linestyle": line, "linewidth": 1.4}
        axes.add_patch(Circle((x, y), radius + 1.5, fill=False, edgecolor=color, **style))
        if view.is_wrong[token]:
            axes.plot(x, y, marker="x", color=_WRONG, markersize=9, markeredgewidth=2)
        low = y + radius + 9 > view.frames.shape[1]  # no room below
        where: dict[str, Any] = {"xytext": (0, 1 if low else -1), "textcoords": "offset points"}
        axes.annotate(
            f"{100 * view.confidence[token]:.0f}",
            (x, y - radius - 1.5 if low else y + radius + 1.5),
            color=color,
            fontsize=6.5,
            ha="center",
            va="bottom" if low else "top",
            **where,
        ).set_in_layout(False)


def _explain_frames(axes: Any, view: ClipView) -> None:
    """Says what colours, lines, crosses and numbers of the frames mean."""
    from matplotlib.lines import Line2D

    axes.set_axis_off()
    lines = [
        Line2D([], [], color=COLORS[c], linewidth=3, label=f"decided: {NAMES[c]}") for c in (1, 0)
    ]
    if view.has_truth:
        for kind in (PERSISTENT, TRANSIENT, UNKNOWN):
            label = f"true class: {NAMES[kind]}" if kind != UNKNOWN else "of no object"
            lines.append(Line2D([], [], color=TEXT, linestyle=_STYLES[kind], label=label))
        cross: dict[str, Any] = {"linestyle": "none", "marker": "x", "markeredgewidth": 2}
        lines.append(Line2D([], [], color=_WRONG, label="wrong decision", **cross))
    number: dict[str, Any] = {"linestyle": "none", "marker": "$97$", "markersize": 10}
    lines.append(Line2D([], [], color=TEXT, label="confidence of detector, %", **number))
    axes.legend(
        handles=lines,
        loc="upper left",
        bbox_to_anchor=(0, 1),
        fontsize=8,
        labelcolor=TEXT,
        facecolor=BACKGROUND,
        edgecolor="none",
        borderaxespad=0,
    ).set_in_layout(False)


class Heat:
    """Heat maps of all frames of a clip on one scale: attention in units of the even share.

    Args:
        view: the clip.
        attention: of every token, ``(N,)``, sum 1.
    """

    def __init__(self, view: ClipView, attention: np.ndarray) -> None:
        from matplotlib.colors import Normalize

        self._view = view
        self._ratio = attention * len(attention)
        self._norm = Normalize(0, max(float(self._ratio.max(initial=0.0)), 1.0))

    def draw(self, axes: Any, number: int) -> None:
        """Draws a frame, dimmed and grey, under its heat."""
        from matplotlib import colormaps

        heat = self._norm(self.splats(number)).clip(0, 1)  # (H, W)
        grey = self._view.frames[number].mean(axis=2, keepdims=True) / 255 * _DIM
        cover = (heat[..., None] * 1.5).clip(0, _MAX_COVER)
        _show(axes, grey * (1 - cover) + colormaps[_HEAT](heat)[..., :3] * cover, "")

    def explain(self, axes: Any) -> None:
        """Draws the colour bar into axes of its own."""
        from matplotlib.cm import ScalarMappable

        axes.set_axis_off()
        bar = axes.get_figure().colorbar(
            ScalarMappable(self._norm, _HEAT),
            cax=axes.inset_axes((0.05, 0.08, 0.07, 0.84)),
        )
        bar.ax.tick_params(colors=TEXT, labelsize=8)
        label = "attention of a blob\n(1: its even share)"
        bar.set_label(label, color=TEXT, fontsize=8)

    def splats(self, number: int) -> np.ndarray:
        """Gives ``(H, W)``; overlaps have the larger value, so that none seems to have more."""
        view = self._view
        height, width = view.frames.shape[1:3]
        rows, columns = np.arange(height)[:, None], np.arange(width)
        heat = np.zeros((height, width))
        for token in np.flatnonzero(view.frame == number):
            squared = (rows - view.y[token]) ** 2 + (columns - view.x[token]) ** 2
            splat = self._ratio[token] * np.exp(-squared / (2 * view.radius[token] ** 2))
            heat = np.maximum(heat, splat)
        return heat


def curves_by_class(
    view: ClipView, attention: np.ndarray
) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """Gives for every class that occurs what its blobs get in each frame, and their even share.

    Classes are the true ones, or the decided ones where no truth is known.

    Args:
        view: the clip.
        attention: of every token, ``(N,)``, sum 1.

    Returns:
        Two arrays ``(T,)`` per class, in percent of the clip's attention.
    """
    classes = view.truth if view.has_truth else view.decision
    even = np.full(len(view), 100 / max(len(view), 1))
    return {
        kind: (
            np.bincount(view.frame[chosen], 100 * attention[chosen], minlength=view.num_frames),
            np.bincount(view.frame[chosen], even[chosen], minlength=view.num_frames),
        )
        for kind in (PERSISTENT, TRANSIENT, UNKNOWN)
        if (chosen := classes == kind).any()
    }


def _draw_curves(axes: Any, view: ClipView, attention: np.ndarray, source: str) -> None:
    """Draws what each class gets in every frame, beside its even share."""
    reader = "the summary query" if source == "summary" else f"all tokens in {source}"
    title = f"Attention of {reader}, by frame (dotted: if every blob got the same)"
    style_axes(axes, title, whole_rows=False)
    frames = np.arange(view.num_frames)
    for kind, (total, share) in curves_by_class(view, attention).items():
        name = f"{NAMES[kind]} objects" if view.has_truth else f"blobs decided {NAMES[kind]}"
        name = "blobs of no object" if kind == UNKNOWN else name
        label = f"{name}: {total.sum():.0f} %\n({share.sum():.0f} % of the blobs)"
        axes.plot(frames, total, color=COLORS[kind], marker="o", markersize=3, label=label)
        axes.plot(frames, share, color=COLORS[kind], linestyle=":", linewidth=1.2)
    axes.set_xlim(-0.5, view.num_frames - 0.5)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("frame")
    axes.set_ylabel("% of the clip's attention")
    if not len(view):
        middle: dict[str, Any] = {"ha": "center", "va": "center", "transform": axes.transAxes}
        axes.text(0.5, 0.5, "no blob was found in this clip", color=TEXT, **middle)
        return
    style_legend(axes)
    axes.get_legend().set_in_layout(False)


def _show(axes: Any, picture: np.ndarray, title: str) -> None:
    axes.imshow(picture, interpolation="nearest")
    axes.set_title(title, color=TEXT, fontsize=8, loc="left", pad=3)
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)
