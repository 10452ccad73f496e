"""Optimal assignment in torch's own operations, for graphs that are exported.

Elsewhere SciPy's does the same many times as fast, see ``vidseg.assignment``.

Shapes: n rows, m columns, s the larger of both.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from .recording import repeat_while

__all__ = ["assign_rows"]

_NEVER = 1e6


def assign_rows(cost: Tensor, present: Tensor) -> Tensor:
    """Assigns rows to columns, one to one, so that the sum of their costs is least.

    Args:
        cost: ``(n, m)``, finite and small against a million.
        present: bool ``(n,)``, rows that take part.

    Returns:
        The column of each row, int64 ``(n,)``; -1 for rows that are not present and, where more
        are present than there are columns, for those that are left over.

    Source: shortest augmenting paths, row by row (Jonker and Volgenant, Computing, 1987).
    """
    num_rows, num_columns = cost.shape
    size = max(num_rows, num_columns)
    places = torch.arange(num_rows, device=cost.device)
    order = torch.where(present, places, places + num_rows).argsort()  # those present come first
    wanted = cost.double()[order].masked_fill(~present[order][:, None], _NEVER)
    square = F.pad(wanted, (0, size - num_columns, 0, size - num_rows), value=_NEVER)
    count = present.sum()
    is_turned = count > num_columns  # each line needs a partner
    lines = torch.where(is_turned, square.T, square)
    partner, line_of = _assign_lines(lines, count.clamp(max=num_columns))
    ordered = torch.where(is_turned, line_of, partner)[:num_rows]
    columns = torch.zeros_like(ordered).scatter(0, order, ordered)
    return torch.where(present, columns, -1)


def _assign_lines(cost: Tensor, count: Tensor) -> tuple[Tensor, Tensor]:
    """Assigns the first ``count`` rows of ``(s, s)``; gives columns of rows, rows of columns."""
    size = len(cost)
    nobody = torch.full((size,), -1, dtype=torch.int64, device=cost.device)
    duals = cost.new_zeros(size)

    def is_left(row: Tensor, *_: Tensor) -> Tensor:
        return row < count

    def assign(
        row: Tensor, rows: Tensor, columns: Tensor, column_of: Tensor, row_of: Tensor
    ) -> tuple[Tensor, ...]:
        level, distance, before, seen, end = _shortest_path(cost, row, (rows, columns), row_of)
        slack = torch.where(seen, level - distance, 0.0)
        owner = torch.where(seen & (row_of >= 0), row_of, size)
        gain = cost.new_zeros(size + 1).scatter(0, owner, slack)[:size]
        gain = gain + torch.where(_places(rows) == row, level, 0.0)
        column_of, row_of = _augment(row, end, before, (column_of, row_of))
        return row + 1, rows + gain, columns - slack, column_of, row_of

    start = (count.new_zeros(()), duals, duals.clone(), nobody, nobody.clone())
    *_, column_of, row_of = repeat_while(is_left, assign, start)
    return column_of, row_of


def _shortest_path(
    cost: Tensor, start: Tensor, duals: tuple[Tensor, Tensor], row_of: Tensor
) -> tuple[Tensor, ...]:
    """Finds the cheapest way from a row to a free column.

    Returns:
        Its length, the columns' distances, the row before each column, the columns passed, and the
        free column.
    """
    rows, columns = duals

    def is_open(
        row: Tensor, level: Tensor, distance: Tensor, before: Tensor, *rest: Tensor
    ) -> Tensor:
        return rest[1] < 0

    def extend(
        row: Tensor, level: Tensor, distance: Tensor, before: Tensor, seen: Tensor, end: Tensor
    ) -> tuple[Tensor, ...]:
        reach = level + _at(cost, row) - _at(rows, row) - columns
        is_nearer = (reach < distance) & ~seen
        distance = torch.where(is_nearer, reach, distance)
        before = torch.where(is_nearer, row, before)
        ahead = torch.where(seen, torch.inf, distance)
        column = ahead.argmin(0)
        owner = _at(row_of, column)
        is_free = owner < 0
        seen = seen | (_places(seen) == column)
        return (
            torch.where(is_free, row, owner),
            ahead.amin(0),
            distance,
            before,
            seen,
            torch.where(is_free, column, end),
        )

    state = (
        start.clone(),
        cost.new_zeros(()),
        torch.full_like(rows, torch.inf),
        torch.zeros_like(row_of),
        torch.zeros_like(row_of, dtype=torch.bool),
        torch.full_like(start, -1),
    )
    return repeat_while(is_open, extend, state)[1:]


def _augment(
    start: Tensor, end: Tensor, before: Tensor, pairs: tuple[Tensor, Tensor]
) -> tuple[Tensor, Tensor]:
    """Gives each row on the way back from the free column the column behind it."""

    def is_open(column: Tensor, *_: Tensor) -> Tensor:
        return column >= 0

    def go_back(column: Tensor, column_of: Tensor, row_of: Tensor) -> tuple[Tensor, ...]:
        row = _at(before, column)
        left = torch.where(row == start, -1, _at(column_of, row))
        column_of = torch.where(_places(column_of) == row, column, column_of)
        row_of = torch.where(_places(row_of) == column, row, row_of)
        return left, column_of, row_of

    _, column_of, row_of = repeat_while(is_open, go_back, (end, *pairs))
    return column_of, row_of


def _at(values: Tensor, place: Tensor) -> Tensor:
    """Reads an entry without asking the host which one."""
    return values.index_select(0, place[None])[0]


def _places(values: Tensor) -> Tensor:
    return torch.arange(len(values), device=values.device)
