"""Command line of ``evaluate.py``: metrics, their options and the forms of their files."""

from __future__ import annotations

import argparse
from math import inf
from typing import Any

from vidseg.commands import positive

__all__ = ["parse"]

DESCRIPTION = "Scores prediction files against annotations; no model is needed."
EXAMPLE = """example:
  python tools/evaluate.py ytvis --gt valid.json --results results.json --output metrics.json

Each metric has a --help, which tells the form of its files.
"""
YTVIS_EXAMPLE = """examples:
  python tools/evaluate.py ytvis --gt valid.json --results results.json
  python tools/evaluate.py ytvis --gt valid.json --results results.json --ovis --out eval

--out DIR receives metrics.json (percent), per_class.csv and results.zip for the servers. --report
writes a page that opens offline: tables, curves, the videos with the worst first, and a player.
"""
ALIASES = {"tracking": ["hota"]}
_REPORT_SIZES = {"videos in the player, the worst ones": 20, "frames of each": 36}
TRACKING_EXAMPLE = """example:
  python tools/evaluate.py tracking --gt valid.json --results results.json --min-score 0.3

Files are those of ytvis: annotations {"videos": [{id, width, height, length, file_names}],
"categories": [{id, name}], "annotations": [{id, video_id, category_id, areas, segmentations}]} and
results [{video_id, category_id, score, segmentations}], with an RLE or null for each frame.
Every predicted track counts, whatever its score: --min-score leaves out those that are not shown.
"""
VPS_EXAMPLE = """example:
  python tools/evaluate.py vps --gt panoptic_gt_val.json --results pred.json

The json files tell the segments: {"categories": [{id, name, isthing}], "annotations": [{video_id,
"annotations": [{file_name, "segments_info": [{id, category_id, iscrowd, area}]}]}]}; results need
no categories, iscrowd and area. Pixels stand in pictures VIDEO/FRAME.png with the id of a segment
as R + 256 G + 65536 B, 0 void; an id lasts for the video.
"""
VSS_EXAMPLE = """example:
  python tools/evaluate.py vss --gt VSPW/data --results predictions

Both are folders of videos, VIDEO/FRAME.png (or VIDEO/mask/FRAME.png, as in VSPW), grey levels or
with a palette. In annotations 0 and 255 are void and k is class k - 1; in predictions 0 is the
first class. Videos and frames that are not annotated are not looked at.
"""
DAVIS_EXAMPLE = """example:
  python tools/evaluate.py davis --gt Annotations_unsupervised/480p --results predictions

Both are folders of videos, VIDEO/FRAME.png, grey levels or with a palette: 0 background, k an
object in all frames, in annotations 255 void. Numbers need not agree: objects and predictions are
matched, as in the unsupervised task of DAVIS, unless --task says otherwise.

Files of ytvis do as well: annotations and results as json; where tracks overlap, the one with the
higher score is in front.
"""
DISCOVERY_EXAMPLE = """example:
  python tools/evaluate.py discovery --gt annotations --results slots

Both are folders of videos, VIDEO/FRAME.png, grey levels (8 or 16 bits) or with a palette. In
annotations 0 is background, 255 is left out (such as overlaps) and k is an object in all frames; a
prediction tells the slot of every pixel, from 0 on. Videos without an object are left out.
"""


def parse(argv: list[str]) -> argparse.Namespace:
    """Reads the command line; nothing heavy is imported for it.

    Returns:
        The options, and as ``metric`` the command by its own name, ``ytvis`` for ``ovis``.
    """
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=DESCRIPTION, epilog=EXAMPLE, formatter_class=raw)
    commands = parser.add_subparsers(dest="command", required=True, metavar="METRIC")
    metrics = "YouTube-VIS AP and AR, as the official evaluator does, or OVIS occlusion levels"
    ytvis = _add_metric(commands, "ytvis", metrics, YTVIS_EXAMPLE)
    _add_tracks(ytvis)
    ytvis.add_argument("--out", metavar="DIR", help="write all files of a report there")
    ytvis.add_argument("--ovis", action="store_true", help="add the occlusion levels of OVIS")
    ytvis.add_argument(
        "--strict",
        action="store_true",
        help="repeat the official evaluator's fault with annotation id 0",
    )
    commands.add_parser(
        "ovis",
        parents=[ytvis],
        conflict_handler="resolve",  # both have a --help
        help="ytvis with --ovis",
        description="Scores tracks by AP and AR, and by those of each occlusion level.",
        epilog=YTVIS_EXAMPLE.replace("ytvis", "ovis").replace(" --ovis", ""),
        formatter_class=raw,
    )
    _add_tracking(commands)
    _add_vps(commands)
    _add_vss(commands)
    _add_davis(commands)
    metrics = "object discovery (FG-ARI, mBO, mIoU) of slots"
    discovery = _add_metric(commands, "discovery", metrics, DISCOVERY_EXAMPLE)
    _add_folders(discovery)
    discovery.add_argument(
        "--merged", action="store_true", help="score by the protocol of SOLV: not comparable"
    )
    args = parser.parse_args(argv)
    if args.images and not args.report:
        parser.error("--images is of use with --report alone: frames for the player of the page")
    if args.metric == "davis" and args.strict and args.task == "semi-supervised":
        parser.error("--strict is of use with --task unsupervised alone")
    for what, default in _REPORT_SIZES.items():
        name = what.split()[0]
        if getattr(args, f"report_{name}") is None:
            setattr(args, f"report_{name}", default)
        elif not args.report:
            parser.error(f"--report-{name} is of use with --report alone")
    return args


