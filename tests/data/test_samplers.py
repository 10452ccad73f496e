from __future__ import annotations

from collections import Counter

import pytest

from vidseg.data.samplers import DrawPlan, draw_rng, share_by_length


def test_a_fresh_plan_gives_the_same_draws_at_any_step() -> None:
    long = DrawPlan([7, 30], [1.0, 3.0], batch_size=4, seed=5)
    history = [long.batch(step) for step in range(9000)]
    for step in (8999, 0, 4095, 4096, 17):
        fresh = DrawPlan([7, 30], [1.0, 3.0], batch_size=4, seed=5)
        assert fresh.batch(step) == history[step]
        assert long.batch(step) == history[step]
    other = DrawPlan([7, 30], [1.0, 3.0], batch_size=4, seed=6)
    assert [other.batch(step) for step in range(20)] != history[:20]


def test_draws_are_numbered_and_batches_hold_one_data_set() -> None:
    plan = DrawPlan([5, 6], [1.0, 1.0], batch_size=3, seed=0)
    batches = [plan.batch(step) for step in range(50)]
    assert [draw.number for batch in batches for draw in batch] == list(range(150))
    assert all(len({draw.dataset for draw in batch}) == 1 for batch in batches)


def test_every_record_comes_once_per_round() -> None:
    plan = DrawPlan([7, 30], [1.0, 3.0], batch_size=4, seed=5)
    draws = [draw for step in range(4000) for draw in plan.batch(step)]
    for dataset, size in ((0, 7), (1, 30)):
        records = [draw.record for draw in draws if draw.dataset == dataset]
        for start in range(0, len(records) - size, size):
            assert sorted(records[start : start + size]) == list(range(size))
    share = Counter(draw.dataset for draw in draws)
    assert 0.70 < share[1] / len(draws) < 0.80


def test_zero_ratio_never_draws() -> None:
    plan = DrawPlan([2, 2], [0.0, 1.0], batch_size=1, seed=0)
    assert {plan.batch(step)[0].dataset for step in range(200)} == {1}


@pytest.mark.parametrize(
    ("sizes", "ratios", "batch"),
    [([], [], 1), ([3], [1.0, 1.0], 1), ([0], [1.0], 1), ([3], [0.0], 1), ([3], [-1.0], 1)],
)
def test_impossible_plans(sizes: list[int], ratios: list[float], batch: int) -> None:
    with pytest.raises(ValueError, match=r"cannot plan|ratios"):
        DrawPlan(sizes, ratios, batch_size=batch, seed=0)


def test_draw_generators_differ() -> None:
    values = {draw_rng(s, n, a).integers(2**62) for s in (0, 1) for n in (0, 1) for a in (0, 1)}
    assert len(values) == 8


@pytest.mark.parametrize("world", [1, 2, 3, 7])
@pytest.mark.parametrize("lengths", [[], [4], [5, 5, 5, 5], [1, 90, 30, 2, 31, 28, 3, 3]])
def test_shares_are_even_and_each_item_is_in_one(lengths: list[int], world: int) -> None:
    shares = [share_by_length(lengths, rank, world) for rank in range(world)]
    assert sorted(item for share in shares for item in share) == list(range(len(lengths)))
    assert all(share == sorted(share) for share in shares)
    loads = [sum(lengths[item] for item in share) for share in shares]
    assert max(loads) - min(loads) <= max(lengths, default=0)


def test_long_items_do_not_wait_for_short_ones() -> None:
    lengths = [1, 90, 30, 2, 31, 28, 3, 3]
    # 94 frames each, where halves of the list would have 123 and 65.
    assert [share_by_length(lengths, rank, 2) for rank in range(2)] == [[2, 3, 4, 5, 6], [0, 1, 7]]
