"""SOLV's protocol against recorded figures."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tests.golden_utils import GOLDEN
from vidseg.evaluation.discovery import label_map, mean_shares
from vidseg.evaluation.merged_discovery import merged_shares


def test_recorded_figures() -> None:
    expected = json.loads((GOLDEN / "discovery" / "expected.json").read_text())
    recorded = expected["solv_protocol_no_overlap"]
    arrays = np.load(GOLDEN / "discovery" / "no_overlap.npz")
    videos = [
        merged_shares(label_map(arrays[f"v{n}/masks"]), arrays[f"v{n}/slots"]) for n in range(6)
    ]
    assert sum(v["mIoU"][1] for v in videos) == recorded["n_objects"]
    assert sum(v["FG-ARI"][1] for v in videos) == recorded["n_videos"]
    found = mean_shares(videos)
    # The evaluator that these were recorded from computes in single precision.
    assert found["mIoU"] == pytest.approx(recorded["miou"], abs=3e-8)
    assert found["FG-ARI"] == pytest.approx(recorded["fg_ari"], abs=3e-8)


def test_segments_without_an_object_are_one() -> None:
    labels = np.zeros((2, 4, 6), np.int64)
    labels[:, :, :2] = 1
    segments = labels.copy()
    segments[:, 2:, :2] = np.array([3, 4])  # half of the object is in segments of their own
    found = merged_shares(labels, segments)
    assert found["mIoU"] == (0.5, 1)
    assert found == merged_shares(labels, np.where(segments > 2, 0, segments))


def test_single_pixels_and_no_pixels() -> None:
    labels = np.zeros((2, 3, 3), np.int64)
    segments = np.zeros_like(labels)
    assert merged_shares(labels, segments) == {"mIoU": (0, 0), "FG-ARI": (0, 0)}
    labels[0, 0, 0] = segments[0, 0, 0] = 1
    assert merged_shares(labels, segments) == {"mIoU": (1, 1), "FG-ARI": (0, 0)}
