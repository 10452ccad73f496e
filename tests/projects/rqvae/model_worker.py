"""Worker of a test: the whole model fitted and trained by two processes, each on its documents."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from tests.projects.rqvae.support import FULL, build, document
from vidseg.collectives import rank, world_size
from vidseg.engine.distributed import process_group

STEPS, LENGTH = 6, 100


def train() -> dict[str, Tensor]:
    """Documents have one length, so that means over processes are those over all documents."""
    # Codebooks so small that none of their entries is a single vector: what that would leave over
    # is rounding, and by that the next level would be drawn.
    sizes = {"codebook_size": 4, "num_codebooks": 3, "max_seq_len": LENGTH}
    model = build(fitted=False, warmup_fraction=0.5, **sizes, **FULL).train()
    documents = [document(LENGTH, seed) for seed in range(4)]
    documents[1] += 20  # the processes do not see the same scale
    samples = [{"features": one, "video_id": str(n)} for n, one in enumerate(documents)]
    share = len(samples) // world_size()
    own = samples[rank() * share : (rank() + 1) * share]
    parallel: Any = DistributedDataParallel(model) if world_size() > 1 else model
    optimizer = torch.optim.SGD(model.parameters(), 1e-2)
    for step in range(STEPS):
        torch.manual_seed(step)
        model.at_iteration(step, STEPS, lambda: [own])
        optimizer.zero_grad()
        torch.stack(list(parallel(own).values())).sum().backward()
        optimizer.step()
    model.at_iteration(STEPS, STEPS, lambda: [own])
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def main(folder: str) -> None:
    with process_group(torch.device("cpu")):
        torch.save(train(), Path(folder) / f"{rank()}.pth")


if __name__ == "__main__":
    main(sys.argv[1])
