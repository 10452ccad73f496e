"""The vectors that count, as rows: gathered from all processes, and put back in their places."""

from __future__ import annotations

import torch
from torch import Tensor, distributed

from vidseg.collectives import gather, is_main, world_size

__all__ = ["gather_rows", "place"]


def place(rows: Tensor, z: Tensor, mask: Tensor | None, value: int) -> Tensor:
    """Puts rows where the mask is True, and a value elsewhere.

    Args:
        rows: ``(M, n)``.
        z: ``(..., V)``, what the rows were taken from.
        mask: ``(...)`` bool, True M times; None if the rows are all there are.
        value: for the others.

    Returns:
        ``(..., n)``.
    """
    if mask is None:
        return rows.view(*z.shape[:-1], rows.shape[1])
    out = rows.new_full((*z.shape[:-1], rows.shape[1]), value)
    out[mask] = rows
    return out


def gather_rows(rows: Tensor) -> Tensor:
    """Joins the rows of all processes in the first one; the others keep their own.

    Args:
        rows: ``(M, V)``, of any number in each process.

    Raises:
        ValueError: if no process has any.
    """
    numbers = gather(len(rows))
    if not sum(numbers):
        raise ValueError("there are no vectors to initialise the codebooks from")
    if world_size() == 1:
        return rows
    padded = rows.new_zeros(max(numbers), rows.shape[1])
    padded[: len(rows)] = rows
    parts = [torch.empty_like(padded) for _ in numbers] if is_main() else None
    distributed.gather(padded, parts, 0)
    if parts is None:
        return rows
    return torch.cat([part[:number] for part, number in zip(parts, numbers, strict=True)])
