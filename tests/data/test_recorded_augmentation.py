"""Fed with the draws of recorded clips, the augmentation plans exactly the recorded operations."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from tests.golden_utils import GOLDEN
from vidseg.data.augmentation import ClipAugmentation, RandomCrop
from vidseg.data.transforms import Crop, Flip, Resize

RECORDED: dict[str, list[list[dict[str, Any]]]] = json.loads(
    (GOLDEN / "dvis_daq_training" / "augmentation_by_clip" / "transforms.json").read_text()
)
CLIPS = [(branch, clip) for branch, clips in RECORDED.items() for clip in clips]
SIZES = (320, 352, 392, 416, 448, 480, 512, 544, 576, 608, 640)
FRAME = (360, 640)


class Draws:
    """Stands in for a random generator: gives recorded values if they could have been drawn."""

    def __init__(self, clip: list[dict[str, Any]]) -> None:
        steps = clip[0]["steps"]
        kinds = [step["type"] for step in steps]
        self.angles = [
            step["angle"] for frame in clip for step in frame["steps"] if "angle" in step
        ]
        crops = [step for step in steps if step["type"] == "CropTransform"]
        resizes = [step for step in steps if step["type"] == "ResizeTransform"]
        self.sides = [min(step["new_h"], step["new_w"]) for step in resizes]
        self.numbers = [int(crop[key]) for crop in crops for key in ("h", "w", "y0", "x0")]
        falling = self.angles == sorted(self.angles, reverse=True)
        self.coins = [bool(crops), "HFlipTransform" in kinds, *([falling] if self.angles else [])]

    def random(self) -> float:
        return 0.25 if self.coins.pop(0) else 0.75

    def choice(self, choices: Sequence[int]) -> int:
        # Where the longer side was the limit, any larger choice gives the recorded size.
        side = self.sides.pop(0)
        return min(choice for choice in choices if choice >= side)

    def integers(self, low: int, high: int | None = None) -> int:
        low, high = (0, low) if high is None else (low, high)
        number = self.numbers.pop(0)
        assert low <= number < high
        return number

    def uniform(self, low: float, high: float, size: int | None = None) -> Any:
        if size is None:
            return (low + high) / 2  # the centre of the rotation was not recorded
        assert all(low <= angle <= high for angle in self.angles)
        assert len(self.angles) == size
        return np.array(self.angles)

    def used_up(self) -> bool:
        return not (self.coins or self.sides or self.numbers)


def recorded_steps(steps: list[dict[str, Any]]) -> list[Any]:
    planned: list[Any] = []
    for step in steps:
        if step["type"] == "ResizeTransform":
            sizes = [(int(step[h]), int(step[w])) for h, w in (("h", "w"), ("new_h", "new_w"))]
            planned.append(Resize(*sizes))
        elif step["type"] == "CropTransform":
            planned.append(Crop(int(step["y0"]), int(step["x0"]), (int(step["h"]), int(step["w"]))))
        elif step["type"] == "HFlipTransform":
            planned.append(Flip(planned[-1].size))
    return planned


@pytest.mark.parametrize(("branch", "clip"), CLIPS)
def test_plans_are_the_recorded_ones(branch: str, clip: list[dict[str, Any]]) -> None:
    pseudo = branch == "pseudo"
    augmentation = ClipAugmentation(
        SIZES,
        768,
        crop=RandomCrop("absolute_range", (384, 600)),
        extra=("rotation",) if pseudo else (),
        moving_rotation=pseudo,
    )
    draws = Draws(clip)
    plan = augmentation.draw(draws, FRAME, len(clip))  # type: ignore[arg-type]
    assert draws.used_up()
    for frame in clip:
        assert plan.shared == recorded_steps(frame["steps"])
        assert list(plan.size) == frame["out"]
    assert [rotation.angle for rotation in plan.rotations] == draws.angles
    assert len(plan.rotations) == (len(clip) if pseudo else 0)
