"""Evaluating a model on a data set, with progress, timing and a table."""

from __future__ import annotations

import contextlib
import logging
import math
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from vidseg.errors import UserError

from .distributed import is_main
from .precision import Precision

if TYPE_CHECKING:
    from vidseg.config import CfgNode

__all__ = ["check_expected", "evaluate_model", "flatten", "format_table", "inference_dir"]

logger = logging.getLogger(__name__)

_LOG_SECONDS = 30.0
_HEADLINE = ("AP", "AP50", "AP75", "AR1", "AR10")


def evaluate_model(
    cfg: CfgNode,
    model: nn.Module,
    dataset_name: str,
    output_dir: str | Path,
    *,
    before_video: Callable[[], None] | None = None,
) -> dict[str, dict[str, float]]:
    """Runs the model over a data set and scores its predictions.

    Args:
        cfg: of the run; decides loader, evaluator and precision.
        model: put into eval mode for the time of the evaluation.
        dataset_name: of the catalog, or the path of a json file.
        output_dir: run directory; files go to ``inference/<data set>/`` below it.
        before_video: called before every video; may raise to end the evaluation.

    Returns:
        ``{task: {metric: value}}``, the same on every rank; a task without ground truth is empty.
    """
    from vidseg.data import build_test_loader
    from vidseg.evaluation import build_evaluator

    directory = inference_dir(output_dir, dataset_name)
    directory.mkdir(parents=True, exist_ok=True)
    evaluator = build_evaluator(cfg, dataset_name, directory)
    evaluator.reset()
    loader = build_test_loader(cfg, dataset_name)
    precision = Precision.from_config(cfg, next(model.parameters()).device)
    with _evaluating(model), torch.no_grad():
        for samples in _progress(loader, dataset_name):
            if before_video is not None:
                before_video()
            with precision.autocast():
                predictions = model(samples)
            evaluator.process(samples, predictions)
    return evaluator.evaluate()


def inference_dir(output_dir: str | Path, dataset_name: str) -> Path:
    """Gives the folder for what is inferred on a data set.

    A path is named by its file and the folder that holds it: files of the same name, one for each
    split, are usual.
    """
    name = dataset_name
    if dataset_name.endswith(".json"):
        path = Path(dataset_name).resolve()
        name = "_".join(part for part in (path.parent.name, path.stem) if part)
    return Path(output_dir) / "inference" / name


def flatten(results: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Turns ``{task: {metric: value}}`` into ``{"task/metric": value}``, numbers only."""
    return {
        f"{task}/{name}": float(value)
        for task, metrics in results.items()
        for name, value in metrics.items()
        if isinstance(value, int | float)
    }


def format_table(rows: Mapping[str, Mapping[str, float]]) -> str:
    """Formats the main metrics of one or several runs.

    Args:
        rows: label of the run to its flat metrics.
    """
    from tabulate import tabulate

    columns = _columns(list(rows.values()))
    labelled = any(rows)
    header = ["run"] * labelled + [name.rpartition("/")[2] for name in columns]
    body = [
        [label] * labelled + [_cell(metrics.get(name)) for name in columns]
        for label, metrics in rows.items()
    ]
    return str(tabulate(body, header, tablefmt="pipe", disable_numparse=True, stralign="right"))


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


def _columns(rows: Sequence[Mapping[str, float]]) -> list[str]:
    """Picks the headline metrics if there are any, else whatever there is."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    headline = [name for wanted in _HEADLINE for name in names if name.rpartition("/")[2] == wanted]
    return headline or names[:8]


def _cell(value: float | None) -> str:
    return "-" if value is None or math.isnan(value) else f"{value:.2f}"


@contextlib.contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


def _progress(loader: Iterable[list[Any]], name: str) -> Iterator[list[Any]]:
    """Passes the samples on, showing a bar on a terminal and lines elsewhere, and the speed."""
    total = len(loader) if isinstance(loader, Sized) else None
    if sys.stderr.isatty() and is_main():
        from tqdm import tqdm

        loader = tqdm(loader, total=total, desc=f"evaluating {name}", unit="video")
    started = shown = time.perf_counter()
    count = num_frames = 0
    for samples in loader:
        yield samples
        count += len(samples)
        num_frames += sum(len(sample["frames"]) for sample in samples if "frames" in sample)
        now = time.perf_counter()
        if now - shown > _LOG_SECONDS:
            shown = now
            logger.info("%s: video %d of %s", name, count, total if total is not None else "?")
    seconds = time.perf_counter() - started
    logger.info(
        "%s: %d videos in %.1f s (%.3f s per video, %.1f frames per second)",
        name,
        count,
        seconds,
        seconds / max(count, 1),
        num_frames / max(seconds, 1e-9),
    )
