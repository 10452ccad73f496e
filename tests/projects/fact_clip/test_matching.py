"""Matching of tokens and segments against its definition, also where tokens are too few."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from vidseg.config import CfgNode
from vidseg.errors import ConfigError
from vidseg.projects.fact_clip.criterion import LossSettings, MatchCriterion
from vidseg.projects.fact_clip.matching import (
    match_cost,
    one_to_many,
    one_to_one,
    sequential,
    soft_iou,
)
from vidseg.projects.fact_clip.targets import VideoTargets

LABELS = torch.tensor([2] * 4 + [0] * 3 + [-100] * 2 + [0] * 2 + [2] * 3 + [1])


def test_segments_end_at_frames_without_label() -> None:
    targets = VideoTargets.of(LABELS)
    assert targets.transcript.tolist() == [2, 0, 0, 2, 1]
    assert targets.segments.tolist() == [0] * 4 + [1] * 3 + [2] * 2 + [3] * 3 + [4]
    assert targets.frames.tolist() == [t for t, label in enumerate(LABELS) if label >= 0]
    assert targets.labels.tolist() == [label for label in LABELS.tolist() if label >= 0]


def test_soft_iou_is_overlap_by_union() -> None:
    targets = VideoTargets.of(LABELS)
    attention = torch.randn(len(LABELS), 3).softmax(1)
    in_segment = targets.segments[:, None] == torch.arange(len(targets.transcript))  # (n, S)
    valid = attention[targets.frames]
    overlap = torch.einsum("tm,ts->ms", valid, in_segment.float())
    union = (valid[:, :, None] + in_segment[:, None, :]).clamp_max(1).sum(0)
    torch.testing.assert_close(soft_iou(attention, targets), overlap / union)


def test_cost_is_the_weighted_sum() -> None:
    targets = VideoTargets.of(LABELS)
    attention, probs = torch.randn(len(LABELS), 3).softmax(1), torch.randn(3, 4).softmax(1)
    cost = match_cost(probs, attention, targets, class_cost=0.5, overlap_cost=2.0)
    for m, s in itertools.product(range(3), range(5)):
        expected = -0.5 * probs[m, targets.transcript[s]] - 2 * soft_iou(attention, targets)[m, s]
        assert cost[m, s] == pytest.approx(float(expected), abs=1e-6)


@pytest.mark.parametrize("num_tokens", [3, 5, 7])
def test_one_to_one_is_the_cheapest_assignment(num_tokens: int) -> None:
    cost = np.random.default_rng(0).standard_normal((num_tokens, 5))
    tokens, segments = one_to_one(cost)
    assert len(set(tokens)) == len(set(segments)) == len(tokens) == min(num_tokens, 5)
    small = cost if num_tokens >= 5 else cost.T
    best = min(
        small[list(order), range(small.shape[1])].sum()
        for order in itertools.permutations(range(len(small)), small.shape[1])
    )
    assert cost[tokens, segments].sum() == pytest.approx(best)


@pytest.mark.parametrize("num_tokens", [3, 4, 9])
def test_one_to_many_gives_each_segment_a_token_of_its_class(num_tokens: int) -> None:
    transcript = np.array([2, 0, 2, 5, 0, 2])
    cost = np.random.default_rng(num_tokens).standard_normal((num_tokens, 6))
    tokens, segments = one_to_many(cost, transcript)
    assert sorted(segments) == list(range(6))
    classes: dict[int, set[int]] = {}
    for token, segment in zip(tokens, segments, strict=True):
        classes.setdefault(int(token), set()).add(int(transcript[segment]))
    assert all(len(of_token) == 1 for of_token in classes.values())

    # The definition, step by step.
    names = [0, 2, 5]
    summed = np.stack([cost[:, transcript == name].sum(1) for name in names], 1)
    rows, columns = one_to_one(summed)
    joined = {int(row): int(column) for row, column in zip(rows, columns, strict=True)}
    for token in set(range(num_tokens)) - set(joined):
        joined[token] = int(summed[token].argmin())
    for token, segment in zip(tokens, segments, strict=True):
        own = [t for t, c in sorted(joined.items()) if names[c] == transcript[segment]]
        assert token == min(own, key=lambda t: cost[t, segment])


def test_one_to_many_with_fewer_tokens_than_classes_serves_as_many_classes() -> None:
    transcript = np.array([3, 1, 0, 1])
    cost = -np.array([[0.1, 0.9, 0.2, 0.9], [0.8, 0.1, 0.1, 0.1]])
    tokens, segments = one_to_many(cost, transcript)
    assert dict(zip(segments.tolist(), tokens.tolist(), strict=True)) == {1: 0, 3: 0, 0: 1}


def test_costs_that_are_not_finite_are_matched_last() -> None:
    cost = np.array([[np.nan, 0.0], [0.0, 0.0], [0.5, 1.0]])
    tokens, segments = one_to_one(cost)
    assert (0, 0) not in set(zip(tokens.tolist(), segments.tolist(), strict=True))


@pytest.mark.parametrize("sizes", [(4, 3), (3, 4)])
def test_sequential_goes_as_far_as_there_are_both(sizes: tuple[int, int]) -> None:
    tokens, segments = sequential(*sizes)
    assert tokens.tolist() == segments.tolist() == [0, 1, 2]


@pytest.mark.parametrize(("match", "kind"), [("o2o", "5 segments"), ("o2m", "3 classes")])
def test_too_few_tokens_are_warned_of_once(
    match: str, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    criterion = MatchCriterion(LossSettings(match=match), 3)
    targets = VideoTargets.of(LABELS)
    for _ in range(2):
        found = criterion.match(torch.ones(2, 4) / 4, torch.ones(len(LABELS), 2) / 2, targets)
        assert len(found.tokens.unique()) == 2
    assert len(caplog.records) == 1
    assert kind in caplog.text
    assert "FACT.ntoken" in caplog.text


def test_tokens_that_serve_several_segments_need_no_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    criterion = MatchCriterion(LossSettings(match="o2m"), 3)
    attention = torch.randn(len(LABELS), 3).softmax(1)
    match = criterion.match(torch.randn(3, 4).softmax(1), attention, VideoTargets.of(LABELS))
    assert len(match.segments) == 5
    assert not caplog.records


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"match": "02o"}, "nearest: o2o"),
        ({"sw": -1.0}, "Loss.sw"),
        ({"bgw": float("nan")}, "Loss.bgw"),
        ({"nullw": -2.0}, "Loss.nullw"),
        ({"nullw": float("nan")}, "Loss.nullw"),
        ({"pc": 0.0, "a2fc": 0.0}, "nothing to go by"),
    ],
)
def test_bad_settings_name_their_key(change: dict[str, float], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        LossSettings(**change)  # type: ignore[arg-type]


def test_background_must_be_a_class() -> None:
    with pytest.raises(ConfigError, match="bg_class 3"):
        MatchCriterion(LossSettings(), 3, [3])


def test_a_config_may_have_the_published_keys_alone() -> None:
    cfg = CfgNode({"Loss": CfgNode({"match": "o2m", "pc": 0.2, "bgw": 0.5, "nullw": 0.05})})
    criterion = MatchCriterion(cfg, n_classes=3, bg_class=[1])
    assert criterion.settings == LossSettings(match="o2m", pc=0.2, bgw=0.5, nullw=0.05)
    assert criterion.class_weight.tolist() == [1, 0.5, 1]
    assert criterion.null_weight == 0.05
