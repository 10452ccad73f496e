#!/usr/bin/env python
"""Shows what a model finds: objects in videos and pictures, or what happens in features."""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

# A checkout works without being installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from vidseg.commands import Failures, load_model_config, positive, split_overrides
from vidseg.errors import UserError, run_command
from vidseg.files import make_folder, write_atomically

if TYPE_CHECKING:
    from vidseg.config import CfgNode
    from vidseg.predictor import VideoPredictor
    from vidseg.structures import VideoInstances
    from vidseg.video.io import VideoReader

MIN_OVERLAY_SIDE = 120  # smaller frames are enlarged: labels would cover them

EXAMPLE = """example:
  python tools/demo.py --config-file projects/dvis_daq/offline.yaml \\
      --input street.mp4 frames/ photo.jpg --output shown INPUT.MIN_SIZE_TEST 240

Written for each input, under DIR/<name>/: overlay.mp4 (overlay.png for a picture), strips.png
(a row per track), results.json (all predictions, YouTube-VIS form). A folder of pictures is one
video; a folder of videos or of such folders stands for all of them. Without --weights, those of
MODEL.WEIGHTS or of the finished run in OUTPUT_DIR are used. Exit code 1 if an input failed.

With --explain, DIR/<name>/explain/ shows for the best tracks where in the picture their queries
looked (attention_*.mp4, .png, .json), and for models that have them how much each frame counted
for the class (frame_weights.*) and which queries were tracks and which births (anchors.*).
An input that arrives while it is shown: camera:0, or - for an encoded video on the standard input.
It gets overlay.mp4 and windows.jsonl, a line per window as soon as the model knows its tracks;
--max-frames or Ctrl-C ends it.

A model of features takes files of them (.npy, .npz, .pt; frames x features), folders, an
index.json or data sets, and writes what its project shows, e.g. timeline.png and segments.csv:
  python tools/demo.py --config-file projects/fact_clip/synthetic.yaml \\
      --input features/cooking.npy --output shown
"""
# Options of the other kind of model; argparse gives their defaults.
_ONLY_VIDEO = ("boxes", "explain", "explain_tracks", "every", "max_frames")
_ONLY_FEATURES = ("classes", "frame_rate")


