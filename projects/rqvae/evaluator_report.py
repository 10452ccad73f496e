"""The tables of an evaluation of documents as codes, as Markdown and csv."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from tabulate import tabulate

from .metrics import CodebookUsage, is_limited_by_data

__all__ = ["Report", "format_report", "level_csv", "window_csv"]

_USAGE = (
    ("utilization", "utilization"),
    ("expected", "1-(1-1/K)^n"),
    ("perplexity", "perplexity"),
    ("perplexity_ratio", "perplexity / K"),
    ("dead_codes", "dead codes"),
    ("top_share", "top share"),
)
_MAX_ROWS = 50  # of a table in the report; the csv file has all
_INTERVALS = ("_low", "_high")


@dataclass(frozen=True)
class Report:
    """What there is to tell of a split.

    Attributes:
        dataset_name: of the split.
        codebook_size: K.
        metrics: by group, as the evaluator gives them.
        usage: of every level.
        by_position: of every level, by window index.
        position_mse: mean squared error of the frames nearest to each window.
    """

    dataset_name: str
    codebook_size: int
    metrics: Mapping[str, Mapping[str, float]]
    usage: CodebookUsage
    by_position: Sequence[CodebookUsage]
    position_mse: NDArray[np.float64]


def format_report(report: Report, *, by_window: bool = True) -> str:
    """Gives all tables as Markdown.

    Args:
        report: what to tell.
        by_window: with the table by window index, which is long.
    """
    parts = [
        _rate_section(report),
        _level_section(report),
        *([_window_section(report)] if by_window else []),
        *(
            _retrieval_section(title, report.metrics[task])
            for task, title in _RETRIEVAL.items()
            if task in report.metrics
        ),
    ]
    return "\n\n".join(parts) + "\n"


def level_csv(report: Report) -> str:
    """Gives the use of every codebook, and the SNR up to it, one level in a row."""
    snr = _snr_by_level(report)
    rows = [
        [level + 1, *_usage_cells(report.usage, level), snr[level]]
        for level in range(len(report.usage.num_vectors))
    ]
    return _csv(["level", "num_vectors", *(name for name, _ in _USAGE), "SNR"], rows)


def window_csv(report: Report) -> str:
    """Gives the use of every codebook and the error by window index, all levels of a window."""
    rows = [
        [window, level + 1, *_usage_cells(usage, window), report.position_mse[window]]
        for window in range(len(report.position_mse))
        for level, usage in enumerate(report.by_position)
    ]
    return _csv(["window", "level", "num_vectors", *(name for name, _ in _USAGE), "MSE"], rows)


_RETRIEVAL = {
    "retrieval": "Retrieval by topic, every document against all others (95 % interval)",
    "halves": "Retrieval of the other half of a document, without labels (95 % interval)",
}

_RATES = {
    "codes_per_10s": "codes per 10 s",
    "bits_per_second": "bit rate [bit/s]",
    "frame_compression": "frame compression T / N",
    "bit_compression": "bit compression 32 T D / (N Q log2 K)",
}


def _rate_section(report: Report) -> str:
    reconstruction, rate = report.metrics["reconstruction"], report.metrics["rate"]
    rows = [
        ["SNR [dB]", _number(reconstruction["SNR"])],
        ["SNR without quantisation [dB]", _number(reconstruction["SNR_unquantized"])],
        ["loss due to quantisation [dB]", _number(reconstruction["quantization_loss"])],
        ["SNR of the latents [dB]", _number(reconstruction["SNR_latent"])],
        ["mean squared error", _number(reconstruction["MSE"])],
        *([title, _number(rate[name])] for name, title in _RATES.items()),
    ]
    num_documents = int(report.metrics["codes"]["num_documents"])
    title = f"Reconstruction and rates ({num_documents} documents)"
    return _section(title, ["figure", "value"], rows)


def _level_section(report: Report) -> str:
    snr = _snr_by_level(report)
    rows = [
        [str(level + 1), *map(_number, _usage_cells(report.usage, level)), _number(snr[level])]
        for level in range(len(report.usage.num_vectors))
    ]
    header = ["level", "vectors", *(title for _, title in _USAGE), "SNR up to it [dB]"]
    text = _section(f"Codebooks (K = {report.codebook_size})", header, rows)
    num_vectors = int(report.usage.num_vectors.min())
    if is_limited_by_data(num_vectors, report.codebook_size):
        text += (
            f"\n\nUtilization and perplexity are limited by the data: {num_vectors} vectors are "
            f"fewer than 10 K = {10 * report.codebook_size}."
        )
    return text


def _window_section(report: Report) -> str:
    """Shows means over levels; beginning and end of long documents."""
    num = len(report.position_mse)
    shown = list(range(num))
    if num > _MAX_ROWS:
        shown = [*range(_MAX_ROWS // 2), *range(num - _MAX_ROWS // 2, num)]
    columns = ("num_vectors", "utilization", "expected", "perplexity", "perplexity_ratio")
    means = [
        np.mean([getattr(one, name) for one in report.by_position], axis=0) for name in columns
    ]
    rows = [
        [
            str(window),
            *(_number(mean[window]) for mean in means),
            _number(report.position_mse[window]),
        ]
        for window in shown
    ]
    header = ["window", "vectors", *(title for _, title in _USAGE[:4]), "squared error"]
    text = _section("Windows by their index (mean over levels)", header, rows)
    if num and is_limited_by_data(float(means[0].max()), report.codebook_size):
        text += (
            "\n\nAt every index utilization and perplexity are limited by the data: there are at "
            f"most {means[0].max():.0f} vectors, fewer than 10 K = {10 * report.codebook_size}."
        )
    if len(shown) < num:
        text += f"\n\nThe {num - len(shown)} windows between are in per_window.csv."
    return text


def _retrieval_section(title: str, metrics: Mapping[str, float]) -> str:
    methods = list(dict.fromkeys(name.rpartition("/")[0] for name in metrics if "/" in name))
    names = list(
        dict.fromkeys(
            name.rpartition("/")[2]
            for name in metrics
            if "/" in name and not name.endswith(_INTERVALS)
        )
    )
    rows = [
        [method, *(_with_interval(metrics, f"{method}/{name}") for name in names)]
        for method in methods
    ]
    queries, skipped = int(metrics["num_queries"]), int(metrics["num_skipped"])
    text = _section(title, ["method", *names], rows) if rows else f"## {title}"
    return f"{text}\n\n{queries} queries; {skipped} left out, which had nothing to find."


def _with_interval(metrics: Mapping[str, float], name: str) -> str:
    value = f"{metrics[name]:.3f}"
    low, high = (metrics.get(name + end, math.nan) for end in _INTERVALS)
    return value if math.isnan(low) else f"{value} ({low:.3f} to {high:.3f})"


def _snr_by_level(report: Report) -> list[float]:
    reconstruction = report.metrics["reconstruction"]
    num_levels = len(report.usage.num_vectors)
    return [reconstruction.get(f"SNR_levels_{q}", math.nan) for q in range(1, num_levels + 1)]


def _usage_cells(usage: CodebookUsage, index: int) -> list[float]:
    return [
        float(usage.num_vectors[index]),
        *(float(getattr(usage, name)[index]) for name, _ in _USAGE),
    ]


def _section(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    align = ("left", *("right" for _ in header[1:]))
    table = tabulate(rows, header, tablefmt="pipe", disable_numparse=True, colalign=align)
    return f"## {title}\n\n{table}"


def _number(value: float) -> str:
    """Gives integers as such and anything else with three decimals."""
    if math.isnan(value):
        return "-"
    return str(int(value)) if value == int(value) and abs(value) >= 2 else f"{value:.3f}"


def _csv(header: Sequence[str], rows: Iterable[Sequence[float]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    for row in rows:
        writer.writerow("" if math.isnan(value) else f"{value:.6g}" for value in row)
    return text.getvalue()
