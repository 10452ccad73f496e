"""Readers of the recorded training cases."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

FOLDER = Path(__file__).parent / "dvis_daq_training"


def load(case: str) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Inputs and outputs of a case."""
    inputs, outputs = (
        {key: torch.from_numpy(value) for key, value in np.load(FOLDER / case / name).items()}
        for name in ("inputs.npz", "outputs.npz")
    )
    return inputs, outputs


class Replay:
    """Stands in for ``torch.rand`` and gives recorded draws in their order."""

    def __init__(self, arrays: dict[str, Tensor], prefix: str = "") -> None:
        names = sorted(key for key in arrays if key.startswith(f"{prefix}rand_"))
        self.draws = [arrays[name] for name in names]
        self.used = 0

    def __call__(self, *size: int, device: torch.device | str = "cpu") -> Tensor:
        draw = self.draws[self.used]
        self.used += 1
        assert tuple(draw.shape) == size, f"draw {self.used - 1}: {tuple(draw.shape)} != {size}"
        return draw.to(device)

    def assert_exhausted(self) -> None:
        assert self.used == len(self.draws)
