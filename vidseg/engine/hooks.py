"""What happens around a training step: one behaviour per class.

Hooks run in the order of ``trainer.hooks``. One with memory that a resumed run needs gives it in
``state_dict``, under its ``name``.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from vidseg.checkpoint import Checkpointer
from vidseg.collectives import is_main, rank

from .batches import Sample, seed_iteration

if TYPE_CHECKING:
    from .trainer import Trainer

__all__ = ["CheckpointHook", "FittingHook", "Hook"]

logger = logging.getLogger(__name__)


class Hook:
    """Does nothing; a base to override. ``name`` keys the hook's part of a checkpoint."""

    name = ""

    def before_train(self, trainer: Trainer) -> None:
        """Called once, when everything is loaded and ``trainer.iteration`` is the first to come."""

    def after_step(self, trainer: Trainer) -> None:
        """Called after every iteration; ``trainer.iteration`` counts the finished ones."""

    def after_train(self, trainer: Trainer) -> None:
        """Called once, at the end or after a stop: ``trainer.stop_reason`` tells which."""

    def state_dict(self) -> dict[str, Any]:
        """Gives what a resumed run needs, as tensors and plain containers."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes over a saved state."""


class CheckpointHook(Hook):
    """Saves the state of the trainer periodically and when the run ends or is stopped.

    Args:
        checkpointer: where to.
        period: iterations between checkpoints.
    """

    def __init__(self, checkpointer: Checkpointer, period: int) -> None:
        self.checkpointer = checkpointer
        self.period = max(1, period)
        self._saved_at = -1

    def before_train(self, trainer: Trainer) -> None:
        """Remembers what is on disk already."""
        self._saved_at = trainer.iteration

    def after_step(self, trainer: Trainer) -> None:
        """Saves at every multiple of the period; a full disk does not end the run."""
        if trainer.iteration % self.period or trainer.iteration == trainer.max_iter:
            return
        try:
            self._save(trainer)
        except OSError as error:
            logger.error(
                "the checkpoint of iteration %d could not be written (%s); the run goes on, the "
                "last sound one stays",
                trainer.iteration,
                error,
            )

    def after_train(self, trainer: Trainer) -> None:
        """Saves unless this iteration is saved already."""
        if self._saved_at != trainer.iteration:
            self._save(trainer)

    def _save(self, trainer: Trainer) -> None:
        if not is_main():
            return
        path = self.checkpointer.save_periodic(trainer.iteration, trainer.state_dict())
        self._saved_at = trainer.iteration
        logger.info("checkpoint %s", path)


class FittingHook(Hook):
    """Lets a model fit what no gradient teaches it, such as statistics of the data or codebooks.

    ``model.at_iteration(iteration, max_iter, batches)`` is called before every step, and once more
    when the last one is done, with ``iteration == max_iter``; evaluations and the checkpoint of
    that moment see what it did. Every call finds the random generators seeded for its iteration. A
    resumed run does not repeat the call that its checkpoint holds already, unless the model's
    ``is_fitted`` is false: then what it fits is in no checkpoint.

    Args:
        batches: gives a pass over this rank's share of the training records.
        on_refit: called when ``at_iteration`` returns true: what it set is not to be mixed with
            what was there before.
    """

    name = "fitting"

    def __init__(
        self,
        batches: Callable[[], Iterable[list[Sample]]],
        *,
        on_refit: Callable[[], None] | None = None,
    ) -> None:
        self.batches = batches
        self.on_refit = on_refit
        self.fitted_at = -1

    def before_train(self, trainer: Trainer) -> None:
        """Calls the model before the first step of a run."""
        self.after_step(trainer)

    def after_step(self, trainer: Trainer) -> None:
        """Calls the model before the next step."""
        model: Any = trainer.model
        if trainer.iteration == self.fitted_at and getattr(model, "is_fitted", True):
            return
        seed_iteration(trainer.seed, rank(), trainer.iteration)
        refitted = model.at_iteration(trainer.iteration, trainer.max_iter, self.batches)
        self.fitted_at = trainer.iteration
        if refitted and self.on_refit is not None:
            self.on_refit()

    def state_dict(self) -> dict[str, Any]:
        """Gives the iteration of the last call."""
        return {"fitted_at": self.fitted_at}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes it over."""
        self.fitted_at = state["fitted_at"]
