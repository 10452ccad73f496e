"""Hooks that show how a run goes: log lines, files for plots, a progress bar."""

from __future__ import annotations

import datetime
import functools
import logging
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch

from .hooks import Hook
from .scalars import is_auxiliary, is_loss
from .writers import Writer

if TYPE_CHECKING:
    from .trainer import Trainer

__all__ = ["LogHook", "ProgressBarHook", "peak_memory_mib"]

logger = logging.getLogger(__name__)


class LogHook(Hook):
    """Logs a line with ETA and losses, and passes all scalars to the writers.

    Args:
        period: iterations between lines.
        open_writers: opens the writers for a run that starts at the given iteration; it is called
            when training starts.
    """

    def __init__(self, period: int, open_writers: Callable[[int], Sequence[Writer]]) -> None:
        self.period = max(1, period)
        self.open_writers = open_writers
        self.writers: Sequence[Writer] = ()
        self._failing: set[Writer] = set()

    def before_train(self, trainer: Trainer) -> None:
        """Opens the writers."""
        self.writers = self.open_writers(trainer.iteration)

    def after_step(self, trainer: Trainer) -> None:
        """Logs at the first step, at multiples of the period and at the last step."""
        first = trainer.iteration == 1
        if trainer.iteration % self.period and trainer.iteration != trainer.max_iter and not first:
            return
        scalars = trainer.scalars.smoothed()
        memory = peak_memory_mib(trainer.model)
        logger.info(_line(trainer, scalars, memory))
        self.write(trainer.iteration, {**scalars, "max_mem": memory})

    def after_train(self, trainer: Trainer) -> None:
        """Closes the writers."""
        for writer in self.writers:
            self._attempt(writer, writer.close)
        self.writers = ()

    def write(self, iteration: int, scalars: dict[str, float]) -> None:
        """Passes scalars of any origin to the writers; a full disk does not end the run."""
        for writer in self.writers:
            self._attempt(writer, functools.partial(writer.write, iteration, scalars))

    def _attempt(self, writer: Writer, action: Callable[[], None]) -> None:
        try:
            action()
        except OSError as error:
            if writer not in self._failing:
                logger.error(
                    "%s cannot write (%s); the run goes on and tries again with every line",
                    type(writer).__name__,
                    error,
                )
            self._failing.add(writer)
        else:
            self._failing.discard(writer)


class ProgressBarHook(Hook):
    """Shows a progress bar with the total loss where the output is a terminal."""

    def __init__(self) -> None:
        self._bar: Any = None

    def before_train(self, trainer: Trainer) -> None:
        """Opens the bar."""
        if sys.stderr.isatty():
            from tqdm import tqdm

            self._bar = tqdm(
                total=trainer.max_iter, initial=trainer.iteration, dynamic_ncols=True, unit="it"
            )

    def after_step(self, trainer: Trainer) -> None:
        """Moves it."""
        if self._bar is not None:
            self._bar.update(1)
            loss = trainer.scalars.latest().get("total_loss", float("nan"))
            self._bar.set_postfix_str(f"loss {loss:.3f}", refresh=False)

    def after_train(self, trainer: Trainer) -> None:
        """Closes it."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def peak_memory_mib(model: torch.nn.Module) -> float:
    """Gives the most memory ever used: of the model's CUDA device, else of the process, in MiB."""
    device = next(model.parameters()).device
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    try:
        import resource
    except ImportError:  # not on Windows
        return 0.0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def _line(trainer: Trainer, scalars: dict[str, float], memory: float) -> str:
    seconds = scalars.get("time", 0.0) * (trainer.max_iter - trainer.iteration)
    parts = [
        f"eta: {datetime.timedelta(seconds=round(seconds))}",
        f"iter: {trainer.iteration}/{trainer.max_iter}",
    ]
    if "total_loss" in scalars:
        parts.append(f"total_loss: {scalars['total_loss']:.4g}")
    parts += [
        f"{name}: {value:.4g}"
        for name, value in scalars.items()
        # Losses of auxiliary layers go to the files; a line has no room for them.
        if is_loss(name) and not is_auxiliary(name)
    ]
    parts += [f"{name}: {scalars[name]:.4f}" for name in ("time", "data_time") if name in scalars]
    parts.append(f"lr: {scalars.get('lr', 0.0):.3g}")
    parts.append(f"max_mem: {memory:.0f}M")
    return "  ".join(parts)
