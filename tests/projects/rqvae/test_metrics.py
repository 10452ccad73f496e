"""Figures about codes against values that can be worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from vidseg.projects.rqvae.metrics import (
    centred_energy,
    codebook_usage,
    expected_utilization,
    is_limited_by_data,
    rates,
    snr,
    usage_by_position,
)


def test_usage_of_uniform_one_and_no_codes() -> None:
    usage = codebook_usage(np.array([[5, 5, 5, 5], [0, 12, 0, 0], [0, 0, 0, 0]]))
    assert usage.num_vectors.tolist() == [20, 12, 0]
    assert usage.utilization.tolist() == [1, 0.25, 0]
    assert usage.dead_codes.tolist() == [0, 3, 4]
    assert usage.perplexity[:2] == pytest.approx([4, 1])
    assert usage.perplexity_ratio[:2] == pytest.approx([1, 0.25])
    assert usage.top_share[:2].tolist() == [0.25, 1]
    assert np.isnan(usage.perplexity[2])
    assert np.isnan(usage.top_share[2])


def test_perplexity_of_an_uneven_histogram() -> None:
    p = np.array([0.5, 0.25, 0.25])
    assert codebook_usage(np.array([2, 1, 1])).perplexity == pytest.approx(
        math.exp(-(p * np.log(p)).sum())
    )


def test_expected_utilization_is_what_random_codes_have() -> None:
    generator = np.random.default_rng(0)
    for num, size in ((100, 512), (1680, 512), (20, 16)):
        drawn = [len(np.unique(generator.integers(0, size, num))) / size for _ in range(200)]
        assert float(expected_utilization(num, size)) == pytest.approx(np.mean(drawn), abs=0.01)
    assert float(expected_utilization(0, 8)) == 0


def test_under_ten_vectors_for_each_entry_the_data_is_the_limit() -> None:
    assert is_limited_by_data(5119, 512)
    assert not is_limited_by_data(5120, 512)


def test_usage_by_position_equals_that_of_dense_counts() -> None:
    generator = np.random.default_rng(0)
    positions, codes = generator.integers(0, 7, 300), generator.integers(-1, 16, 300)
    positions[positions == 5] = 4  # one without vectors
    counts = np.zeros((7, 16), int)
    np.add.at(counts, (positions[codes >= 0], codes[codes >= 0]), 1)
    dense, sparse = codebook_usage(counts), usage_by_position(positions, codes, 7, 16)
    for name, values in vars(dense).items():
        np.testing.assert_allclose(getattr(sparse, name), values, err_msg=name)


def test_a_constant_predictor_scores_no_decibel() -> None:
    x = np.random.default_rng(0).normal(3, 2, (200, 5))
    energy = centred_energy(float((x**2).sum()), x.sum(0), len(x))
    error = float(((x - x.mean(0)) ** 2).sum())
    assert energy == pytest.approx(error)
    assert snr(energy, error) == pytest.approx(0, abs=1e-9)
    assert snr(energy, error / 10) == pytest.approx(10)


def test_snr_without_error_or_signal() -> None:
    assert snr(1.0, 0.0) == math.inf
    assert math.isnan(snr(0.0, 0.0))
    assert centred_energy(0.0, np.zeros(3), 0) == 0


def test_rates_of_the_nominal_document() -> None:
    kinds = {"input_dim": 1024, "num_levels": 8, "codebook_size": 512}
    found = rates(num_frames=500, num_windows=42, seconds=10, **kinds)
    assert found.codes_per_10s == 336
    assert found.frame_compression == pytest.approx(500 / 42)
    assert found.bits_per_second == pytest.approx(42 * 8 * 9 / 10)
    assert found.bit_compression == pytest.approx(32 * 500 * 1024 / (42 * 8 * 9))
    whole = rates(num_frames=500, num_windows=1, seconds=10, **kinds)
    assert (whole.frame_compression, whole.codes_per_10s) == (500, 8)
    assert math.isnan(rates(num_frames=0, num_windows=0, seconds=0, **kinds).codes_per_10s)
