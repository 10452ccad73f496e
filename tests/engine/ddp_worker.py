"""Worker of a data-parallel test: trains a linear model on its share of each batch."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import torch

from tests.engine.test_trainer import batch, make_trainer, spoil
from vidseg.collectives import is_main, rank, world_size
from vidseg.engine.distributed import process_group


def shares(start: int) -> Iterator[list[dict[str, Any]]]:
    while True:
        samples = batch(start)
        if start == 2:
            samples = spoil(samples, 3)  # one rank alone sees it; all must skip the step
        yield samples[rank() :: world_size()]
        start += 1


def main(path: str) -> None:
    with process_group(torch.device("cpu")):
        trainer = make_trainer(make_loader=shares, accumulation=2)
        trainer.train()
        if is_main():
            torch.save(trainer.model.state_dict(), path)


if __name__ == "__main__":
    main(sys.argv[1])