def _add_metric(commands: Any, name: str, metrics: str, epilog: str) -> argparse.ArgumentParser:
    """Adds a command with the options that all of them share but ``--gt`` and ``--results``."""
    raw = argparse.RawDescriptionHelpFormatter
    description = f"Scores files by {metrics}."
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        aliases=ALIASES.get(name, []),
        help=metrics,
        description=description,
        epilog=epilog,
        formatter_class=raw,
    )
    parser.add_argument("--output", metavar="FILE", help="write the metrics there (json, percent)")
    parser.add_argument(
        "--per-video", action="store_true", help="print a table of the videos, the worst first"
    )
    _add_report(parser)
    parser.set_defaults(metric=name)
    return parser


def _add_report(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("report")
    group.add_argument("--report", metavar="FILE", help="write a page that opens offline (html)")
    group.add_argument(
        "--images", metavar="DIR", help="frames for its player, below this folder (default: none)"
    )
    for what, default in _REPORT_SIZES.items():
        group.add_argument(
            f"--report-{what.split()[0]}",
            type=positive,
            metavar="N",
            help=f"{what} (default: {default})",
        )


def _add_tracks(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--gt", required=True, metavar="FILE", help="annotations, YouTube-VIS json")
    parser.add_argument("--results", required=True, metavar="FILE", help="predicted tracks, json")
    parser.add_argument("--class-agnostic", action="store_true", help="merge all classes into one")
    _add_per_class(parser)


def _add_per_class(parser: argparse.ArgumentParser) -> None:
    help_text = "put the figures of every class into the metrics"
    parser.add_argument("--per-class", action="store_true", help=help_text)


def _add_tracking(commands: Any) -> None:
    metrics = "HOTA, CLEAR (MOTA) and Identity (IDF1)"
    tracking = _add_metric(commands, "tracking", metrics, TRACKING_EXAMPLE)
    _add_tracks(tracking)
    tracking.add_argument(
        "--min-score", type=float, default=-inf, metavar="S", help="leave out tracks below"
    )
    tracking.add_argument(
        "--strict",
        action="store_true",
        help="count masks without pixels as detections, as TrackEval does",
    )
    tracking.add_argument(
        "--backend",
        choices=["vidseg", "trackeval"],
        default="vidseg",
        help="trackeval: let an installed TrackEval work the figures out (same figures, slower)",
    )


def _add_vps(commands: Any) -> None:
    metrics = "VPQ and STQ of video panoptic segmentation"
    vps = _add_metric(commands, "vps", metrics, VPS_EXAMPLE)
    vps.add_argument("--gt", required=True, metavar="FILE", help="annotated segments, json")
    vps.add_argument("--results", required=True, metavar="FILE", help="predicted segments, json")
    vps.add_argument(
        "--gt-masks", metavar="DIR", help="pictures of --gt (default: panomasksRGB beside it)"
    )
    vps.add_argument(
        "--result-masks", metavar="DIR", help="pictures of --results (default: pan_pred beside it)"
    )
    _add_per_class(vps)
    vps.add_argument(
        "--strict",
        action="store_true",
        help="leave the first annotated segment of a video out of STQ, as VIPSeg's script does",
    )


def _add_vss(commands: Any) -> None:
    metrics = "mIoU and VC of video semantic segmentation"
    vss = _add_metric(commands, "vss", metrics, VSS_EXAMPLE)
    _add_folders(vss)
    vss.add_argument(
        "--num-classes", type=int, default=124, metavar="N", help="classes (default: VSPW's 124)"
    )
    _add_per_class(vss)
    vss.add_argument(
        "--strict",
        action="store_true",
        help="take windows of 8 frames into VC16, as VSPW's script does",
    )


def _add_davis(commands: Any) -> None:
    metrics = "region and boundary (J&F, recall, decay) of DAVIS"
    davis = _add_metric(commands, "davis", metrics, DAVIS_EXAMPLE)
    for side, what in (("--gt", "annotated videos"), ("--results", "predictions")):
        davis.add_argument(
            side, required=True, metavar="PATH", help=f"folder of {what}, or YouTube-VIS json"
        )
    davis.add_argument(
        "--min-score", type=float, default=-inf, metavar="S", help="leave out tracks below (json)"
    )
    davis.add_argument(
        "--task",
        choices=["unsupervised", "semi-supervised"],
        default="unsupervised",
        help="match objects and predictions (default), or compare those of one number, without "
        "first and last frame",
    )
    davis.add_argument(
        "--strict",
        action="store_true",
        help="unsupervised: match by J and F, not by J alone, and count an object without a "
        "prediction as found where it is absent, as DAVIS's script does",
    )


def _add_folders(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--gt", required=True, metavar="DIR", help="folder of annotated videos")
    parser.add_argument("--results", required=True, metavar="DIR", help="folder of predictions")
