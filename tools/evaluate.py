#!/usr/bin/env python
"""Scores prediction files against annotations; no model is needed."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from math import inf, isnan
from pathlib import Path
from typing import Any

# A checkout works without being installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tools.evaluate_options import parse
from vidseg.errors import UserError, run_command


def main(argv: list[str]) -> int:
    """Scores, prints and writes."""
    args = parse(argv)
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING)
    return RUN[args.metric](args)


def score_tracking_files(args: argparse.Namespace) -> int:
    """Scores tracks by HOTA, CLEAR and Identity."""
    from vidseg.evaluation import html_report, report
    from vidseg.evaluation.tracking import HEADLINE, PLAIN, score_tracking

    scores = score_tracking(
        args.gt,
        args.results,
        class_agnostic=args.class_agnostic,
        min_score=args.min_score,
        strict=args.strict,
        backend=args.backend,
    )
    print(report.figures_table("class", scores.rows(), HEADLINE, plain=PLAIN))
    metrics = _named("tracking/{}", scores.percent_metrics())
    if args.per_class:
        for name, figures in scores.per_class.items():
            metrics |= _named(f"tracking/{{}}-{name}", report.in_percent(figures, plain=PLAIN))
    _finish(args, metrics, scores.per_video, HEADLINE, PLAIN)
    chosen = {"class_agnostic": args.class_agnostic, "min_score": args.min_score}
    _report(args, html_report.tracking_report, scores, **chosen)
    return 0


def score_vps_files(args: argparse.Namespace) -> int:
    """Scores segments by VPQ and STQ."""
    from vidseg.evaluation import html_report, report
    from vidseg.evaluation.panoptic import WINDOWS
    from vidseg.evaluation.panoptic_files import HEADLINE, score_panoptic

    masks = {"gt_masks": args.gt_masks, "result_masks": args.result_masks}
    scores = score_panoptic(args.gt, args.results, **masks, strict=args.strict)
    print(report.figures_table("class", {"mean over classes": scores.metrics}, HEADLINE))
    columns = ["VPQ", *(f"VPQ{length}" for length in WINDOWS)]
    rows = {"mean over classes": scores.metrics} | scores.per_class
    print("\n" + report.figures_table("class", rows, columns))
    metrics = _named("vps/{}", report.in_percent(scores.metrics))
    if args.per_class:
        for name, figures in scores.per_class.items():
            metrics |= _named(f"vps/{{}}-{name}", report.in_percent(figures))
    _finish(args, metrics, scores.per_video, HEADLINE)
    _report(args, html_report.vps_report, scores, **masks)
    return 0


def score_vss_files(args: argparse.Namespace) -> int:
    """Scores classes of pixels by mIoU and VC."""
    from vidseg.evaluation import html_report, report
    from vidseg.evaluation.semantic import HEADLINE, score_semantic

    scores = score_semantic(args.gt, args.results, num_classes=args.num_classes, strict=args.strict)
    print(report.figures_table("video", {"all videos": scores.metrics}, HEADLINE))
    known = {number: {"IoU": iou} for number, iou in enumerate(scores.iou.tolist()) if iou == iou}
    print("\n" + report.figures_table("class", known, ["IoU"]))
    metrics = _named("vss/{}", report.in_percent(scores.metrics))
    if args.per_class:
        metrics |= {
            f"vss/IoU-{number}": 100 * iou for number, iou in enumerate(scores.iou.tolist())
        }
    _finish(args, metrics, scores.per_video, HEADLINE)
    _report(args, html_report.vss_report, scores)
    return 0


def score_davis_files(args: argparse.Namespace) -> int:
    """Scores segments by J&F."""
    from vidseg.evaluation import html_report
    from vidseg.evaluation.segment_files import score_region_boundary
    from vidseg.evaluation.track_segments import score_tracks_as_segments

    files, strict = (args.gt, args.results), args.strict
    are_json = {name.endswith(".json") for name in files}
    if are_json == {True} and args.task == "unsupervised" and not args.report:
        scores = score_tracks_as_segments(*files, min_score=args.min_score, strict=strict)
        _finish_segments(args, "davis", *scores)
        return 0
    if True in are_json:
        raise UserError(
            "davis takes two json files, for the task unsupervised and without --report (that of "
            "tracking shows the same tracks), or two folders"
        )
    if args.min_score > -inf:
        raise UserError("--min-score is of use with json files alone: label maps have no scores")
    scores = score_region_boundary(*files, task=args.task, strict=strict)
    _finish_segments(args, "davis", *scores)
    _report(args, html_report.davis_report, *scores, task=args.task)
    return 0


def score_slot_files(args: argparse.Namespace) -> int:
    """Scores slots by FG-ARI, mBO and mIoU."""
    from vidseg.evaluation import html_report
    from vidseg.evaluation.segment_files import score_discovery

    scores = score_discovery(args.gt, args.results, merged=args.merged)
    _finish_segments(args, "discovery", *scores)
    _report(args, html_report.discovery_report, *scores)
    return 0


def _finish_segments(
    args: argparse.Namespace,
    task: str,
    metrics: Mapping[str, float],
    per_video: Mapping[str, Mapping[str, float]],
) -> None:
    from vidseg.evaluation import report
    from vidseg.evaluation.segment_files import PLAIN

    columns = list(metrics)
    print(report.figures_table("video", {"all videos": metrics}, columns, plain=PLAIN))
    named = _named(f"{task}/{{}}", report.in_percent(metrics, plain=PLAIN))
    _finish(args, named, per_video, columns, PLAIN)


def _named(pattern: str, figures: Mapping[str, float]) -> dict[str, float]:
    return {pattern.replace("{}", name): value for name, value in figures.items()}


def _finish(
    args: argparse.Namespace,
    metrics: Mapping[str, float],
    per_video: Mapping[Any, Mapping[str, float]],
    columns: Sequence[str],
    plain: Sequence[str] = (),
) -> None:
    """Prints the videos, those with the lowest first figure first, and writes the metrics."""
    from vidseg.evaluation import report

    if args.per_video:
        # a video without a figure is not a bad one: nan comes last
        worst = sorted(per_video, key=lambda video: (isnan(x := per_video[video][columns[0]]), x))
        rows = {video: per_video[video] for video in worst}
        print("\n" + report.figures_table("video", rows, columns, plain=plain))
    if args.output:
        report.write_metrics(Path(args.output), metrics)


def score_ytvis_files(args: argparse.Namespace) -> int:
    """Scores tracks by AP and AR."""
    from vidseg.evaluation import html_report, report, score_ytvis

    scores = score_ytvis(
        args.gt,
        args.results,
        class_agnostic=args.class_agnostic,
        occlusion=args.ovis or args.command == "ovis",
        strict=args.strict,
    )
    print(report.format_scores(scores))
    metrics = _named("segm/{}", report.percent_metrics(scores, per_class=args.per_class))
    per_video = scores.per_video() if args.per_video else {}
    _finish(args, metrics, per_video, ("AP", "AP50", "AP75"))
    if args.out:
        directory = Path(args.out)
        report.write_metrics(directory / "metrics.json", metrics)
        report.write_per_class(directory / "per_class.csv", scores)
        report.write_zip(directory / "results.zip", Path(args.results))
    _report(args, html_report.ytvis_report, scores, class_agnostic=args.class_agnostic)
    return 0


def _report(
    args: argparse.Namespace, make: Callable[..., dict[str, Any]], *scores: Any, **chosen: Any
) -> None:
    """Writes the page, if one is asked for, from what was scored and the scores."""
    from vidseg.evaluation.html_report import Limits, write_report

    if args.report:
        limits = Limits(videos=args.report_videos, frames=args.report_frames)
        files = {"images": args.images, "limits": limits}
        write_report(args.report, make(args.gt, args.results, *scores, **files, **chosen))


RUN: dict[str, Callable[[argparse.Namespace], int]] = {
    "ytvis": score_ytvis_files,
    "tracking": score_tracking_files,
    "vps": score_vps_files,
    "vss": score_vss_files,
    "davis": score_davis_files,
    "discovery": score_slot_files,
}


if __name__ == "__main__":
    run_command(main)
