"""Exponential moving average of the weights."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from vidseg.errors import ConfigError

from .hooks import Hook

if TYPE_CHECKING:
    from .trainer import Trainer

__all__ = ["EmaHook"]


class EmaHook(Hook):
    """Keeps the average of the trainable parameters and of the float buffers.

    Args:
        model: whose weights are averaged.
        decay: share of the past in every iteration; early on it is lower, ``(1 + n) / (10 + n)``
            after ``n`` iterations, so that the random start is forgotten.

    Raises:
        ConfigError: if the decay lies outside [0, 1).
    """

    name = "ema"

    def __init__(self, model: nn.Module, decay: float) -> None:
        if not 0 <= decay < 1:
            raise ConfigError(f"SOLVER.EMA.DECAY {decay} must lie in [0, 1)")
        self.decay = decay
        self._live = {name: t for name, t in _averaged(model).items()}
        self.average = {name: t.detach().clone() for name, t in self._live.items()}

    def before_train(self, trainer: Trainer) -> None:
        """Starts from the weights as they are when the run begins."""
        if trainer.iteration == 0:
            self.restart()

    @torch.no_grad()
    def after_step(self, trainer: Trainer) -> None:
        """Moves the average towards the weights."""
        n = trainer.iteration
        decay = min(self.decay, (1 + n) / (10 + n))
        torch._foreach_lerp_(list(self.average.values()), list(self._live.values()), 1 - decay)

    def restart(self) -> None:
        """Forgets the past: the average is what the weights are now."""
        self._copy(self._live, self.average)

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """Puts the average in place of the weights inside the context."""
        kept = {name: tensor.detach().clone() for name, tensor in self._live.items()}
        self._copy(self.average, self._live)
        try:
            yield
        finally:
            self._copy(kept, self._live)

    def keep(self) -> None:
        """Puts the average in place of the weights for good."""
        self._copy(self.average, self._live)

    def state_dict(self) -> dict[str, Any]:
        """Gives the average."""
        return dict(self.average)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes over a saved average."""
        self._copy({name: state[name] for name in self.average}, self.average)

    @staticmethod
    @torch.no_grad()
    def _copy(source: dict[str, Tensor], target: dict[str, Tensor]) -> None:
        for name, tensor in target.items():
            tensor.copy_(source[name])


def _averaged(model: nn.Module) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {n: p for n, p in model.named_parameters() if p.requires_grad}
    tensors.update({n: b for n, b in model.named_buffers() if b.is_floating_point()})
    return tensors
