"""Worker of a test: a full model trained by two processes that see unlike batches."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from tests.projects.persistence.token_samples import FULL, build, sample
from vidseg.collectives import rank
from vidseg.engine.distributed import process_group


def train() -> dict[str, Tensor]:
    """Process 0 sees both classes, process 1 in turn one class, clips without labels, no blob."""
    model = build(**FULL).train()
    parallel = DistributedDataParallel(model)
    optimizer = torch.optim.SGD(model.parameters(), 1e-2)
    unlabelled = sample(3)
    for name in ("labels", "object_ids", "durations"):
        unlabelled[name] = torch.full_like(unlabelled[name], -1)
    unlabelled["objects"] = {name: rows[:0] for name, rows in unlabelled["objects"].items()}
    for other in (sample(1), unlabelled, sample(0)):
        own = sample(4) if rank() == 0 else other
        optimizer.zero_grad()
        torch.stack(list(parallel([own]).values())).sum().backward()
        optimizer.step()
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def main(folder: str) -> None:
    with process_group(torch.device("cpu")):
        torch.save(train(), Path(folder) / f"{rank()}.pth")


if __name__ == "__main__":
    main(sys.argv[1])
