"""Overlays of small frames are enlarged, so that labels leave something to see."""

from __future__ import annotations

import numpy as np
import torch

from vidseg import rle
from vidseg.structures import VideoInstances
from vidseg.video.draw import Drawing, FramePainter, save_overlay
from vidseg.video.io import VideoReader


def test_masks_and_frames_grow_by_the_same_whole_factor():
    mask = np.zeros((12, 20), dtype=bool)
    mask[4:8, 5:15] = True
    painter = FramePainter((12, 20), scale=3)
    image = np.zeros((12, 20, 3), dtype=np.uint8)
    painted = painter.paint(image, [Drawing(rle.encode(mask), 1, "")])
    assert painted.shape == (36, 60, 3)
    assert np.array_equal(painted.any(axis=2), mask.repeat(3, axis=0).repeat(3, axis=1))


def test_video_is_enlarged_until_its_short_side_is_long_enough(tmp_path):
    frames = [np.full((30, 40, 3), 90, dtype=np.uint8)] * 2
    result = VideoInstances.empty((30, 40), [0, 1])
    assert len(result.scores) == 0
    assert result.scores.dtype == torch.float32
    path = save_overlay(frames, result, tmp_path / "overlay.mp4", min_side=100)
    assert VideoReader(path).info.size == (120, 160)
