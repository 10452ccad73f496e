"""Errors of guessed slots, and which slots hold objects."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vidseg.projects.slot_bert.hidden_frames import (
    dropped_frame_shares,
    object_slots,
    slot_errors,
)


def test_errors_of_slots() -> None:
    truth = torch.tensor([[1.0, 0.0, 0.0, -1.0]])
    same = slot_errors(3 * truth, truth)
    assert same["cosine_error"].item() == pytest.approx(0, abs=1e-6)
    assert same["norm_error"].item() == pytest.approx(0, abs=1e-4)
    opposite = slot_errors(-truth, truth)
    assert opposite["cosine_error"].item() == pytest.approx(2)
    # Normalised, the ends are 2 sqrt(2) apart: smooth L1 takes half off each, and two of four are.
    assert opposite["norm_error"].item() == pytest.approx((8**0.5 - 0.5) / 2, abs=1e-3)
    shifted = slot_errors(truth + 5, truth)
    assert shifted["norm_error"].item() == pytest.approx(0, abs=1e-4)
    assert shifted["cosine_error"].item() > 0.5


def test_slots_of_objects() -> None:
    labels = np.zeros((2, 4, 4), np.int16)
    labels[0, 0], labels[:, 2], labels[1, 3] = 1, 2, -1
    segments = np.zeros((2, 4, 4), np.int64)
    segments[:, 0], segments[:, 2, 1:], segments[:, 3] = 3, 1, 2
    assert object_slots(labels, segments, 5).tolist() == [False, True, False, True, False]
    assert not object_slots(np.zeros_like(labels), segments, 5).any()


def test_only_dropped_frames_count() -> None:
    generator = torch.Generator().manual_seed(0)
    seen = torch.randn(5, 3, 4, generator=generator)
    dropped = torch.tensor([False, True, False, False, True])
    guess, interpolated = seen.clone(), seen.clone()
    guess[0] = interpolated[2] = 7.0  # looked at: whatever stands there
    guess[1, 0] = -seen[1, 0]
    interpolated[[1, 4]] = -seen[[1, 4]]
    prediction = {"slots": guess, "slots_corrected": interpolated, "slots_seen": seen}
    found = dropped_frame_shares(prediction, dropped)
    assert found["cosine_error"] == (pytest.approx(2, abs=1e-5), 6)
    assert found["cosine_error_interpolated"] == (pytest.approx(12, abs=1e-5), 6)
    assert not any(name.startswith("object") for name in found)

    labels = np.zeros((5, 2, 2), np.int16)
    labels[:, 0] = 1
    segments = torch.zeros(5, 2, 2, dtype=torch.int64)
    segments[:, 0] = 2
    segments[dropped, 0] = 1  # a guess: it does not tell whose slot it is
    found = dropped_frame_shares({**prediction, "segmentation": segments}, dropped, labels)
    assert found["object_cosine_error"] == (pytest.approx(0, abs=1e-5), 2)
    assert found["object_cosine_error_interpolated"] == (pytest.approx(4, abs=1e-5), 2)
