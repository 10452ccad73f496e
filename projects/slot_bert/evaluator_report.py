"""The tables of an evaluation of slots as Markdown, and its file of clips."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tabulate import tabulate

from .split_scores import MODEL, Figure, SplitScores

__all__ = ["Report", "clip_csv", "format_report"]

_METHODS = {
    MODEL: "model",
    "kmeans_color": "k-means on colour",
    "kmeans_color_position": "k-means on colour + 0.3 xy",
    "ceiling": "true masks through the mask grid",
}
_SEGMENTS = (
    ("video/FG-ARI", "video FG-ARI"),
    ("video/mBO", "video mBO"),
    ("video/mIoU", "video mIoU"),
    ("image/FG-ARI", "image FG-ARI"),
    ("image/mBO", "image mBO"),
    ("image/mIoU", "image mIoU"),
)
_IDENTITY = (
    ("identity/consistency", "same slot in the next frame"),
    ("identity/majority_share", "frames in the main slot"),
    ("identity/switches", "switches per object"),
    ("identity/return", "same slot after being hidden"),
)
_SLOTS = (
    ("reconstruction/PSNR", "PSNR [dB], at the size that is drawn"),
    ("reconstruction/PSNR_full_size", "PSNR [dB], enlarged to the frame"),
    ("slots/used_slots", "slots that hold more than 1 % of a frame"),
    ("slots/largest_share", "share of a frame that the largest slot holds"),
    ("slots/max_mask", "mean of the largest mask at a position"),
    ("slots/mask_entropy", "entropy of the masks, 0 to 1"),
    ("slots/slot_cosine", "mean cosine between the slots of a frame"),
)
_DROPPED = (
    ("cosine_error", "1 - cosine"),
    ("norm_error", "smooth L1 of normalised slots"),
    ("object_cosine_error", "1 - cosine, slots of objects"),
    ("object_norm_error", "smooth L1, slots of objects"),
)
_COMPARED = ("video/FG-ARI", "video/mBO")


@dataclass(frozen=True)
class Report:
    """What there is to tell of a split.

    Attributes:
        dataset_name: of the split.
        split: the scores of every clip.
        figures: by method and metric.
        warnings: sentences about the slots.
    """

    dataset_name: str
    split: SplitScores
    figures: Mapping[str, Mapping[str, Figure]]
    warnings: Sequence[str] = ()


def format_report(report: Report) -> str:
    """Gives all tables as Markdown."""
    model = report.figures[MODEL]
    parts = []
    if "video/FG-ARI" in model:
        parts += [_segment_section(report), _identity_section(report)]
    else:
        parts.append(f"{report.dataset_name} has no truth: there is nothing to compare slots with.")
    parts.append(_slot_section(model))
    if any(name.startswith("dropped/") for name in model):
        parts.append(_dropped_section(model))
    parts += [f"Warning: {text}." for text in report.warnings]
    return "\n\n".join(parts) + "\n"


def clip_csv(report: Report) -> str:
    """Gives every metric of the model, and what others reach, one clip in a row.

    What is undefined is left empty.
    """
    split = report.split
    columns = {
        metric if method == MODEL else f"{method}/{metric}": split.per_clip(method, metric)
        for method in split.methods
        for metric in split.metrics_of(method)
        if method == MODEL or metric in _COMPARED
    }
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["video_id", *columns])
    for name, *values in zip(split.ids, *columns.values(), strict=True):
        writer.writerow([name, *("" if math.isnan(v) else f"{v:.6g}" for v in values)])
    return text.getvalue()


def _segment_section(report: Report) -> str:
    figures = report.figures
    rows = [
        [
            _METHODS[method],
            *(_cell(figures[method], metric, method == MODEL) for metric, _ in _SEGMENTS),
        ]
        for method in report.split.methods
    ]
    num_clips = len(report.split.ids)
    title = f"Segments of {report.dataset_name} ({num_clips} clips, 95 % interval over clips)"
    text = _section(title, ["method", *(name for _, name in _SEGMENTS)], rows)
    text += (
        "\n\nFractions. Clips and frames without two pixels of objects are left out of FG-ARI; "
        f"counted as 1 they would make it {_cell(figures[MODEL], 'video/FG-ARI_empty_is_1')} "
        f"(video) and {_cell(figures[MODEL], 'image/FG-ARI_empty_is_1')} (image)."
    )
    text += (
        f"\n\nBy other protocols: J&F {_cell(figures[MODEL], 'video/J&F', digits=1)} % (DAVIS, "
        f"unsupervised); mIoU {_cell(figures[MODEL], 'solv/mIoU')} and FG-ARI "
        f"{_cell(figures[MODEL], 'solv/FG-ARI')} (SOLV: slots without an object are background)."
    )
    margins = [
        f"- video FG-ARI above {_METHODS[method]}: {_cell(figures[MODEL], name, True)}"
        for method in report.split.methods[1:]
        if (name := f"margin/{method}/video/FG-ARI") in figures[MODEL] and method != "ceiling"
    ]
    return "\n\n".join([text, "\n".join(margins)]) if margins else text


def _identity_section(report: Report) -> str:
    rows = [
        [
            _METHODS[method],
            *(_cell(report.figures[method], name, method == MODEL) for name, _ in _IDENTITY),
        ]
        for method in report.split.methods
    ]
    text = _section("Identity over time", ["method", *(name for _, name in _IDENTITY)], rows)
    return f"{text}\n\nOne slot for everything keeps every identity: read this beside FG-ARI."


def _slot_section(model: Mapping[str, Figure]) -> str:
    rows = [[title, _cell(model, name, True)] for name, title in _SLOTS if name in model]
    return _section("Reconstruction and use of the slots", ["figure", "value"], rows)


def _dropped_section(model: Mapping[str, Figure]) -> str:
    rows = [
        [title, *(_cell(model, f"dropped/{name}{end}", digits=5) for end in ("", "_interpolated"))]
        for name, title in _DROPPED
        if f"dropped/{name}" in model
    ]
    parts = ["## Frames that were not looked at"]
    if rows:
        parts = [
            _section("Frames that were not looked at", ["error", "model", "interpolation"], rows),
            "Error of the model as a share of that of interpolation: "
            f"{_cell(model, 'dropped/relative_error', True)}.",
        ]
    others = [
        f"{title} {_cell(model, f'dropped/{name}', True)}"
        for name, title in (("FG-ARI", "image FG-ARI"), ("mBO", "image mBO"), ("PSNR", "PSNR [dB]"))
        if f"dropped/{name}" in model
    ]
    if others:
        parts.append(f"In these frames: {', '.join(others)}. K-means above looks at them.")
    return "\n\n".join(parts)


def _cell(
    figures: Mapping[str, Figure], name: str, with_interval: bool = False, *, digits: int = 3
) -> str:
    value, low, high = figures.get(name, Figure(math.nan))
    if math.isnan(value):
        return "-"
    text = f"{value:.{digits}f}"
    if not with_interval or math.isnan(low):
        return text
    return f"{text} ({low:.{digits}f} to {high:.{digits}f})"


def _section(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    align = ("left", *("right" for _ in header[1:]))
    table = tabulate(rows, header, tablefmt="pipe", disable_numparse=True, colalign=align)
    return f"## {title}\n\n{table}"
