"""Worker of a test: a quantiser trained by two processes, each with its share of the vectors."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import Tensor

from vidseg.collectives import rank, world_size
from vidseg.engine.distributed import process_group
from vidseg.projects.rqvae.quantizer import ResidualVectorQuantizerEMA

STEPS = 6


def share(values: Tensor) -> Tensor:
    """Unequal shares; the joined ones are in the order of the ranks."""
    if world_size() == 1:
        return values
    split = len(values) // 3
    return values[:split] if rank() == 0 else values[split:]


def train(*, revive_every: int, dropout: float) -> dict[str, Tensor]:
    data = torch.Generator().manual_seed(7)
    torch.manual_seed(11 + rank())  # processes need not agree on their random numbers
    quantizer = ResidualVectorQuantizerEMA(
        24, 5, 3, decay=0.8, revive_every=revive_every, revive_threshold=0.4, dropout=dropout
    ).train()
    vectors = torch.randn(90, 5, generator=data)
    quantizer.initialize(share(vectors), generator=torch.Generator().manual_seed(1))
    used = []
    for step in range(STEPS):
        z = torch.randn(60, 5, generator=data)
        mask = torch.rand(60, generator=data) < 0.8
        if step == 2:
            mask[:20] = False  # the first process has none
        used.append((quantizer(share(z), share(mask))[2] >= 0).any(0).sum())
    state = {name: value.clone() for name, value in quantizer.state_dict().items()}
    return state | {"revived": torch.tensor(quantizer.num_revived), "used": torch.stack(used)}


def main(folder: str) -> None:
    with process_group(torch.device("cpu")):
        found = {
            "plain": train(revive_every=0, dropout=0.0),
            "random": train(revive_every=2, dropout=0.7),
        }
        torch.save(found, Path(folder) / f"{rank()}.pth")


if __name__ == "__main__":
    main(sys.argv[1])
