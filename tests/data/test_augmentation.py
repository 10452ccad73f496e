from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from vidseg.data.augmentation import (
    ClipAugmentation,
    LargeScaleJitter,
    RandomCrop,
    sample_frames,
)
from vidseg.data.transforms import Blend, Crop, Flip, Pad, Resize
from vidseg.errors import ConfigError

PUBLISHED: dict[str, Any] = {
    "min_sizes": (320, 352, 392, 416, 448, 480, 512, 544, 576, 608, 640),
    "max_size": 768,
    "crop": RandomCrop("absolute_range", (384, 600)),
}


def _plans(augmentation: ClipAugmentation, count: int = 400) -> list[Any]:
    return [augmentation.draw(np.random.default_rng(seed), (360, 640), 3) for seed in range(count)]


def test_published_settings() -> None:
    plans = _plans(ClipAugmentation(**PUBLISHED))
    cropped = [plan for plan in plans if isinstance(plan.shared[1:2] and plan.shared[1], Crop)]
    assert 0.4 < len(cropped) / len(plans) < 0.6
    for plan in cropped:
        first, crop = plan.shared[0], plan.shared[1]
        assert isinstance(first, Resize)
        assert min(first.size) in (400, 500, 600)
        for side, whole in zip(crop.size, first.size, strict=True):
            assert min(whole, 384) <= side <= min(whole, 600)
        assert crop.top + crop.size[0] <= first.size[0]
        assert crop.left + crop.size[1] <= first.size[1]
    for plan in plans:
        last = [step for step in plan.shared if isinstance(step, Resize)][-1]
        assert last.size == plan.size
        assert max(plan.size) <= 768
        assert min(plan.size) in PUBLISHED["min_sizes"] or max(plan.size) == 768
        assert not plan.rotations
    flipped = sum(isinstance(plan.shared[-1], Flip) for plan in plans)
    assert 0.4 < flipped / len(plans) < 0.6


def test_pseudo_clips_turn_smoothly() -> None:
    plans = _plans(ClipAugmentation(**PUBLISHED, extra=("rotation",), moving_rotation=True))
    rising = 0
    for plan in plans:
        angles = [rotation.angle for rotation in plan.rotations]
        assert len(angles) == 3
        assert max(map(abs, angles)) <= 15
        assert len({rotation.center for rotation in plan.rotations}) == 1
        assert angles == sorted(angles) or angles == sorted(angles, reverse=True)
        rising += angles == sorted(angles)
    assert 0.4 < rising / len(plans) < 0.6


def test_clip_rotation_is_one_angle_and_colours_come_before() -> None:
    extra = ("rotation", "saturation", "brightness", "contrast")
    for plan in _plans(ClipAugmentation((100,), 500, extra=extra), 20):
        assert len({rotation.angle for rotation in plan.rotations}) == 1
        blends = [step for step in plan.shared if isinstance(step, Blend)]
        assert [blend.kind for blend in blends] == ["brightness", "contrast", "saturation"]
        assert all(0.9 <= blend.weight <= 1.1 for blend in blends)


@pytest.mark.parametrize(
    ("kind", "size", "low", "high"),
    [
        ("relative", (0.5, 0.25), (50, 50), (50, 50)),
        ("relative_range", (0.5, 0.25), (50, 50), (100, 200)),
        ("absolute", (30, 500), (30, 200), (30, 200)),
        ("absolute_range", (40, 150), (40, 40), (100, 150)),
    ],
)
def test_crop_sizes(kind: str, size: Any, low: Any, high: Any) -> None:
    crop = RandomCrop(kind, size, min_sizes=(), probability=1.0)
    for seed in range(50):
        (step,) = crop.draw(np.random.default_rng(seed), (100, 200))
        assert isinstance(step, Crop)
        for axis in (0, 1):
            assert low[axis] <= step.size[axis] <= high[axis]


def test_large_scale_jitter() -> None:
    augmentation = ClipAugmentation((0,), 1, jitter=LargeScaleJitter(64, 0.1, 2.0), flip="none")
    for plan in _plans(augmentation, 30):
        assert plan.size == (64, 64)
        assert isinstance(plan.shared[-1], Pad)
        assert max(plan.shared[1].size) <= 64


def test_range_sampling_and_vertical_flip() -> None:
    augmentation = ClipAugmentation((90, 100), 500, sampling="range", flip="vertical")
    plans = _plans(augmentation, 60)
    assert {min(plan.size) for plan in plans} == set(range(90, 101))
    assert any(getattr(plan.shared[-1], "vertical", False) for plan in plans)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"flip": "flip_by_clips"}, "INPUT.RANDOM_FLIP cannot be .*flip_by_clip"),
        ({"sampling": "choise"}, "SAMPLING cannot be 'choise'; did you mean choice"),
        ({"extra": ("rotate",)}, "INPUT.AUGMENTATIONS cannot be 'rotate'; did you mean rotation"),
        ({"min_sizes": ()}, "INPUT.MIN_SIZE_TRAIN is empty"),
    ],
)
def test_wrong_names(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ClipAugmentation(**{"min_sizes": (10,), "max_size": 20, **change})
    with pytest.raises(ConfigError, match=r"CROP.TYPE cannot be 'absolut'"):
        RandomCrop("absolut", (1, 1))


def test_contiguous_clips() -> None:
    starts = set()
    for seed in range(200):
        frames = sample_frames(9, 5, 2, np.random.default_rng(seed))
        assert frames == list(range(frames[0], frames[0] + 5))
        starts.add(frames[0])
    assert starts == {0, 1, 2, 3}  # as published, never the last start


def test_clips_of_one_frame_videos_repeat_it() -> None:
    rng = np.random.default_rng(0)
    for num_frames, reach in ((5, 2), (10, 15), (1, 20), (2, 20)):
        assert sample_frames(1, num_frames, reach, rng) == [0] * num_frames


def test_shuffle_and_reverse() -> None:
    orders = {
        tuple(sample_frames(5, 5, 2, np.random.default_rng(seed), reverse=True))
        for seed in range(30)
    }
    assert orders == {(0, 1, 2, 3, 4), (4, 3, 2, 1, 0)}
    frames = sample_frames(20, 15, 7, np.random.default_rng(3), shuffle=True)
    assert sorted(frames) != frames
    assert sorted(frames) == list(range(min(frames), min(frames) + 15))
