"""The batched detector finds what ``blob_log`` finds."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage.feature import blob_log

from tests.projects.persistence.support_detector import SETTINGS, random_frames
from vidseg.projects.persistence.detector import BlobDetector


def detector(**changed: object) -> BlobDetector:
    return BlobDetector(**{**SETTINGS, "max_per_frame": 64, **changed})  # type: ignore[arg-type]


def assert_same_as_blob_log(grey: torch.Tensor, **changed: object) -> int:
    settings = {**SETTINGS, **changed}
    found = detector(**changed).detect_blobs(grey)
    for frame, blobs in zip(grey, found, strict=True):
        np.testing.assert_array_equal(blobs, blob_log(frame.double().numpy(), **settings))
    return sum(len(blobs) for blobs in found)


@pytest.mark.parametrize(("side", "num_frames"), [(64, 100), (128, 30)])
def test_random_frames(side: int, num_frames: int) -> None:
    frames = random_frames(np.random.default_rng(side), num_frames, side, side)
    assert assert_same_as_blob_log(torch.from_numpy(frames) / 255) > num_frames
