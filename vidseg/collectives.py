"""What a process of a run asks and tells the others; without a process group it is alone."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

__all__ = ["agree", "barrier", "gather", "is_main", "rank", "sum_over_ranks", "world_size"]


def rank() -> int:
    """Number of this process among all of the run, 0 without a process group."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def world_size() -> int:
    """How many processes the run has, 1 without a process group."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def is_main() -> bool:
    """Tells whether this process writes the files of the run."""
    return rank() == 0


def barrier() -> None:
    """Waits until every process is here."""
    if world_size() > 1:
        dist.barrier()


def agree(flag: bool, device: torch.device) -> bool:
    """Tells every process whether the flag is up in any of them.

    Args:
        flag: this process's own flag.
        device: where the process group can reduce a tensor.
    """
    if world_size() == 1:
        return flag
    value = torch.tensor([float(flag)], device=device)
    dist.all_reduce(value, op=dist.ReduceOp.MAX)
    return bool(value.item())


def gather(value: Any) -> list[Any]:
    """Collects one picklable object of every process, in the order of ranks."""
    if world_size() == 1:
        return [value]
    values: list[Any] = [None] * world_size()
    dist.all_gather_object(values, value)
    return values


def sum_over_ranks(values: Tensor) -> Tensor:
    """Adds up a tensor of one shape over all ranks; gradients are added up likewise.

    Args:
        values: any shape, the same in every process.
    """
    return values if world_size() == 1 else _Sum.apply(values)  # type: ignore


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        return _all_reduced(values)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore
        return _all_reduced(gradient)


def _all_reduced(values: Tensor) -> Tensor:
    total = values.detach().clone(memory_format=torch.contiguous_format)
    dist.all_reduce(total)
    return total