def parse(argv: list[str]) -> argparse.Namespace:
    """Reads the command line; nothing heavy is imported for it."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config-file", required=True, metavar="F", help="yaml file of the model")
    parser.add_argument(
        "--input",
        required=True,
        nargs="+",
        metavar="PATH",
        help="videos, folders, pictures, -, camera:0; or features",
    )
    parser.add_argument("--output", required=True, type=Path, metavar="DIR", help="for the results")
    parser.add_argument("--weights", default="", metavar="W", help="weights file")
    parser.add_argument(
        "--confidence", type=float, default=0.5, metavar="C", help="score to be shown (0.5)"
    )
    parser.add_argument("--boxes", action="store_true", help="draw bounding boxes as well")
    parser.add_argument(
        "--explain",
        action="store_true",
        help="show what the model read, too, in DIR/<name>/explain/",
    )
    parser.add_argument(
        "--explain-tracks", type=positive, metavar="N", help="the best N tracks (5)"
    )
    parser.add_argument(
        "--classes",
        default="",
        metavar="FILE",
        help="names to call things by, one a line, for models of features that match text",
    )
    parser.add_argument(
        "--frame-rate",
        type=_rate,
        metavar="R",
        help="frames of features per second, where the input does not say, for times in seconds",
    )
    parser.add_argument(
        "--every", type=positive, default=1, metavar="N", help="take each N-th frame"
    )
    parser.add_argument("--max-frames", type=positive, metavar="N", help="stop after N frames")
    parser.add_argument(
        "--plugin", action="append", default=[], metavar="P", help="name, module or path; repeat"
    )
    parser.add_argument("overrides", nargs="*", metavar="KEY VALUE", help="config overrides")
    return _with_overrides(parser, argv)


def main(argv: list[str]) -> int:
    """Shows every input; one that fails does not stop the others."""
    args = parse(argv)
    cfg = load_model_config(args)  # mistakes show at once
    from vidseg.sequence_predictor import takes_features

    reads_features = takes_features(cfg)
    _check_options(args, cfg.MODEL.META_ARCHITECTURE, reads_features=reads_features)
    make_folder(args.output, "--output: the folder")
    if reads_features:
        return _show_sequences(cfg, args)
    from vidseg.predictor import VideoPredictor

    predictor = VideoPredictor.from_config(cfg, args.weights or None)
    if args.explain:
        predictor.check_explains()
    from vidseg.video.images import list_videos, name_videos

    inputs = [path for given in args.input for path in list_videos(Path(given))]
    failed = 0
    for path, name in zip(inputs, name_videos(inputs), strict=True):
        try:
            print(_show(predictor, path, args.output / name, args), flush=True)
        except UserError as error:
            failed += 1
            print(f"{error.label}: {error}", file=sys.stderr, flush=True)
    if len(inputs) > 1:
        print(f"{len(inputs) - failed} of {len(inputs)} inputs shown in {args.output}")
    return 1 if failed else 0


def _rate(text: str) -> float:
    number = float(text)
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError("must be a number above 0")
    return number


def _check_options(args: argparse.Namespace, model: str, *, reads_features: bool) -> None:
    """Refuses what has no meaning for the model: options, and files of the other kind."""
    from vidseg.data.feature_files import SUFFIXES
    from vidseg.video.images import IMAGE_SUFFIXES, VIDEO_SUFFIXES

    usual = parse(["--config-file", "", "--input", "-", "--output", ""])
    for name in _ONLY_VIDEO if reads_features else _ONLY_FEATURES:
        if getattr(args, name) != getattr(usual, name):
            takes = "features" if reads_features else "videos and pictures"
            raise UserError(
                f"--{name.replace('_', '-')} means nothing to {model}, it takes {takes}"
            )
    suffixes = {Path(given): Path(given).suffix.lower() for given in args.input}
    for path, suffix in suffixes.items():
        if reads_features and suffix in IMAGE_SUFFIXES | VIDEO_SUFFIXES:
            raise UserError(
                f"{path} is a video or a picture, but {model} takes features: files of "
                f"{', '.join(SUFFIXES)}, which datasets/prepare_video_features.py makes of videos"
            )
        if not reads_features and suffix in SUFFIXES:
            raise UserError(f"{path} holds features, but {model} takes videos and pictures")


def _show_sequences(cfg: CfgNode, args: argparse.Namespace) -> int:
    """Shows every feature sequence; one that fails does not stop the others."""
    from vidseg.data.documents import read_documents
    from vidseg.errors import DataError
    from vidseg.sequence_predictor import SequencePredictor
    from vidseg.video.images import name_videos

    predictor = SequencePredictor.from_config(cfg, args.weights or None)
    predictor.check_writes()
    if args.classes:
        from vidseg.data.class_names import read_class_names

        predictor.set_vocabulary(read_class_names(args.classes))
    failures = Failures()
    records = []
    for given in args.input:
        try:
            found = read_documents(given)
        except UserError as error:
            failures(error)
            continue
        for record in found:
            if record["video_id"] in found.damaged:
                failures(DataError(found.damaged[record["video_id"]]))
            else:
                records.append(record)
    names = name_videos(Path(record["video_id"].replace("/", "_")) for record in records)
    for record, name in zip(records, names, strict=True):
        folder = args.output / name
        if args.frame_rate:
            record = {"frame_rate": args.frame_rate, **record}
        try:
            sample = predictor.read(record)
            said = predictor.write(folder, sample, predictor.predict_sample(sample))
            print(f"{record['video_id']}: {said} -> {folder}", flush=True)
        except UserError as error:
            failures(error)
    return failures.exit_code


def _with_overrides(parser: argparse.ArgumentParser, argv: list[str]) -> argparse.Namespace:
    """Parses; ``--input`` takes any number of paths, so trailing KEY VALUE pairs end up there."""
    args = parser.parse_intermixed_args(argv)
    args.input, trailing = split_overrides(args.input)
    args.overrides = [*trailing, *args.overrides]
    if not args.input:
        parser.error("--input: no path given")
    if args.explain_tracks and not args.explain:
        parser.error("--explain-tracks: only with --explain")
    return args


def _show(predictor: VideoPredictor, path: Path, folder: Path, args: argparse.Namespace) -> str:
    """Predicts one input and writes its files; gives the line that reports on it."""
    from vidseg.video.draw import save_overlay
    from vidseg.video.io import VideoReader
    from vidseg.video.strip import save_strips

    started = time.perf_counter()
    reader = VideoReader(path, every=args.every, max_frames=args.max_frames)
    make_folder(folder, "--output: the folder")
    explanation = None
    if reader.is_live:
        if args.explain:
            raise UserError(f"--explain reads its input twice; record {path} to a file first")
        return _show_live(predictor, reader, folder, args)
    if args.explain:
        result, explanation = predictor.explain(
            lambda: _with_progress(reader, path.name),
            min_score=args.confidence,
            max_tracks=args.explain_tracks or 5,
        )
    else:
        result = predictor.predict(_with_progress(reader, path.name))
    seconds = time.perf_counter() - started
    _write_results(predictor, result, path, folder)
    suffix = "png" if reader.is_picture else "mp4"
    shown = {"class_names": predictor.class_names, "min_score": args.confidence}
    overlay = save_overlay(
        path,
        result,
        folder / f"overlay.{suffix}",
        boxes=args.boxes,
        min_side=MIN_OVERLAY_SIDE,
        **shown,
    )
    strips = save_strips(path, result, folder / "strips.png", **shown)
    if strips is None:  # none of an earlier run either
        (folder / "strips.png").unlink(missing_ok=True)
    shown_in = str(overlay)
    if explanation is not None:
        from vidseg.video.explain import save_explanation

        names = predictor.class_names
        if save_explanation(path, result, explanation, folder / "explain", class_names=names):
            shown_in += f", {folder / 'explain'}"
    return f"{path}: {_summary(result, args.confidence, seconds)} -> {shown_in}"


def _show_live(
    predictor: VideoPredictor, reader: VideoReader, folder: Path, args: argparse.Namespace
) -> str:
    """Shows a camera or a pipe window by window; gives the line that reports on it."""
    from vidseg.video.draw import overlay_windows
    from vidseg.video.live import FrameSpool, StopOnInterrupt

    started, num_frames, ids = time.perf_counter(), 0, set()
    spool, overlay, file = FrameSpool(), folder / "overlay.mp4", folder / "windows.jsonl"
    with StopOnInterrupt() as interrupt, file.open("w") as lines:
        windows = predictor.stream(spool.passing(interrupt.until(reader.frames())))
        shown = {"class_names": predictor.class_names, "min_score": args.confidence}
        options = {"fps": reader.info.fps, "boxes": args.boxes, "min_side": MIN_OVERLAY_SIDE}
        for window in overlay_windows(windows, spool.pop, overlay, **options, **shown):
            records = predictor.results(window, str(reader.info.path))
            for record, track in zip(records, window.track_ids.tolist(), strict=True):
                record["track_id"] = track
            print(json.dumps({"frames": window.frame_indices, "tracks": records}), file=lines)
            lines.flush()
            num_frames += window.num_frames
            ids.update(window.track_ids[window.scores >= args.confidence].tolist())
    speed = num_frames / max(time.perf_counter() - started, 1e-6)
    return (
        f"{reader.info.path}: {_count(num_frames, 'frame')}, {_count(len(ids), 'track')} at"
        f" confidence {args.confidence:g}, {speed:.1f} frames/s -> {overlay}"
    )


def _with_progress(reader: VideoReader, name: str) -> Iterator[Any]:
    """Shows a progress bar where stderr is a terminal."""
    from tqdm import tqdm

    total = len(reader) if reader.info.num_frames is not None else None
    return iter(
        tqdm(reader.frames(), desc=name, total=total, unit="frame", leave=False, disable=None)
    )


def _write_results(
    predictor: VideoPredictor, result: VideoInstances, path: Path, folder: Path
) -> None:
    records = predictor.results(result, path.name)
    text = json.dumps(records).encode()
    write_atomically(folder / "results.json", lambda file: file.write(text))


def _summary(result: VideoInstances, confidence: float, seconds: float) -> str:
    ids = result.track_ids[result.scores >= confidence].unique().tolist()
    frames = _count(result.num_frames, "frame")
    speed = f"{result.num_frames / max(seconds, 1e-6):.1f} frames/s"
    if ids:
        return f"{frames}, {_count(len(ids), 'track')} at confidence {confidence:g}, {speed}"
    best = f"the best score is {float(result.scores.max()):.2f}" if len(result) else "no track"
    return f"{frames}, nothing found at confidence {confidence:g} ({best}), {speed}"


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}" + "s" * (number != 1)


if __name__ == "__main__":
    run_command(main)
