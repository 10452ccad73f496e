"""Sinusoidal positions in time (Vaswani et al., 2017, section 3.5), as FACT adds them.

Shapes: T frames, H channels.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["SinusoidTable", "add_position", "sinusoid_rows"]

_TEMPERATURE = 10000.0


class SinusoidTable(nn.Module):
    """Rows of sine and cosine codes, one per place in time.

    The table is no weight: it is not saved, and the ``pe`` of a published checkpoint (20 MB) is
    passed over on loading.

    Args:
        channels: H, width of the code.
        length: rows that are kept; more are computed when they are asked for.

    Shape:
        - input: the number of rows T
        - output: ``(T, H)`` float32
    """

    pe: Tensor

    def __init__(self, channels: int, length: int = 10000) -> None:
        super().__init__()
        self.channels = channels
        self.register_buffer("pe", sinusoid_rows(length, channels), persistent=False)

    def forward(self, length: int) -> Tensor:
        """Gives rows 0 to ``length - 1``; see the class for shapes."""
        if length <= len(self.pe):
            return self.pe[:length]
        return sinusoid_rows(length, self.channels, device=self.pe.device).to(self.pe.dtype)

    def extra_repr(self) -> str:
        """Describes the table in the printed model."""
        return f"channels={self.channels}, length={len(self.pe)}"

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any) -> None:
        state_dict.pop(f"{prefix}pe", None)
        super()._load_from_state_dict(state_dict, prefix, *args)


def sinusoid_rows(
    length: int, channels: int, *, device: torch.device | str | None = None
) -> Tensor:
    """Computes the code of places ``0 .. length - 1``.

    Channel 2k is ``sin(t w_k)``, channel 2k+1 ``cos(t w_k)``, with ``w_k = 10000^(-2k/H)``.

    Args:
        length: T.
        channels: H; if it is odd, the last cosine is left out.
        device: where the result lives.

    Returns:
        ``(T, H)`` float32.

    Note:
        Angles are float32 as in the published tables, which therefore agree to the last bits.
    """
    times = torch.arange(length, dtype=torch.float32, device=device)
    pairs = torch.arange(0, channels, 2, dtype=torch.float32, device=device)
    angles = times[:, None] * torch.exp(pairs * (-math.log(_TEMPERATURE) / channels))
    rows = torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)
    return rows[:, :channels]


def add_position(x: Tensor, position: Tensor | None) -> Tensor:
    """Adds positions to the first channels of features that may be wider.

    Args:
        x: ``(N, C)``.
        position: ``(N, P)`` with P <= C; None adds nothing.

    Returns:
        ``(N, C)``.
    """
    if position is None:
        return x
    return x + nn.functional.pad(position, (0, x.shape[-1] - position.shape[-1]))
