"""Tables and files that an evaluation leaves behind."""

from __future__ import annotations

import csv
import io
import json
import math
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from vidseg.errors import DataError
from vidseg.files import write_atomically

from .ytvis import Metric, YTVISScores
from .ytvis_matching import IOU_THRESHOLDS

__all__ = [
    "class_table",
    "figures_table",
    "format_scores",
    "in_percent",
    "metric_lines",
    "percent_metrics",
    "summary_table",
    "write_figures",
    "write_metrics",
    "write_per_class",
    "write_results",
    "write_text",
    "write_zip",
]

CLASS_COLUMNS = 3  # pairs of name and AP beside each other
_TEXT_COLUMNS = ("class", "video")


def format_scores(scores: YTVISScores) -> str:
    """Gives the whole report: one line per metric, the summary, and AP per class."""
    parts = ["\n".join(metric_lines(scores)), summary_table(scores)]
    if len(scores.category_ids) > 1:
        parts.append(class_table(scores))
    return "\n\n".join(parts)


def metric_lines(scores: YTVISScores) -> list[str]:
    """Gives one line per metric, in the manner of COCO; fractions, nan where undefined."""
    return [_metric_line(scores, metric) for metric in scores.metrics]


def summary_table(scores: YTVISScores) -> str:
    """Gives the metrics in percent as a table of one row."""
    values = percent_metrics(scores, per_class=False)
    return _table(list(values), [[_percent(value) for value in values.values()]])


def class_table(scores: YTVISScores) -> str:
    """Gives AP in percent per class, several classes in a row."""
    cells = [(name, _percent(100 * value)) for name, value in scores.per_class().items()]
    num_columns = min(CLASS_COLUMNS, max(1, len(cells)))
    cells += [("", "")] * (-len(cells) % num_columns)
    rows = [
        [text for cell in cells[start : start + num_columns] for text in cell]
        for start in range(0, len(cells), num_columns)
    ]
    return _table(["class", "AP"] * num_columns, rows)


def percent_metrics(scores: YTVISScores, *, per_class: bool = True) -> dict[str, float]:
    """Gives all metrics in percent by name, AP of a class as ``AP-<class>``; nan if undefined."""
    values = {name: 100 * value for name, value in scores.summary().items()}
    if per_class:
        values |= {f"AP-{name}": 100 * value for name, value in scores.per_class().items()}
    return values


def in_percent(figures: Mapping[str, float], *, plain: Sequence[str] = ()) -> dict[str, float]:
    """Gives fractions in percent; those named in ``plain`` stay what they are, such as counts."""
    return {name: value if name in plain else 100 * value for name, value in figures.items()}


def figures_table(
    title: str,
    rows: Mapping[Any, Mapping[str, float]],
    columns: Sequence[str],
    *,
    plain: Sequence[str] = (),
) -> str:
    """Gives fractions in percent as a table with a row for each class or video.

    Args:
        title: ``class`` or ``video``: what the names of the rows are.
        rows: figures by name, by the name of the row.
        columns: names of the figures to show.
        plain: those that are no fractions.
    """

    def cell(name: str, value: float) -> str:
        if name in plain and float(value).is_integer():
            return str(int(value))
        return _percent(value if name in plain else 100 * value)

    cells = [[str(key), *(cell(name, row[name]) for name in columns)] for key, row in rows.items()]
    return _table([title, *columns], cells)


def write_metrics(path: Path, metrics: Mapping[str, float]) -> None:
    """Writes flat metrics as json; what is undefined or infinite becomes null.

    Raises:
        DataError: if the file cannot be written (also for the other writers below).
    """
    flat = {name: value if math.isfinite(value) else None for name, value in metrics.items()}
    _write(path, lambda file: file.write((json.dumps(flat, indent=2) + "\n").encode()))


def write_text(path: Path, text: str) -> None:
    """Writes a file of text."""
    _write(path, lambda file: file.write(text.encode()))


def write_per_class(path: Path, scores: YTVISScores) -> None:
    """Writes every metric of every class in percent as csv; what is undefined is left empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["category_id", "class", *(metric.name for metric in scores.metrics)])
    names = zip(scores.category_ids, scores.category_names, strict=True)
    for index, (category_id, name) in enumerate(names):
        values = [100 * scores.value(metric, category=index) for metric in scores.metrics]
        cells = ["" if math.isnan(value) else f"{value:.4f}" for value in values]
        writer.writerow([category_id, name, *cells])
    write_text(path, text.getvalue())


def write_figures(
    path: Path,
    title: str,
    rows: Mapping[Any, Mapping[str, float]],
    *,
    plain: Sequence[str] = (),
) -> None:
    """Writes fractions in percent as csv; what is undefined is left empty.

    Args:
        path: of the file.
        title: see ``figures_table``, as for the other arguments; all rows have the same figures.
        rows: see there.
        plain: see there.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([title, *next(iter(rows.values()), ())])
    for key, row in rows.items():
        values = in_percent(row, plain=plain).values()
        writer.writerow([key, *("" if math.isnan(value) else f"{value:.4f}" for value in values)])
    write_text(path, text.getvalue())


def write_results(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    """Writes predicted tracks as evaluation servers take them, one track per line."""

    def save(file: BinaryIO) -> None:
        file.write(b"[")
        for index, record in enumerate(records):
            # one dumps per record: neither the slow path of json.dump nor the whole text at once
            file.write(b",\n" * bool(index) + json.dumps(record, separators=(",", ":")).encode())
        file.write(b"]\n")

    _write(path, save)


def write_zip(path: Path, results: Path) -> None:
    """Writes a submission: a zip file with ``results.json`` at its root."""

    def save(file: BinaryIO) -> None:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.write(results, "results.json")

    _write(path, save)


def _metric_line(scores: YTVISScores, metric: Metric) -> str:
    kind = "Average Recall    (AR)" if metric.is_recall else "Average Precision (AP)"
    low, high = IOU_THRESHOLDS[0], IOU_THRESHOLDS[-1]
    iou = f"{low:.2f}:{high:.2f}" if metric.iou is None else f"{IOU_THRESHOLDS[metric.iou]:.2f}"
    selection = f"IoU={iou:<9} | area={metric.area:>6} | maxDets={metric.limit:>3}"
    if scores.has_occlusion:
        selection += f" | occlusion={metric.occlusion:>6}"
    return f"{kind} @[ {selection} ] = {scores.value(metric):.3f}"


def _percent(value: float) -> str:
    return f"{value:.2f}"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Lays out a table with bars that is also Markdown; numbers are right-aligned."""
    columns = list(zip(header, *rows, strict=True))
    widths = [max(map(len, column)) for column in columns]
    is_text = [name in _TEXT_COLUMNS for name in header]

    def line(cells: Sequence[str]) -> str:
        laid_out = (
            cell.ljust(width) if left else cell.rjust(width)
            for cell, width, left in zip(cells, widths, is_text, strict=True)
        )
        return f"| {' | '.join(laid_out)} |"

    rule = [
        ":" + "-" * (width + 1) if left else "-" * (width + 1) + ":"
        for width, left in zip(widths, is_text, strict=True)
    ]
    return "\n".join([line(header), f"|{'|'.join(rule)}|", *map(line, rows)])


def _write(path: Path, save: Callable[[BinaryIO], object]) -> None:
    """Writes a whole file, with its folder."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, save)
    except OSError as error:
        raise DataError(f"cannot write {path}: {error.strerror or error}") from error
