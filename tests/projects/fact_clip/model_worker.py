"""Worker of a test: the whole model fitted and trained by two processes, each on its videos."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from tests.projects.fact_clip.small_model import build, runs, video
from vidseg.collectives import rank, world_size
from vidseg.engine.distributed import process_group

STEPS = 4


def train() -> dict[str, Tensor]:
    """Gives the weights and the weight of the null class."""
    model = build(FACT__block="iuU", FACT__standardize=True).train()
    samples = [
        video(runs((0, 9), (3, 14), (1, 5)), 0),
        video(runs((2, 30)), 1),
        video(runs((4, 3), (5, 8), (4, 6), (1, 2)), 2),
        video(runs((1, 12), (0, 1)), 3),
    ]
    samples[1]["features"] += 20  # the processes do not see the same scale
    share = len(samples) // world_size()
    own = samples[rank() * share : (rank() + 1) * share]
    parallel: Any = DistributedDataParallel(model) if world_size() > 1 else model
    optimizer = torch.optim.SGD(model.parameters(), 1e-2)
    for step in range(STEPS):
        model.at_iteration(step, STEPS, lambda: [own])
        optimizer.zero_grad()
        torch.stack(list(parallel(own).values())).sum().backward()
        optimizer.step()
    found = {name: value.detach().clone() for name, value in model.state_dict().items()}
    assert model.criterion.null_weight is not None
    return {**found, "null_weight": torch.tensor(model.criterion.null_weight)}


def main(folder: str) -> None:
    with process_group(torch.device("cpu")):
        torch.save(train(), Path(folder) / f"{rank()}.pth")


if __name__ == "__main__":
    main(sys.argv[1])
