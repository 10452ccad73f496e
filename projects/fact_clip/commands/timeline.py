"""``timeline``: pictures and tables of what happens when in videos."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vidseg.commands import (
    Failures,
    add_command,
    add_model_options,
    build_trained,
    load_model_config,
    use_run,
)

if TYPE_CHECKING:
    from vidseg.config import CfgNode
    from vidseg.data import Records

    from ..timeline import Timeline

__all__ = ["add_parser", "run"]

EXAMPLE = """examples:
  python -m vidseg.projects.fact_clip timeline --run output/fact_clip/synthetic
  python -m vidseg.projects.fact_clip timeline --config-file projects/fact_clip/synthetic.yaml \\
      --weights model.pth --input actions_synthetic_val --output output/timelines
  python -m vidseg.projects.fact_clip timeline --labels \\
      --config-file projects/fact_clip/synthetic.yaml --output output/labels
  python -m vidseg.projects.fact_clip timeline --output output/timelines \\
      --results output/fact_clip/synthetic/inference/actions_synthetic_test

Written: timelines/<video>.png and segments/<video>.csv. --run DIR stands for the config and the
weights of a finished run; its timelines go to DIR/timeline. --labels shows the truth of a data set,
for which no model is needed. --results DIR draws the segments that an evaluation left, without the
attention of tokens, which it does not keep.
"""

_MAPPER = "action_frames"


def add_parser(commands: Any) -> None:
    """Adds the command."""
    parser = add_command(commands, "timeline", "Draws what happens when in videos.", EXAMPLE)
    add_model_options(parser, required=False)
    parser.add_argument("--results", type=Path, metavar="DIR", help="folder of an evaluation")
    parser.add_argument("--input", metavar="SET", help="data set (the first of DATASETS.TEST)")
    parser.add_argument("--labels", action="store_true", help="show the labels of the set alone")
    parser.add_argument("--output", type=Path, metavar="DIR", help="for pictures and tables")
    parser.add_argument(
        "--video", action="append", default=[], metavar="ID", help="to draw (all); repeat"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Draws the videos one by one; one that cannot be read is told of and left out."""
    _complete(args)
    failures = Failures()
    if args.results:
        from ..segments_csv import read_results

        timelines = read_results(args.results, args.video)
    else:
        cfg = load_model_config(args)
        if args.input:
            cfg.DATASETS.TEST, cfg.DATASETS.DATASET_TYPE_TEST = [args.input], [_MAPPER]
        args.input = next(iter(cfg.DATASETS.TEST), "")
        timelines = _of_data_set(args, cfg, failures)
    from vidseg.files import make_folder

    from ..segments_csv import FOLDER, write_segments
    from ..timeline_drawing import save_timeline

    count = 0
    for timeline in timelines:
        if not count:
            make_folder(args.output, "--output: the folder")
        save_timeline(timeline.path_in(args.output / "timelines", "png"), timeline)
        write_segments(timeline.path_in(args.output / FOLDER, "csv"), timeline)
        count += 1
    print(f"{count} videos -> {args.output / 'timelines'}")
    return failures.exit_code


def _complete(args: argparse.Namespace) -> None:
    """Fills in what ``--run`` stands for, and checks that the sources make sense.

    Raises:
        UserError: if sources are missing, or contradict each other, or a run has no config.
    """
    from vidseg.errors import UserError

    sources = [args.run_dir, args.config_file, args.results]
    if sum(map(bool, sources)) != 1:
        raise UserError("timeline needs one of --run DIR, --config-file F and --results DIR")
    use_run(args)
    if args.run_dir:
        args.output = args.output or args.run_dir / "timeline"
    elif not args.output:
        raise UserError("timeline: --output DIR is needed without --run")
    if args.results and args.output.resolve() == args.results.resolve():
        raise UserError(
            "timeline: --output and --results are one folder, whose pictures show more than those "
            "that would replace them; name another"
        )


def _of_data_set(args: argparse.Namespace, cfg: CfgNode, failures: Failures) -> Iterator[Timeline]:
    """Reads the data set and gives the timelines of its videos as they are drawn.

    Raises:
        UserError: if there is no data set, or it has no such video, or the model has no weights.
    """
    from vidseg.data import DatasetCatalog
    from vidseg.errors import UserError, nearest

    if not args.input:
        raise UserError("--input: DATASETS.TEST of the config is empty; name a data set")
    records = DatasetCatalog.read(args.input)
    ids = [str(record["video_id"]) for record in records]
    for video in args.video:
        if video not in ids:
            close = ", ".join(nearest(video, ids) or ids[:3])
            raise UserError(f"--video: {args.input} has no video {video!r}; nearest: {close}")
    wanted = set(args.video or ids)
    if args.labels:
        return _of_labels(args.input, records, cfg, wanted, failures)
    model = build_trained(cfg, args.weights)
    return _predicted(args.input, records, cfg, model, wanted, failures)


def _of_labels(
    name: str, records: Records, cfg: CfgNode, wanted: set[str], failures: Failures
) -> Iterator[Timeline]:
    import numpy as np

    from vidseg.data import DatasetCatalog
    from vidseg.errors import DataError

    from ..background import background_classes
    from ..timeline import TRUTH, Timeline

    classes = DatasetCatalog.metadata(name).classes
    background = background_classes(cfg.bg_class, classes)
    for record in records:
        video = record["video_id"]
        if str(video) not in wanted:
            continue
        if "labels" not in record:
            failures(DataError(records.damaged.get(video, f"{name}: {video} has no labels")))
            continue
        yield Timeline(
            name=str(video),
            classes=classes,
            rows={TRUTH: np.maximum(np.asarray(record["labels"], dtype=np.int64), -1)},
            background=background,
            frame_rate=float(record.get("frame_rate") or 0.0),
        )


def _predicted(
    name: str, records: Records, cfg: CfgNode, model: Any, wanted: set[str], failures: Failures
) -> Iterator[Timeline]:
    import torch

    from vidseg.data import DatasetCatalog, build_test_loader
    from vidseg.errors import DataError, UserError

    from ..background import background_classes
    from ..class_names import class_names
    from ..prediction import ActionPrediction
    from ..timeline import Timeline

    classes = class_names(cfg, DatasetCatalog.metadata(name))
    background = background_classes(cfg.bg_class, classes)
    ids = [record["video_id"] for record in records]
    others = {video for video in ids if str(video) not in wanted}

    def tell(_: Any, reason: str) -> None:
        failures(DataError(reason))

    for samples in build_test_loader(cfg, name, finished=others, on_damaged=tell):
        for sample in samples:
            try:
                with torch.no_grad():
                    (prediction,) = model([sample])
            except DataError as error:
                failures(error)
                continue
            if not isinstance(prediction, ActionPrediction):
                raise UserError(
                    f"{cfg.MODEL.META_ARCHITECTURE} does not label actions; give a config of "
                    "fact_clip"
                )
            yield Timeline.of(sample, prediction, classes, background, eval_bg=cfg.eval_bg)
