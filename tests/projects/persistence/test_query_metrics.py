"""Objects given by queries against those of the clip, by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from vidseg.projects.persistence.query_metrics import QuerySums, count_queries

T = 8


def queries(*given: tuple[int, slice, float]) -> dict[str, torch.Tensor]:
    """Makes queries of (class, frames, duration); class 2 gives nothing."""
    presence = torch.full((len(given), T), 0.1)
    for row, (_, frames, _) in zip(presence, given, strict=True):
        row[frames] = 0.9
    return {
        "logits": torch.eye(3)[[one[0] for one in given]] * 4,
        "presence": presence,
        "durations": torch.tensor([one[2] for one in given]),
    }


@pytest.fixture
def objects() -> dict[str, Any]:
    presence = torch.zeros(2, T, dtype=torch.bool)
    presence[0], presence[1, 2:6] = True, True
    return {
        "labels": torch.tensor([1, 0]),
        "presence": presence,
        "durations": torch.tensor([1.0, 0.5]),
    }


def scores(given: dict[str, torch.Tensor], objects: dict[str, Any]) -> dict[str, float]:
    sums = QuerySums()
    sums.add(count_queries(given, objects))
    return sums.metrics()


def test_right_queries_in_any_order(objects: dict[str, Any]) -> None:
    none = (2, slice(0, 8), 0.7)
    found = scores(queries(none, (0, slice(2, 6), 0.5), none, (1, slice(0, 8), 0.9)), objects)
    assert found["accuracy"] == found["recall"] == found["precision"] == 100
    assert found["presence_IoU"] == 1
    assert found["duration_MAE"] == pytest.approx(0.05)
    assert found["count_error"] == 0


def test_a_wrong_class_is_found_but_not_right(objects: dict[str, Any]) -> None:
    found = scores(queries((0, slice(0, 8), 1.0), (0, slice(2, 6), 0.5)), objects)
    assert (found["accuracy"], found["recall"]) == (50, 100)


def test_a_wrong_time_is_neither(objects: dict[str, Any]) -> None:
    given = queries((1, slice(0, 8), 1.0), (0, slice(0, 2), 0.25), (0, slice(6, 8), 0.25))
    found = scores(given, objects)
    assert found["recall"] == 50
    assert found["precision"] == pytest.approx(100 / 3)
    assert found["count_error"] == 1


def test_nothing_given(objects: dict[str, Any]) -> None:
    found = scores(queries((2, slice(0, 8), 1.0)), objects)
    assert found["recall"] == 0
    assert math.isnan(found["precision"])
    assert math.isnan(found["presence_IoU"])
