"""From which query features the slots start, by either assignment."""

from __future__ import annotations

import pytest
import torch

from vidseg.config import get_cfg
from vidseg.errors import ConfigError
from vidseg.projects.dvis_daq import slots
from vidseg.projects.dvis_daq.config import add_config
from vidseg.projects.dvis_daq.slots import assign_slot_queries
from vidseg.projects.dvis_daq.tracker import VideoInstanceCutter


def best_pairs_first(similarity: torch.Tensor) -> list[int]:
    chosen, left = similarity.argmax(1).tolist(), similarity.clone()
    for _ in range(min(left.shape)):
        row, column = divmod(int(left.argmax()), left.shape[1])
        chosen[row] = column
        left[row], left[:, column] = -9.0, -9.0
    return chosen


@pytest.mark.parametrize("num_rows", [0, 1, 6, 30])
def test_greedy_takes_the_best_pairs_first(num_rows: int, monkeypatch) -> None:
    monkeypatch.setattr(slots, "linear_sum_assignment", None)  # the host is not asked
    content, table = torch.randn(num_rows, 16), torch.randn(9, 16)
    cosine = torch.cosine_similarity(content[:, None], table[None], dim=2)
    chosen = assign_slot_queries(content, table, assignment="greedy")
    assert chosen.tolist() == best_pairs_first(cosine)
    assert len(chosen.unique()) == min(num_rows, 9)


def test_greedy_and_optimal_differ_where_the_best_pair_costs_more() -> None:
    # The first row loses little by its second choice, the second row everything.
    content = torch.tensor([[1.0, 0.0, 0.9], [0.9, 0.0, 0.0]])
    table = torch.tensor([[1.0, 0.0, 0.2], [0.0, 0.0, 1.0]])
    assert assign_slot_queries(content, table).tolist() == [1, 0]
    twins = torch.tensor([[1.0, 0.0, 0.25], [0.9, 0.1, 0.0]])
    table = torch.tensor([[1.0, 0.0, 0.2], [0.9, 0.0, 0.5]])
    assert assign_slot_queries(twins, table).tolist() == [1, 0]
    assert assign_slot_queries(twins, table, assignment="greedy").tolist() == [0, 1]


def test_greedy_survives_rows_that_are_no_numbers_and_rows_that_are_all_alike() -> None:
    content = torch.ones(40, 4)
    content[3] = torch.nan
    chosen = assign_slot_queries(content, torch.randn(30, 4), assignment="greedy")
    assert ((chosen >= 0) & (chosen < 30)).all()


def test_the_config_names_the_assignment() -> None:
    cfg = get_cfg()
    add_config(cfg)
    cfg.MODEL.VIDEO_HEAD.NUM_NEW_INS = cfg.MODEL.MASK_FORMER.NUM_OBJECT_QUERIES
    assert VideoInstanceCutter.from_config(cfg)["slot_assignment"] == "optimal"
    cfg.MODEL.VIDEO_HEAD.SLOT_ASSIGNMENT = "greedy"
    assert VideoInstanceCutter.from_config(cfg)["slot_assignment"] == "greedy"
    cfg.MODEL.VIDEO_HEAD.SLOT_ASSIGNMENT = "best"
    with pytest.raises(ConfigError, match=r"SLOT_ASSIGNMENT 'best' is unknown; set one of optimal"):
        VideoInstanceCutter.from_config(cfg)
