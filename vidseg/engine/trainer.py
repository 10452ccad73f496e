"""The training loop: iterations, losses, updates; everything else is a hook.

The loop is resumable to the bit: iteration ``i`` depends on the weights, on the optimiser and on
``(seed, rank, i)`` only. All random generators are seeded anew for every iteration, so their states
need not be saved, and an evaluation in between or a killed process changes nothing.
"""

from __future__ import annotations

import contextlib
import logging
import math
import signal
import time
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from vidseg.collectives import agree, rank, world_size
from vidseg.errors import DataError
from vidseg.solver import IterationSchedule

from .batches import (
    Sample,
    TrainingError,
    describe_sample,
    seed_iteration,
    split_batch,
    stream_batches,
)
from .hooks import Hook
from .precision import Precision
from .scalars import SKIPPED, ScalarHistory, is_figure
from .signals import Interrupted, StopSignals

__all__ = ["Trainer"]

logger = logging.getLogger(__name__)


class Trainer:
    """Minimises the losses of a model over the samples of a loader.

    Args:
        model: ``model(list[sample])`` gives a flat dict of weighted losses in training mode, and
            figures for the log (see :func:`vidseg.engine.scalars.is_figure`).
        optimizer: over the trainable parameters of the model.
        schedule: sets the learning rates of each iteration.
        make_loader: gives the stream of batches that starts at an iteration.
        clip: clips gradients in place and returns their norm.
        max_iter: iterations of the whole run.
        precision: mixed precision, off by default.
        seed: of all random draws.
        accumulation: parts in which a batch is computed before the update.
        max_nan_steps: consecutive steps without a finite loss after which the run stops.
        log_window: over how many iterations scalars are smoothed.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        schedule: IterationSchedule,
        make_loader: Callable[[int], Iterable[list[Sample]]],
        *,
        clip: Callable[[Iterable[nn.Parameter]], Tensor],
        max_iter: int,
        precision: Precision | None = None,
        seed: int = 0,
        accumulation: int = 1,
        max_nan_steps: int = 10,
        log_window: int = 20,
    ) -> None:
        self.model = model
        self.optimizer = optimizer
        self.schedule = schedule
        self.make_loader = make_loader
        self.clip = clip
        self.max_iter = max_iter
        self.precision = precision or Precision.off()
        self.seed = seed
        self.accumulation = accumulation
        self.max_nan_steps = max_nan_steps
        self.scalars = ScalarHistory(log_window)
        self.hooks: list[Hook] = []
        self.signals = StopSignals()
        self.iteration = 0
        self.stop_reason = ""
        self.num_nan_steps = 0
        self._parameters = [p for p in model.parameters() if p.requires_grad]
        self._device = self._parameters[0].device
        self._parallel = _parallel(model)

    def train(self) -> None:
        """Runs from ``self.iteration`` to ``self.max_iter`` or until something asks to stop.

        ``self.stop_reason`` is then ``""``, ``"signal"`` or what a hook has set.

        Raises:
            TrainingError: if the losses stay non-finite.
            DataError: if a sample cannot be made. The hooks have then been told that training ends,
                so that the run can go on from there once the file is mended.
        """
        with self.signals:
            try:
                for hook in self.hooks:
                    hook.before_train(self)
                self._loop()
            except Interrupted:
                self.stop_reason = "signal"
            except DataError:
                self._finish()
                raise
            self._finish()

    def raise_if_stopped(self) -> None:
        """Ends training before a long pause if any rank was asked to stop.

        Raises:
            Interrupted: if so.
        """
        if self._stop_is_asked():
            raise Interrupted(self.signals.received or signal.SIGTERM)

    def state_dict(self) -> dict[str, Any]:
        """Gives everything that a resumed run needs, as tensors and plain containers."""
        return {
            "iteration": self.iteration,
            "seed": self.seed,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "precision": self.precision.state_dict(),
            "scalars": self.scalars.state_dict(),
            "num_nan_steps": self.num_nan_steps,
            "hooks": {hook.name: state for hook in self.hooks if (state := hook.state_dict())},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes over a saved state; hooks must already be in ``self.hooks``.

        Raises:
            DataError: if it belongs to another model or lacks a part.
        """
        try:
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
        except (KeyError, RuntimeError, ValueError) as error:
            reason = str(error).splitlines()[-1].strip()
            raise DataError(f"the checkpoint belongs to another model: {reason}") from error
        try:
            self.iteration = int(state["iteration"])
            self.seed = int(state["seed"])
            self.precision.load_state_dict(state["precision"])
            self.scalars.load_state_dict(state["scalars"])
            self.num_nan_steps = int(state["num_nan_steps"])
            for hook in self.hooks:
                if hook.name in state["hooks"]:
                    hook.load_state_dict(state["hooks"][hook.name])
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DataError(f"the checkpoint is not one of this trainer: {error!r}") from error

    def _finish(self) -> None:
        skipped = round(self.scalars.latest().get(SKIPPED, 0.0))
        if skipped:
            logger.warning(
                "%d of %d steps were skipped: a loss or gradient was no number",
                skipped,
                self.iteration,
            )
        for hook in self.hooks:
            hook.after_train(self)

    def _loop(self) -> None:
        batches = stream_batches(self.make_loader, lambda: self.iteration)
        while self.iteration < self.max_iter and not self.stop_reason:
            started = time.perf_counter()
            samples = next(batches)
            data_time = time.perf_counter() - started
            self.model.train()
            self._step(samples)
            self.iteration += 1
            self.scalars.put({"time": time.perf_counter() - started, "data_time": data_time})
            for hook in self.hooks:
                hook.after_step(self)
            if self._stop_is_asked():
                self.stop_reason = "signal"

    def _stop_is_asked(self) -> bool:
        return agree(self.signals.received is not None, self._device)

    def _step(self, samples: list[Sample]) -> None:
        for sample in samples:
            sample["iteration"], sample["max_iter"] = self.iteration, self.max_iter
        seed_iteration(self.seed, rank(), self.iteration)
        rates = self.schedule.apply(self.iteration)
        losses = self._accumulate(samples)
        self.scalars.put({"lr": max(rates)})
        if losses is None:
            self.optimizer.zero_grad(set_to_none=True)
            self._count_nan_step()
            return
        if self._update(samples):
            self.num_nan_steps = 0
        total = sum(value for name, value in losses.items() if not is_figure(name))
        self.scalars.put({"total_loss": total, **losses})

    def _accumulate(self, samples: list[Sample]) -> dict[str, float] | None:
        """Adds up the gradients of the batch; None if a loss is not finite.

        Gives what the model gave, losses and figures, as means over the batch.
        """
        sums: dict[str, float] = {}
        parts = split_batch(samples, self.accumulation)
        for index, part in enumerate(parts):
            with self._synchronised(last=index == len(parts) - 1):
                with self.precision.autocast():
                    outputs = self._parallel(part)
                names = sorted(outputs, key=is_figure)  # losses first
                values = torch.stack([outputs[name].float() for name in names])
                losses = values[: len(names) - sum(map(is_figure, names))]
                numbers = values.tolist()
                bad = [
                    name
                    for name, number in zip(names, numbers, strict=True)
                    if not (is_figure(name) or math.isfinite(number))
                ]
                if bad:
                    logger.warning(
                        "iteration %d: %s not finite; the step is skipped. Samples: %s",
                        self.iteration,
                        ", ".join(bad),
                        self._describe_culprits(part),
                    )
                if agree(bool(bad), self._device):
                    return None
                share = len(part) / len(samples)
                if losses.requires_grad:
                    self.precision.backward(losses.sum() * share)
            for name, number in zip(names, numbers, strict=True):
                sums[name] = sums.get(name, 0.0) + number * share
        return sums

    def _update(self, samples: list[Sample]) -> bool:
        """Clips and applies the gradients; False if they are not finite."""
        self.precision.unscale(self.optimizer)
        norm = float(self.clip(self._parameters))
        self.scalars.put({"grad_norm": norm} if math.isfinite(norm) else {})
        applied = math.isfinite(norm) or self.precision.scales_losses
        if applied:
            self.precision.step(self.optimizer)
        else:
            logger.warning(
                "iteration %d: the gradient is not finite; the step is skipped. Samples: %s",
                self.iteration,
                "; ".join(map(describe_sample, samples)),
            )
        self.optimizer.zero_grad(set_to_none=True)
        if not applied:
            self._count_nan_step()
        return applied

    def _count_nan_step(self) -> None:
        self.num_nan_steps += 1
        self.scalars.put({SKIPPED: self.scalars.latest().get(SKIPPED, 0.0) + 1})
        if self.num_nan_steps >= self.max_nan_steps:
            raise TrainingError(
                f"{self.num_nan_steps} steps in a row were not finite (SOLVER.MAX_NAN_STEPS) at "
                f"iteration {self.iteration}; lower SOLVER.BASE_LR or look at the samples above"
            )

    def _synchronised(self, *, last: bool) -> contextlib.AbstractContextManager[None]:
        """Ranks exchange gradients with the last part of a batch only."""
        if isinstance(self._parallel, DistributedDataParallel) and not last:
            return self._parallel.no_sync()
        return contextlib.nullcontext()

    def _describe_culprits(self, samples: list[Sample]) -> str:
        """Names the samples with a bad loss; all of them where they cannot be tried one by one."""
        culprits = []
        # Criteria may average over the ranks, so a rank cannot run its model alone.
        if len(samples) > 1 and world_size() == 1:
            for sample in samples:
                with torch.no_grad(), self.precision.autocast():
                    losses = self.model([sample])
                if not all(bool(v.isfinite()) for name, v in losses.items() if not is_figure(name)):
                    culprits.append(sample)
        return "; ".join(map(describe_sample, culprits or samples))


def _parallel(model: nn.Module) -> nn.Module:
    if world_size() == 1:
        return model
    # Which parameters take part may differ between clips: one without objects has no mask loss.
    return DistributedDataParallel(model, find_unused_parameters=True)
