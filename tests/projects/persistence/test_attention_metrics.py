"""Attention ratios by hand, the exact 1 of indifference, and clips that have no ratio."""

from __future__ import annotations

import math

import numpy as np
import pytest

from vidseg.projects.persistence.attention_metrics import (
    MIN_CLIPS,
    AttentionFigures,
    AttentionSums,
    attention_metrics,
)

LABELS = np.array([1, 1, 0, -1])
FRAMES = np.array([0, 1, 1, 2])


def figures(*clips: tuple[np.ndarray, np.ndarray]) -> AttentionFigures:
    sums = AttentionSums()
    for weights, labels in clips:
        sums.add(weights, labels, np.zeros(len(labels), int), 1)
    return sums.figures()


def test_uniform_attention_gives_exactly_one() -> None:
    rng = np.random.default_rng(0)
    clips = []
    for _ in range(50):
        labels = rng.permutation([1] * rng.integers(1, 40) + [0] * rng.integers(1, 20) + [-1] * 3)
        clips.append((np.full(len(labels), np.float32(1 / len(labels)), np.float64), labels))
    found = figures(*clips)
    assert found.ratio == 1.0
    assert found.ratio_median == 1.0
    assert found.ratio_interval == (1.0, 1.0)
    assert found.lift == pytest.approx(1, abs=1e-6)
    assert found.entropy == pytest.approx(1, abs=1e-6)


def test_figures_by_hand() -> None:
    one = (np.array([0.4, 0.2, 0.1, 0.3]), LABELS)
    other = (np.array([0.1, 0.1, 0.8]), np.array([1, 0, -1]))
    found = figures(*[one] * 15, *[other] * 10)
    assert found.num_clips == 25
    assert found.ratio == pytest.approx((15 * 0.3 + 10 * 0.1) / (15 * 0.1 + 10 * 0.1))
    assert found.ratio_median == pytest.approx(3)
    assert found.lift == pytest.approx((15 * 0.6 + 10 * 0.1) / (15 / 2 + 10 / 3))
    low, high = found.ratio_interval
    assert 1 < low < found.ratio < high < 3


def test_clips_of_one_class_have_no_ratio() -> None:
    clip = (np.array([0.4, 0.2, 0.1, 0.3]), LABELS)
    alone = (np.array([0.9, 0.1]), np.array([1, 1]))
    assert figures(*[clip] * 20, *[alone] * 30).ratio == figures(*[clip] * 20).ratio
    assert figures(*[clip] * 20, *[alone] * 30).num_clips == 20


@pytest.mark.parametrize(("num_clips", "defined"), [(MIN_CLIPS - 1, False), (MIN_CLIPS, True)])
def test_few_clips_have_no_ratio(num_clips: int, defined: bool) -> None:
    found = figures(*[(np.array([0.4, 0.2, 0.1, 0.3]), LABELS)] * num_clips)
    for value in (found.ratio, found.ratio_median, found.lift, *found.ratio_interval):
        assert math.isnan(value) != defined
    assert 0 < found.entropy < 1
    assert found.num_clips == num_clips


def test_entropy_of_all_on_one_is_zero_and_a_single_token_has_none() -> None:
    assert figures((np.array([1.0, 0.0]), np.array([1, 0]))).entropy == 0
    assert math.isnan(figures((np.array([1.0]), np.array([1]))).entropy)
    assert math.isnan(figures((np.zeros(0), np.zeros(0, int))).entropy)


def test_no_attention_to_transient_tokens_is_an_infinite_ratio() -> None:
    found = figures(*[(np.array([1.0, 0.0]), np.array([1, 0]))] * 20)
    assert found.ratio == math.inf
    assert found.lift == 2


def test_curves_are_the_mass_per_frame_and_group() -> None:
    sums = AttentionSums()
    sums.add(np.array([0.4, 0.2, 0.1, 0.3]), LABELS, FRAMES, 3)
    sums.add(np.array([0.6, 0.4]), np.array([1, 0]), np.array([0, 4]), 5)
    curves = sums.figures().curves
    assert curves[0].tolist() == pytest.approx([0.5, 0, 0])
    assert curves[1].tolist() == pytest.approx([0.1, 0.05, 0])
    assert curves[2].tolist() == pytest.approx([0, 0, 0.15])
    assert curves[4].tolist() == pytest.approx([0, 0.4, 0])  # of the only clip that is so long


def test_last_layer_is_found_by_number() -> None:
    def one(weight: float) -> AttentionFigures:
        return figures(*[(np.array([weight, 1 - weight]), np.array([1, 0]))] * 20)

    sources = {"summary": one(0.9), "layer 9": one(0.5), "layer 10": one(0.75)}
    flat = attention_metrics(sources)
    assert flat["last_layer/ratio"] == flat["layer_10/ratio"] == pytest.approx(3)
    assert flat["summary/ratio"] == pytest.approx(9)
    assert "last_layer/ratio" not in attention_metrics({"summary": one(0.9)})
