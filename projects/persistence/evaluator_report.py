"""The tables of an evaluation as Markdown, and its files for other programs."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from tabulate import tabulate

from .attention_metrics import GROUPS, MIN_CLIPS, AttentionFigures
from .metrics import PERSISTENT, TRANSIENT

if TYPE_CHECKING:
    from .split_results import SplitResults

__all__ = ["Report", "attention_json", "format_report", "frame_csv", "frame_table"]

_METHODS = {
    "model": "model",
    "model, by object": "model, by object (mean logit)",
    "tracker": "Hungarian tracker",
    "leak_probe": "leak probe (single tokens)",
    "colour_tracker": "tracks of colours",
    "majority": "majority",
}
_ACCURACIES = ("balanced_accuracy", "accuracy", "accuracy_persistent", "accuracy_transient")
_QUERIES = {
    "accuracy": "objects found, right class [%]",
    "recall": "objects found [%]",
    "precision": "given objects that are there [%]",
    "presence_IoU": "IoU of the frames",
    "duration_MAE": "error of the duration, share of the clip",
    "count_error": "objects too many or too few, per clip",
}
_MAX_ROWS = 64  # frames of a table in the report; the csv file has all


@dataclass(frozen=True)
class Report:
    """What there is to tell of a split.

    Attributes:
        dataset_name: of the split.
        num_clips: in it.
        metrics: by group, as the evaluator gives them.
        decisions: figures of the model and of every baseline, in percent; empty without labels.
        attention: figures of every source.
        frames: figures by column, each with a value per frame.
    """

    dataset_name: str
    num_clips: int
    metrics: Mapping[str, Mapping[str, float]]
    decisions: Mapping[str, Mapping[str, float]]
    attention: Mapping[str, AttentionFigures]
    frames: Mapping[str, NDArray[np.float64]]


def format_report(report: Report, *, by_frame: bool = True) -> str:
    """Gives all tables as Markdown.

    Args:
        report: what to tell.
        by_frame: with the table by frame, which is long.
    """
    parts = []
    if report.decisions:
        parts += [_decision_section(report), _object_section(report)]
    if report.attention:
        parts.append(_attention_section(report))
    if "queries" in report.metrics:
        parts.append(_query_section(report.metrics["queries"]))
    if by_frame:
        parts.append(_frame_section(report))
    return "\n\n".join(parts) + "\n"


def attention_json(attention: Mapping[str, AttentionFigures]) -> str:
    """Gives the figures of every source with its curves; what is undefined becomes null."""
    content = {
        name: {
            "ratio": _or_none(one.ratio),
            "ratio_interval": [_or_none(end) for end in one.ratio_interval],
            "ratio_median": _or_none(one.ratio_median),
            "lift": _or_none(one.lift),
            "entropy": _or_none(one.entropy),
            "num_clips": one.num_clips,
            "per_frame": {g: one.curves[:, n].tolist() for n, g in enumerate(GROUPS)},
        }
        for name, one in attention.items()
    }
    return json.dumps(content, indent=2) + "\n"


def frame_table(
    split: SplitResults, attention: Mapping[str, AttentionFigures]
) -> dict[str, NDArray[np.float64]]:
    """Counts tokens and right decisions by frame, and puts the curves of attention beside them."""
    num_frames = int(split.num_frames.max(initial=0))
    table: dict[str, NDArray[np.float64]] = {}
    for group, label in GROUPS.items():
        frames = split.frame[split.labels == label]
        table[f"num_{group}"] = np.bincount(frames, minlength=num_frames).astype(np.float64)
    for group, label in (("persistent", PERSISTENT), ("transient", TRANSIENT)):
        right = (split.labels == label) & (split.decisions == label)
        counts = np.bincount(split.frame[right], minlength=num_frames)
        with np.errstate(invalid="ignore"):
            table[f"accuracy_{group}"] = 100 * counts / table[f"num_{group}"]
    for source, figures in attention.items():
        curves = np.full((num_frames, len(GROUPS)), np.nan)
        curves[: len(figures.curves)] = figures.curves
        for number, group in enumerate(GROUPS):
            table[f"attention_{source.replace(' ', '_')}_{group}"] = curves[:, number]
    return table


def frame_csv(report: Report) -> str:
    """Gives the table by frame; what is undefined is left empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["frame", *report.frames])
    for frame, row in enumerate(zip(*report.frames.values(), strict=True)):
        writer.writerow([frame, *("" if math.isnan(value) else f"{value:.6g}" for value in row)])
    return text.getvalue()


