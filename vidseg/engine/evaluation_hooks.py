"""Hooks around evaluations during training: when, which weights are best, when to give up."""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from vidseg.checkpoint import Checkpointer
from vidseg.collectives import is_main
from vidseg.errors import ConfigError, nearest

from .hooks import Hook

if TYPE_CHECKING:
    from .trainer import Trainer

__all__ = ["BestHook", "ByDataset", "EvaluationHook", "find_metric", "joined"]

logger = logging.getLogger(__name__)

Metrics = dict[str, float]
"""Flat names (``segm/AP``; with several data sets ``<data set>/segm/AP``) to values."""

ByDataset = dict[str, dict[str, float]]
"""Data set to flat names to values."""


class EvaluationHook(Hook):
    """Evaluates every so many iterations, before the checkpoint of that iteration is written.

    Args:
        evaluate: evaluates the model as it is.
        period: iterations between evaluations; the last iteration is evaluated too. 0 is never.
        averaged: context in which the weights to evaluate are in place (EMA), if others.
        write: passes metrics to the writers of the run.
        best: is told the metrics of each evaluation.
    """

    name = "evaluation"

    def __init__(
        self,
        evaluate: Callable[[], ByDataset],
        period: int,
        *,
        averaged: Callable[[], contextlib.AbstractContextManager[None]] = contextlib.nullcontext,
        write: Callable[[int, Metrics], None] | None = None,
        best: BestHook | None = None,
    ) -> None:
        self.evaluate = evaluate
        self.period = period
        self.averaged = averaged
        self.write = write
        self.best = best
        self.latest: ByDataset = {}
        self.evaluated_at = 0

    def before_train(self, trainer: Trainer) -> None:
        """Makes up for an evaluation that a stop cut short."""
        self.after_step(trainer)

    def after_step(self, trainer: Trainer) -> None:
        """Evaluates if it is time."""
        iteration = trainer.iteration
        due = self.period > 0 and (iteration % self.period == 0 or iteration == trainer.max_iter)
        if not due or iteration == self.evaluated_at:
            return
        trainer.raise_if_stopped()
        with self.averaged():
            self.latest = self.evaluate()
            metrics = joined(self.latest)
            self.evaluated_at = iteration
            if self.best is not None:
                self.best.see(trainer, metrics)
        if self.write is not None:
            self.write(iteration, metrics)

    def state_dict(self) -> dict[str, Any]:
        """Gives the iteration of the last evaluation."""
        return {"evaluated_at": self.evaluated_at}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes it over."""
        self.evaluated_at = state["evaluated_at"]


class BestHook(Hook):
    """Keeps the weights of the best evaluations and stops a run that no longer improves.

    Args:
        checkpointer: where the weights go, as ``model_best_<iteration>.pth``.
        metric: name that is to be high, as ``segm/AP``.
        num_kept: how many.
        patience: evaluations without a better one after which the run stops; 0 never.
    """

    name = "best"

    def __init__(
        self, checkpointer: Checkpointer, metric: str, *, num_kept: int = 1, patience: int = 0
    ) -> None:
        self.checkpointer = checkpointer
        self.metric = metric
        self.num_kept = max(1, num_kept)
        self.patience = patience
        self.ranking: list[tuple[float, int]] = []  # (value, iteration), best first
        self.num_worse = 0

    def see(self, trainer: Trainer, metrics: Metrics) -> None:
        """Judges an evaluation; the evaluated weights are in the model.

        Raises:
            ConfigError: if the metric is not among them.
        """
        value = find_metric(metrics, self.metric)
        if math.isnan(value):
            return
        is_best = not self.ranking or value > self.ranking[0][0]
        self.num_worse = 0 if is_best else self.num_worse + 1
        # Stable: of equal values the earlier stays ahead.
        ranking = sorted([*self.ranking, (value, trainer.iteration)], key=lambda entry: -entry[0])
        self.ranking, dropped = ranking[: self.num_kept], ranking[self.num_kept :]
        if is_main() and self._is_kept(trainer, (value, trainer.iteration) in self.ranking):
            for _, iteration in dropped:
                (self.checkpointer.directory / _best_name(iteration)).unlink(missing_ok=True)
        if is_best:
            logger.info("best %s so far: %.3f", self.metric, value)
        if self.patience and self.num_worse >= self.patience:
            logger.info("%s has not improved in %d evaluations", self.metric, self.num_worse)
            trainer.stop_reason = "patience"

    def _is_kept(self, trainer: Trainer, is_among_best: bool) -> bool:
        """Saves the weights if they are to be kept; False if the disk has no room for them."""
        if not is_among_best:
            return True
        content = {"model": trainer.model.state_dict(), "iteration": trainer.iteration}
        try:
            self.checkpointer.save(_best_name(trainer.iteration), content)
        except OSError as error:
            logger.error(
                "the weights of iteration %d, among the best so far, could not be written (%s); "
                "the run goes on, earlier ones stay",
                trainer.iteration,
                error,
            )
            return False
        return True

    def state_dict(self) -> dict[str, Any]:
        """Gives the ranking."""
        return {"ranking": [list(entry) for entry in self.ranking], "num_worse": self.num_worse}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes it over."""
        self.ranking = [(float(value), int(iteration)) for value, iteration in state["ranking"]]
        self.num_worse = state["num_worse"]


def find_metric(metrics: Metrics, name: str) -> float:
    """Looks a metric up by its full name or by its end (``AP`` for ``segm/AP``).

    Raises:
        ConfigError: if there is none.
    """
    if name in metrics:
        return metrics[name]
    for full, value in metrics.items():
        if full.endswith(f"/{name}"):
            return value
    guess = ", ".join(nearest(name, metrics) or list(metrics)[:5])
    raise ConfigError(f"TEST.BEST_METRIC {name!r} was not computed; nearest: {guess}")


def joined(metrics: ByDataset) -> Metrics:
    """Gives metrics flat names, with the data set before them where there are several."""
    if len(metrics) == 1:
        return dict(next(iter(metrics.values())))
    return {f"{d}/{name}": value for d, flat in metrics.items() for name, value in flat.items()}


def _best_name(iteration: int) -> str:
    return f"model_best_{iteration:07d}.pth"
