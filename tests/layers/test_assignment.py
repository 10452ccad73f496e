"""The assignment of graphs against SciPy's."""

from __future__ import annotations

import pytest
import torch

from vidseg.assignment import linear_sum_assignment
from vidseg.layers.assignment import assign_rows


def expected(cost: torch.Tensor, present: torch.Tensor) -> torch.Tensor:
    columns = torch.full((len(cost),), -1)
    rows, chosen = linear_sum_assignment(cost[present].numpy())
    columns[present.nonzero()[:, 0][torch.from_numpy(rows)]] = torch.from_numpy(chosen)
    return columns


@pytest.mark.parametrize(("rows", "columns"), [(9, 4), (4, 9), (6, 6), (1, 1)])
def test_any_rows_may_take_part(rows: int, columns: int) -> None:
    for count in range(rows + 1):
        cost = torch.rand(rows, columns) * 2
        present = torch.zeros(rows, dtype=torch.bool)
        present[torch.randperm(rows)[:count]] = True
        assert torch.equal(assign_rows(cost, present), expected(cost, present))


def test_costs_may_be_negative_and_equal() -> None:
    present = torch.ones(5, dtype=torch.bool)
    cost = torch.randn(5, 7) * 100
    assert torch.equal(assign_rows(cost, present), expected(cost, present))
    assert sorted(assign_rows(torch.ones(5, 7), present).tolist()) == sorted(
        set(assign_rows(torch.ones(5, 7), present).tolist())
    )
