"""The probe finds what single tokens give away, and nothing where there is nothing."""

from __future__ import annotations

import numpy as np
import pytest

from vidseg.projects.persistence.leak_probe import fit_logistic, probe_decisions, probe_features
from vidseg.projects.persistence.metrics import accuracies, count_right

NUM_CLIPS, PER_CLIP, T = 120, 40, 16


def balanced(features: np.ndarray, labels: np.ndarray, clips: np.ndarray) -> float:
    decided = probe_decisions(features, labels, clips)
    counts = count_right(decided, labels, clips, int(clips.max()) + 1)
    return 100 * float(accuracies(counts.sum(0)).balanced)


@pytest.fixture
def split() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    num = NUM_CLIPS * PER_CLIP
    labels = (rng.random(num) < 0.75).astype(np.int64)
    clips = np.repeat(np.arange(NUM_CLIPS), PER_CLIP)
    return rng.normal(size=(num, 7)), labels, clips, rng.integers(0, T, num)


def features(measured: np.ndarray, frames: np.ndarray) -> np.ndarray:
    return probe_features(measured, frames, np.full(len(frames), T))


def test_nothing_is_found_where_nothing_is(split: tuple[np.ndarray, ...]) -> None:
    measured, labels, clips, frames = split
    assert balanced(features(measured, frames), labels, clips) == pytest.approx(50, abs=3)


def test_a_colour_of_the_class_is_found(split: tuple[np.ndarray, ...]) -> None:
    measured, labels, clips, frames = split
    measured[:, 0] = 0.8 * labels + 0.1
    assert balanced(features(measured, frames), labels, clips) == 100


def test_a_size_in_the_middle_is_found_by_its_square(split: tuple[np.ndarray, ...]) -> None:
    measured, labels, clips, frames = split
    measured[:, 3] = np.where(labels == 1, 0.1, 1.0) * np.sign(measured[:, 3])
    assert balanced(features(measured, frames), labels, clips) > 99


def test_frames_without_transients_are_found(split: tuple[np.ndarray, ...]) -> None:
    measured, labels, clips, frames = split
    frames[labels == 0] = frames[labels == 0] % 12 + 2  # never in the first or last two
    assert 55 < balanced(features(measured, frames), labels, clips) < 65


def test_what_only_tells_the_clip_is_not_found(split: tuple[np.ndarray, ...]) -> None:
    clips = split[2]
    labels = (np.random.default_rng(1).random(NUM_CLIPS) < 0.5).astype(np.int64)[clips]
    inputs = np.eye(NUM_CLIPS)[clips]
    assert balanced(inputs, labels, clips) < 60
    whole = np.c_[np.ones(len(labels)), inputs] @ fit_logistic(inputs, labels)
    assert ((whole > 0) == labels).mean() == 1  # with its own clips it would be


def test_fit_is_the_minimum_of_the_weighted_loss(split: tuple[np.ndarray, ...]) -> None:
    measured, labels, _, _ = split
    measured[:, 0] += labels
    weights = fit_logistic(measured, labels)
    inputs = np.c_[np.ones(len(labels)), measured]
    mass = len(labels) / 2 / np.where(labels == 1, labels.sum(), (1 - labels).sum())
    expected = 1 / (1 + np.exp(-inputs @ weights))
    gradient = inputs.T @ (mass * (expected - labels)) + np.r_[1e-6, np.ones(7)] * weights
    assert np.abs(gradient).max() < 1e-3


def test_unlabelled_tokens_and_missing_classes(split: tuple[np.ndarray, ...]) -> None:
    measured, labels, clips, frames = split
    labels[::3] = -1
    decided = probe_decisions(features(measured, frames), labels, clips)
    assert ((decided == -1) == (labels == -1)).all()
    assert (probe_decisions(measured, np.ones_like(labels), clips) == -1).all()
    one_clip = np.zeros_like(clips)
    assert (probe_decisions(measured, labels, one_clip) == -1).all()


def test_long_clips_share_the_columns_of_the_frame_index() -> None:
    frames = np.array([0, 999, 0, 15])
    found = probe_features(np.zeros((4, 1)), frames, np.array([1000, 1000, 16, 16]))
    assert found.shape == (4, 2 + 64)
    assert found[:, 2:].argmax(1).tolist() == [0, 63, 0, 60]
