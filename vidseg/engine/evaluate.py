"""Evaluating a model on a data set, with progress, timing and a table."""

from __future__ import annotations

import contextlib
import json
import logging
import math
import sys
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sized
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from vidseg.collectives import barrier, gather, is_main, rank, world_size
from vidseg.data.catalog import DatasetCatalog
from vidseg.errors import DataError, UserError
from vidseg.evaluation import ResultStore
from vidseg.evaluation.base import Evaluator, inference_dir, run_on_main
from vidseg.files import read_json, write_atomically

from .fingerprint import take_fingerprint
from .precision import Precision
from .run_dir import describe_differences, locked
from .signals import Interrupted

if TYPE_CHECKING:
    from vidseg.config import CfgNode

__all__ = [
    "check_expected",
    "check_whole",
    "evaluate_model",
    "flatten",
    "forget_videos",
    "inference_dir",
    "is_incomplete",
]

logger = logging.getLogger(__name__)

_LOG_SECONDS = 30.0
_VIDEOS = "videos"  # folder of what is kept of each video until the evaluation is complete
_DAMAGED = "damaged.json"
_NUM_DAMAGED = "damaged/"  # flat name of a metric, before what is counted


def evaluate_model(
    cfg: CfgNode,
    model: nn.Module,
    dataset_name: str,
    output_dir: str | Path,
    *,
    before_video: Callable[[], None] | None = None,
) -> dict[str, dict[str, float]]:
    """Runs the model over a data set and scores its predictions.

    Ranks share the videos. What is predicted for a video is on disk at once, in ``videos/``: an
    evaluation that was stopped, by whatever, goes on where it was if weights, config, data set and
    code are the same, with any number of ranks. ``forget_videos`` removes these files.

    A video that cannot be read, or for which the model raises a ``DataError``, is left out and
    counts as one without predictions. Such videos are listed in ``damaged.json``, and their number
    is the metric ``damaged/videos`` (``damaged/documents`` of sequences), which is there only if
    there are any.

    Args:
        cfg: of the run; decides loader, evaluator and precision.
        model: put into eval mode for the time of the evaluation.
        dataset_name: of the catalog, or the path of a json file.
        output_dir: run directory; files go to ``inference/<data set>/`` below it.
        before_video: called before every video; may raise ``Interrupted`` to end the evaluation.

    Returns:
        ``{task: {metric: value}}``, the same on every rank; a task without ground truth is empty.

    Raises:
        Interrupted: on every rank, if any was stopped.
        UserError: if data set or evaluator are unknown, or another process evaluates here.
    """
    from vidseg.evaluation import build_evaluator

    directory = inference_dir(output_dir, dataset_name)
    with contextlib.ExitStack() as stack:
        run_on_main(lambda: _enter(stack, locked(directory)))
        evaluator = build_evaluator(cfg, dataset_name, directory)
        evaluator.reset()
        store = ResultStore(directory / _VIDEOS)
        evaluator.results = store
        finished = _open(store, cfg, model, dataset_name)
        damaged: dict[Any, str] = {}
        stop: Interrupted | None = None
        try:
            _predict(cfg, model, dataset_name, evaluator, finished, damaged, before_video)
        except Interrupted as error:
            stop = error
        # A rank that left alone would leave the others waiting.
        codes = gather(stop.exit_code if stop else 0)
        if any(codes):
            raise stop or Interrupted(max(codes) - 128)
        run_on_main(store.look_again)  # else ranks on one disk would send what lies there already
        results = evaluator.evaluate()
        damaged = {key: reason for part in gather(damaged) for key, reason in part.items()}
        if damaged:
            results = {**results, "damaged": {_plural(dataset_name): float(len(damaged))}}
        run_on_main(lambda: _report_damaged(directory, dataset_name, damaged))
    return results


def forget_videos(output_dir: str | Path, metrics: Mapping[str, Mapping[str, float]]) -> None:
    """Removes what evaluations have kept to be continued, once their metrics are safe.

    Those with damaged videos keep it: when the videos are repaired, only they have to be run.

    Args:
        output_dir: run directory.
        metrics: data set to flat metrics.
    """
    for name, flat in metrics.items():
        if not is_incomplete(flat):
            ResultStore(inference_dir(output_dir, name) / _VIDEOS).clear()


def is_incomplete(flat: Mapping[str, float]) -> bool:
    """Tells of flat metrics whether videos were left out because they are damaged."""
    return any(name.startswith(_NUM_DAMAGED) for name in flat)


def check_whole(output_dir: str | Path, metrics: Mapping[str, Mapping[str, float]]) -> None:
    """Fails if videos of any data set were left out.

    Args:
        output_dir: run directory.
        metrics: data set to flat metrics.

    Raises:
        DataError: if so.
    """
    found: dict[str, list[str]] = {}
    for name, flat in metrics.items():
        for metric in flat:
            if metric.startswith(_NUM_DAMAGED):
                where = f"{name} (see {inference_dir(output_dir, name) / _DAMAGED})"
                items = found.setdefault(metric.removeprefix(_NUM_DAMAGED), [])
                items.append(f"{flat[metric]:.0f} of {where}")
    told = "; ".join(
        f"damaged {items} count as {items} without predictions: {', '.join(places)}"
        for items, places in found.items()
    )
    if told:
        raise DataError(f"{told}; once they are repaired, the same command runs them alone")


