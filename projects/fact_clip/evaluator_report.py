"""The tables of an evaluation of action segmentation, as Markdown and csv."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from tabulate import tabulate

from .metrics import F1_NAMES
from .split_scores import ROWS, SplitScores
from .timeline import MERGED, TITLES, ZERO_SHOT

__all__ = ["Report", "class_csv", "format_report", "video_csv"]

_OTHER = {
    "with_background": "merged, with background",
    "without_background": "merged, without background",
}
_METRICS = ("Acc", "AccB", "mAcc", "Edit", *F1_NAMES)
_MAX_ROWS = 50  # of a table in the report; the csv files have all
_MAX_CONFUSIONS = 15


@dataclass(frozen=True)
class Report:
    """What there is to tell of a split.

    Attributes:
        dataset_name: of the split.
        classes: names by number.
        split: what was counted.
        metrics: by group, as the evaluator gives them.
    """

    dataset_name: str
    classes: Sequence[str]
    split: SplitScores
    metrics: Mapping[str, Mapping[str, float]]


def format_report(report: Report, *, brief: bool = False) -> str:
    """Gives the tables as Markdown.

    Args:
        report: what to tell.
        brief: without videos, classes and confusions.
    """
    parts = [_branch_section(report), _zero_shot_section(report)]
    if not brief:
        parts += [_class_section(report), _confusion_section(report), _video_section(report)]
    return "\n\n".join(part for part in parts if part) + "\n"


def class_csv(report: Report) -> str:
    """Gives the metrics by class, in percent, for the merged and the zero-shot labels."""
    header = [
        *("row", "class_id", "class", "is_background", "true_frames", "predicted_frames"),
        *("accuracy", "precision", "IoU", "true_segments", "predicted_segments", *F1_NAMES),
    ]
    rows = []
    for row in (MERGED, ZERO_SHOT):
        if row not in report.split.videos:
            continue
        scores = report.split.by_class(row)
        counts = scores.counts
        for number, name in enumerate(report.classes):
            rows.append(
                [
                    *(row, number, name, int(number in report.split.background)),
                    *(counts.true_frames[number], counts.predicted_frames[number]),
                    *(scores.accuracy[number], scores.precision[number], scores.iou[number]),
                    *(counts.true_segments[number], counts.predicted_segments[number]),
                    *scores.f1[:, number],
                ]
            )
    return _csv(header, rows)


def video_csv(report: Report) -> str:
    """Gives the metrics by video, in percent, for every row of the timeline."""
    names = ("Acc", "AccB", "Edit", *F1_NAMES)
    header = ["video", "row", "frames", "true_segments", "predicted_segments", *names]
    rows = []
    scored = {row: report.split.by_video(row) for row in ROWS if row in report.split.videos}
    for index, video in enumerate(report.split.names):
        for row, metrics in scored.items():
            counts = report.split.videos[row][index]
            rows.append(
                [
                    *(video, row, counts.true_frames.sum(), counts.true_segments.sum()),
                    *(counts.predicted_segments.sum(), *(metrics[index][n] for n in names)),
                ]
            )
    return _csv(header, rows)


def _branch_section(report: Report) -> str:
    rows = [
        [TITLES.get(group, _OTHER.get(group, "")), *(_number(metrics[n]) for n in _METRICS)]
        for group, metrics in report.metrics.items()
        if group in TITLES or group in _OTHER
    ]
    split = report.split
    title = f"{report.dataset_name}: {split.num_videos} videos"
    left_out = ", ".join(report.classes[number] for number in split.left_out)
    text = _section(title, ["labels", *_METRICS], rows)
    if left_out:
        text += (
            f"\n\nPercent. AccB counts all frames; all others leave out background ({left_out})."
        )
    return text


def _zero_shot_section(report: Report) -> str:
    """Shows what seen and unseen classes reach, if there are both."""
    metrics = report.metrics.get(ZERO_SHOT, {})
    if "H" not in metrics:
        return ""
    points = (
        ("gamma 0", "_gamma0", "0.000"),
        ("gamma of the model", "", f"{metrics['gamma']:.3f}"),
        ("best gamma for these videos (upper bound)", "_best", f"{metrics['gamma_best']:.3f}"),
        ("for comparison: labels of the closed set", "_closed", ""),
        ("for comparison: projection that was never trained", "_untrained", ""),
    )
    rows = [
        [name, gamma, *(_number(metrics[key + end]) for key in ("seen", "unseen", "H"))]
        for name, end, gamma in points
        if f"H{end}" in metrics
    ]
    header = ["labels by text", "gamma", "seen", "unseen", "H"]
    text = _section("Zero-shot: mean accuracy of classes", header, rows)
    text += (
        f"\n\nArea under the curve of seen and unseen (AUSUC): {metrics['AUSUC']:.1f}. With the "
        f"unseen classes as the only candidates: {_number(metrics['unseen_only'])}; by chance "
        f"{_number(metrics['chance_unseen_only'])}"
    )
    if "unseen_only_untrained" in metrics:
        text += f", without training {_number(metrics['unseen_only_untrained'])}"
    text += "."
    names = ("Edit", *F1_NAMES)
    groups = [
        [f"{group} classes", *(_number(metrics[f"{name}_{group}"]) for name in names)]
        for group in ("seen", "unseen")
    ]
    title = "Zero-shot: segments of a group, all other classes being background"
    return f"{text}\n\n{_section(title, ['group', *names], groups)}"


def _class_section(report: Report) -> str:
    """Shows the classes with the most frames, in the order of their numbers."""
    scores = report.split.by_class(MERGED)
    counts = scores.counts
    frames = counts.true_frames + counts.predicted_frames
    present = [number for number in range(len(report.classes)) if frames[number]]
    shown = sorted(sorted(present, key=lambda n: -counts.true_frames[n])[:_MAX_ROWS])
    rows = [
        [
            report.classes[number],
            str(counts.true_frames[number]),
            *(_number(one[number]) for one in (scores.accuracy, scores.precision, scores.iou)),
            *(str(one[number]) for one in (counts.true_segments, counts.predicted_segments)),
            *(_number(value) for value in scores.f1[:, number]),
        ]
        for number in shown
    ]
    header = ["class", "frames", "accuracy", "precision", "IoU", "segments", "predicted", *F1_NAMES]
    text = _section("Classes (merged)", header, rows)
    return text + _remark(len(present) - len(shown), "classes with fewer frames", "per_class.csv")


def _confusion_section(report: Report) -> str:
    pairs = report.split.confusions.most_common(_MAX_CONFUSIONS)
    if not pairs:
        return ""
    counts = report.split.by_class(MERGED).counts
    rows = [
        [
            _class_name(report, true),
            _class_name(report, predicted),
            str(times),
            _number(100 * times / counts.true_frames[true]),
        ]
        for (true, predicted), times in pairs
    ]
    header = ["true class", "predicted as", "frames", "% of the class"]
    return _section("Most frequent confusions (merged)", header, rows, num_names=2)


def _video_section(report: Report) -> str:
    """Shows the videos with the lowest edit score first."""
    metrics = report.split.by_video(MERGED)
    counts = report.split.videos[MERGED]
    order = np.argsort([one["Edit"] for one in metrics], kind="stable")  # undefined ones last
    names = ("Acc", "AccB", "Edit", *F1_NAMES)
    rows = [
        [
            report.split.names[index],
            str(counts[index].true_frames.sum()),
            str(counts[index].true_segments.sum()),
            str(counts[index].predicted_segments.sum()),
            *(_number(metrics[index][name]) for name in names),
        ]
        for index in order[:_MAX_ROWS]
    ]
    header = ["video", "frames", "segments", "predicted", *names]
    text = _section("Videos, lowest edit score first (merged)", header, rows)
    return text + _remark(len(order) - len(rows), "videos with higher scores", "per_video.csv")


def _class_name(report: Report, number: int) -> str:
    return report.classes[number] if 0 <= number < len(report.classes) else "(none)"


def _remark(left_out: int, what: str, file: str) -> str:
    return f"\n\n{left_out} {what} are in {file}." if left_out > 0 else ""


def _section(
    title: str, header: Sequence[str], rows: Sequence[Sequence[str]], *, num_names: int = 1
) -> str:
    align = ["left"] * num_names + ["right"] * (len(header) - num_names)
    table = tabulate(rows, header, tablefmt="pipe", disable_numparse=True, colalign=align)
    return f"## {title}\n\n{table}"


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.1f}"


def _csv(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    for row in rows:
        writer.writerow(_cell(value) for value in row)
    return text.getvalue()


def _cell(value: object) -> object:
    if not isinstance(value, float):
        return value
    return "" if math.isnan(value) else f"{value:.4f}"
