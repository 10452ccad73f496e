"""Mixed precision on any device."""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from vidseg.errors import ConfigError

if TYPE_CHECKING:
    from vidseg.config import CfgNode

__all__ = ["Precision"]

logger = logging.getLogger(__name__)

_DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16}


class Precision:
    """Runs the forward pass in a lower precision and scales losses where that needs it.

    Args:
        device_type: of the model, ``"cpu"`` for example.
        dtype: what autocast computes in; None computes as written.
    """

    def __init__(self, device_type: str, dtype: torch.dtype | None) -> None:
        self.device_type = device_type
        self.dtype = dtype
        # Only half precision has so little range that gradients underflow.
        needs_scaling = dtype == torch.float16
        self._scaler = torch.amp.GradScaler(device_type, enabled=True) if needs_scaling else None

    @classmethod
    def off(cls) -> Precision:
        """Computes in the precision that the model has."""
        return cls("cpu", None)

    @classmethod
    def from_config(cls, cfg: CfgNode, device: torch.device) -> Precision:
        """Reads ``SOLVER.AMP``; half precision becomes bfloat16 on devices without loss scaling.

        Raises:
            ConfigError: if the dtype is unknown.
        """
        if not cfg.SOLVER.AMP.ENABLED:
            return cls(device.type, None)
        if cfg.SOLVER.AMP.DTYPE not in _DTYPES:
            raise ConfigError(
                f"SOLVER.AMP.DTYPE {cfg.SOLVER.AMP.DTYPE!r} is unknown; choose {', '.join(_DTYPES)}"
            )
        dtype = _DTYPES[cfg.SOLVER.AMP.DTYPE]
        if dtype == torch.float16 and device.type != "cuda":
            logger.info("SOLVER.AMP.DTYPE float16 is run as bfloat16 on %s", device.type)
            dtype = torch.bfloat16
        return cls(device.type, dtype)

    @property
    def scales_losses(self) -> bool:
        """Whether non-finite gradients are expected now and then, and handled here."""
        return self._scaler is not None

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """Gives the context for a forward pass."""
        if self.dtype is None:
            return contextlib.nullcontext()
        return torch.autocast(self.device_type, self.dtype)

    def backward(self, loss: Tensor) -> None:
        """Computes gradients of the (scaled) loss."""
        scaled = self._scaler.scale(loss) if self._scaler else loss
        scaled.backward()

    def unscale(self, optimizer: torch.optim.Optimizer) -> None:
        """Brings the gradients back to their true size, before clipping."""
        if self._scaler:
            self._scaler.unscale_(optimizer)

    def step(self, optimizer: torch.optim.Optimizer) -> None:
        """Updates the weights, unless scaled gradients overflowed."""
        if self._scaler is None:
            optimizer.step()
            return
        self._scaler.step(optimizer)
        self._scaler.update()

    def state_dict(self) -> dict[str, Any]:
        """Gives the scale and its growth counter."""
        return self._scaler.state_dict() if self._scaler else {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes over a saved scale."""
        if self._scaler and state:
            self._scaler.load_state_dict(state)