def flatten(results: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Turns ``{task: {metric: value}}`` into ``{"task/metric": value}``, numbers only."""
    return {
        f"{task}/{name}": float(value)
        for task, metrics in results.items()
        for name, value in metrics.items()
        if isinstance(value, int | float)
    }


def check_expected(cfg: CfgNode, metrics: Mapping[str, Mapping[str, float]]) -> None:
    """Compares results with ``TEST.EXPECTED_RESULTS``: ``[task, metric, value, tolerance]`` each.

    Args:
        cfg: of the run.
        metrics: data set to flat metrics.

    Raises:
        UserError: if a metric is missing or too far off on some data set.
    """
    for task, name, value, tolerance in cfg.TEST.EXPECTED_RESULTS:
        for dataset, flat in metrics.items():
            actual = flat.get(f"{task}/{name}", math.nan)
            if not abs(actual - value) <= tolerance:
                error = UserError(
                    f"TEST.EXPECTED_RESULTS: {task}/{name} on {dataset} is {actual:.3f}, expected "
                    f"{value} within {tolerance}"
                )
                error.exit_code = 1
                raise error


def _enter(stack: contextlib.ExitStack, context: AbstractContextManager[None]) -> None:
    stack.enter_context(context)


def _open(store: ResultStore, cfg: CfgNode, model: nn.Module, name: str) -> set[Any]:
    """Opens the store of every rank; gives the ids of videos that any of them has finished."""
    fingerprint = run_on_main(lambda: take_fingerprint(cfg, model, name))
    num_removed, changed = run_on_main(lambda: store.open(fingerprint))
    # One by one: on a shared disk the others find what the first of them has made.
    for turn in range(1, world_size()):
        if turn == rank():
            store.open(fingerprint)
        barrier()
    finished = {key for held in gather(list(store)) for key in held}
    item = DatasetCatalog.metadata(name).item
    if num_removed:
        logger.warning(
            "%s: starting anew; %d %ss of an evaluation that was not completed are dropped, "
            "since then there changed: %s",
            name,
            num_removed,
            item,
            describe_differences(tuple(changed)),
        )
    elif finished:
        logger.info(
            "%s: going on with an evaluation that was not completed: %d %ss are finished "
            "(remove %s to run them again)",
            name,
            len(finished),
            item,
            store.directory,
        )
    return finished


def _predict(
    cfg: CfgNode,
    model: nn.Module,
    name: str,
    evaluator: Evaluator,
    finished: Collection[Any],
    damaged: dict[Any, str],
    before_video: Callable[[], None] | None,
) -> None:
    """Has this rank's videos predicted and kept; ``damaged`` gets the ids of bad ones."""
    from vidseg.data import build_test_loader

    item = DatasetCatalog.metadata(name).item

    def leave_out(video_id: Any, reason: str) -> None:
        damaged[video_id] = reason
        logger.warning("%s: %s %s is left out: %s", name, item, video_id, reason)

    loader = build_test_loader(
        cfg,
        name,
        finished=finished,
        on_damaged=leave_out,
        streamed=getattr(model, "streams_frames", False),
    )
    precision = Precision.from_config(cfg, next(model.parameters()).device)
    with _evaluating(model), torch.no_grad():
        for samples in _progress(loader, name, item):
            if before_video is not None:
                before_video()
            try:
                with precision.autocast():
                    predictions = model(samples)
                evaluator.process(samples, predictions)
            except DataError as error:
                for sample in samples:
                    leave_out(sample["video_id"], str(error))


def _report_damaged(directory: Path, name: str, damaged: Mapping[Any, str]) -> None:
    """Lists damaged videos in the log and on disk, and marks the metrics."""
    path = directory / _DAMAGED
    if not damaged:
        path.unlink(missing_ok=True)
        return
    items = _plural(name)
    rows = {str(key): damaged[key] for key in sorted(damaged, key=str)}
    content = json.dumps(rows, indent=2, ensure_ascii=False).encode()
    write_atomically(path, lambda file: file.write(content))
    metrics = directory / "metrics.json"
    if metrics.is_file():
        marked = {**read_json(metrics), _NUM_DAMAGED + items: len(damaged)}
        text = json.dumps(marked, indent=2).encode()
        write_atomically(metrics, lambda file: file.write(text))
    logger.warning(
        "%s: %d damaged %s count as %s without predictions\n%s",
        name,
        len(damaged),
        items,
        items,
        "\n".join(f"  {key}: {reason}" for key, reason in rows.items()),
    )


def _plural(name: str) -> str:
    """Gives what messages and metrics call the records of a data set."""
    return f"{DatasetCatalog.metadata(name).item}s"


@contextlib.contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


def _progress(loader: Iterable[list[Any]], name: str, item: str) -> Iterator[list[Any]]:
    """Passes the samples on, showing a bar on a terminal and lines elsewhere, and the speed."""
    total = len(loader) if isinstance(loader, Sized) else None
    if sys.stderr.isatty() and is_main():
        from tqdm import tqdm

        loader = tqdm(loader, total=total, desc=f"evaluating {name}", unit=item)
    started = shown = time.perf_counter()
    count = num_frames = 0
    for samples in loader:
        yield samples
        count += len(samples)
        num_frames += sum(len(_frames(sample)) for sample in samples)
        now = time.perf_counter()
        if now - shown > _LOG_SECONDS:
            shown = now
            shown_total = total if total is not None else "?"
            logger.info("%s: %s %d of %s", name, item, count, shown_total)
    seconds = time.perf_counter() - started
    logger.info(
        "%s: %d %ss in %.1f s (%.3f s per %s, %.1f frames per second)",
        name,
        count,
        item,
        seconds,
        seconds / max(count, 1),
        item,
        num_frames / max(seconds, 1e-9),
    )


def _frames(sample: Mapping[str, Any]) -> Sized:
    """Gives what a model sees of a sample, frame by frame."""
    frames: Sized = sample.get("frames", sample.get("features", ()))
    return frames
