"""A module behind another interface, with its weights under their own names."""

from __future__ import annotations

from typing import Any

from torch import nn

__all__ = ["Wrapping"]


class Wrapping(nn.Module):
    """Shares parts, parameters and buffers with the module that it wraps.

    As a part of its own, the module would put a prefix before the name of every weight, and files
    of the other world would no longer fit.

    Args:
        wrapped: the module.
    """

    wrapped: nn.Module

    def __init__(self, wrapped: nn.Module) -> None:
        super().__init__()
        object.__setattr__(self, "wrapped", wrapped)
        self._modules = wrapped._modules
        self._parameters = wrapped._parameters
        self._buffers = wrapped._buffers
        self._non_persistent_buffers_set = wrapped._non_persistent_buffers_set
        self.training = wrapped.training

    def train(self, mode: bool = True) -> Any:
        """Switches the module, which may keep parts of it in eval mode."""
        self.wrapped.train(mode)
        self.training = mode
        return self