def _decision_section(report: Report) -> str:
    rows = [
        [
            _METHODS.get(name, name),
            *(_with_interval(figures, one) for one in _ACCURACIES),
            _number(figures.get("AUROC", math.nan)),
        ]
        for name, figures in report.decisions.items()
    ]
    header = ["method", "balanced", "accuracy", "persistent", "transient", "AUROC"]
    tokens = report.metrics["tokens"]
    title = (
        f"Decisions in percent ({int(tokens['num_tokens'])} blobs of {report.num_clips} clips, "
        "95 % interval over clips)"
    )
    margin = _with_interval(tokens, "margin_over_tracker")
    return f"{_section(title, header, rows)}\n\nAbove the tracker: {margin} points."


def _object_section(report: Report) -> str:
    detection = report.metrics["detection"]
    rows = [
        ["visible objects detected [%]", _number(detection["recall"])],
        ["detections of no object, per frame", _number(detection["false_positives_per_frame"], 4)],
        ["detections per clip", _number(detection["detections_per_clip"])],
    ]
    if "duration" in report.metrics:
        duration = report.metrics["duration"]
        rows += [
            ["error of the duration, share of the clip", _number(duration["MAE"], 4)],
            ["the same by the tracker", _number(duration["MAE_tracker"], 4)],
        ]
    return _section("Detection and duration", ["figure", "value"], rows)


def _attention_section(report: Report) -> str:
    rows = []
    for name, one in report.attention.items():
        low, high = one.ratio_interval
        figures = {"ratio": one.ratio, "ratio_low": low, "ratio_high": high}
        values = (one.ratio_median, one.lift, one.entropy)
        shown = [_with_interval(figures, "ratio"), *(_number(v, 3) for v in values)]
        rows.append([name, *shown, str(one.num_clips)])
    header = ["source", "ratio", "median ratio", "lift", "entropy", "clips"]
    text = _section("Attention to persistent by that to transient blobs", header, rows)
    if any(one.num_clips < MIN_CLIPS for one in report.attention.values()):
        text += f"\n\nUnder {MIN_CLIPS} clips with blobs of both classes there is no ratio."
    return text


def _query_section(queries: Mapping[str, float]) -> str:
    rows = [[title, _number(queries[name], 3)] for name, title in _QUERIES.items()]
    return _section("Object queries", ["figure", "value"], rows)


def _frame_section(report: Report) -> str:
    digits = [0 if name.startswith("num_") else 3 for name in report.frames]
    values = np.stack(list(report.frames.values()), axis=1)  # (T, columns)
    rows = [
        [str(frame), *(_number(value, n) for value, n in zip(row, digits, strict=True))]
        for frame, row in enumerate(values[:_MAX_ROWS].tolist())
    ]
    num_frames = len(values)
    titles = [name.removeprefix("attention_").replace("_", " ") for name in report.frames]
    text = _section("By frame (attention: mass, mean over clips)", ["frame", *titles], rows)
    if num_frames > _MAX_ROWS:
        text += f"\n\nThe other {num_frames - _MAX_ROWS} frames are in per_frame.csv."
    return text


def _with_interval(figures: Mapping[str, float], name: str) -> str:
    low, high = (figures.get(f"{name}_{end}", math.nan) for end in ("low", "high"))
    value = _number(figures[name])
    return value if math.isnan(low) else f"{value} ({low:.2f} to {high:.2f})"


def _section(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    align = ("left", *("right" for _ in header[1:]))
    table = tabulate(rows, header, tablefmt="pipe", disable_numparse=True, colalign=align)
    return f"## {title}\n\n{table}"


def _number(value: float, digits: int = 2) -> str:
    return "-" if math.isnan(value) else f"{value:.{digits}f}"


def _or_none(value: float) -> Any:
    return value if math.isfinite(value) else None
