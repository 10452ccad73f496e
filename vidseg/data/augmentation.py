"""Random augmentation of clips: every choice is drawn once and holds for all frames.

Order, as published: crop half of the clips, resize, flip, then colours and rotation.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from vidseg.errors import ConfigError, nearest

from .transforms import Blend, Crop, Flip, Pad, Resize, Rotate, Transform, shortest_edge_size

__all__ = ["ClipAugmentation", "ClipPlan", "LargeScaleJitter", "RandomCrop", "sample_frames"]

_FLIPS = ("none", "horizontal", "vertical", "flip", "flip_by_clip")
_SAMPLINGS = ("choice", "range", "choice_by_clip", "range_by_clip")
_CROPS = ("relative", "relative_range", "absolute", "absolute_range")
_BLENDS = ("brightness", "contrast", "saturation")
_BLEND_RANGE = (0.9, 1.1)
_MAX_ANGLE = 15.0
_CENTER_RANGE = (0.4, 0.6)

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ClipPlan:
    """What was drawn for one clip.

    Args:
        shared: operations of all frames.
        rotations: one per frame, after the shared ones; empty if there are none.
        size: (H, W) of the result.
    """

    shared: list[Transform]
    rotations: list[Rotate]
    size: tuple[int, int]


@dataclass(frozen=True)
class RandomCrop:
    """Crops half of the clips, after resizing them to a size of their own.

    Args:
        kind: ``"relative"`` (``size`` is a fraction), ``"relative_range"`` (at least a fraction),
            ``"absolute"`` (pixels) or ``"absolute_range"`` (``size`` is the least and the most).
        size: two numbers, see ``kind``.
        min_sizes: shorter sides to draw from before the crop; empty: crop the image as it is.
        max_size: bound of the longer side before the crop.
        probability: of cropping at all.
    """

    kind: str
    size: tuple[float, float]
    min_sizes: tuple[int, ...] = (400, 500, 600)
    max_size: int = 1333
    probability: float = 0.5

    def __post_init__(self) -> None:
        """Checks the kind."""
        _check_choice("INPUT.PSEUDO.CROP.TYPE", self.kind, _CROPS)

    def draw(self, rng: np.random.Generator, size: tuple[int, int]) -> list[Transform]:
        """Gives the operations for a clip of ``size`` (H, W), possibly none."""
        if rng.random() >= self.probability:
            return []
        transforms: list[Transform] = []
        if self.min_sizes:
            target = shortest_edge_size(*size, int(rng.choice(self.min_sizes)), self.max_size)
            transforms.append(Resize(size, target))
            size = target
        crop = self._crop_size(rng, size)
        top, left = (
            int(rng.integers(side - part + 1)) for side, part in zip(size, crop, strict=True)
        )
        return [*transforms, Crop(top, left, crop)]

    def _crop_size(self, rng: np.random.Generator, size: tuple[int, int]) -> tuple[int, int]:
        first, second = self.size
        if self.kind == "absolute":
            sides = [min(size[0], int(first)), min(size[1], int(second))]
        elif self.kind == "absolute_range":
            sides = [
                int(rng.integers(min(side, int(first)), min(side, int(second)) + 1))
                for side in size
            ]
        else:
            shares = np.array(self.size, dtype=np.float64)
            if self.kind == "relative_range":
                shares = shares + rng.random(2) * (1.0 - shares)
            sides = [int(side * share + 0.5) for side, share in zip(size, shares, strict=True)]
        return max(sides[0], 1), max(sides[1], 1)


@dataclass(frozen=True)
class LargeScaleJitter:
    """Resizes by a random scale, then crops or pads to a square.

    Args:
        side: of the square in pixels.
        min_scale: smallest scale relative to fitting the square.
        max_scale: largest.
    """

    side: int
    min_scale: float
    max_scale: float

    def draw(self, rng: np.random.Generator, size: tuple[int, int]) -> list[Transform]:
        """Gives the operations for a clip of ``size`` (H, W)."""
        scale = rng.uniform(self.min_scale, self.max_scale) * self.side / max(size)
        scaled = tuple(max(int(edge * scale + 0.5), 1) for edge in size)
        kept = tuple(min(edge, self.side) for edge in scaled)
        top, left = (int(rng.integers(a - b + 1)) for a, b in zip(scaled, kept, strict=True))
        return [
            Resize(size, (scaled[0], scaled[1])),
            Crop(top, left, (kept[0], kept[1])),
            Pad((self.side, self.side)),
        ]


@dataclass(frozen=True)
class ClipAugmentation:
    """Draws the augmentation of a clip.

    Args:
        min_sizes: lengths of the shorter side to draw from (or least and most, see ``sampling``).
        max_size: bound of the longer side.
        sampling: ``"choice"`` among ``min_sizes``, or ``"range"`` between two of them; the
            published suffix ``"_by_clip"`` changes nothing: all frames of a clip share a size.
        flip: ``"none"``, ``"vertical"``, or any of ``"horizontal"``, ``"flip"`` and
            ``"flip_by_clip"``, which mean half of the clips, left to right.
        crop: crop block, ``None`` for none.
        jitter: replaces crop and resize when given.
        extra: any of ``"brightness"``, ``"contrast"``, ``"saturation"``, ``"rotation"``.
        moving_rotation: every frame gets an angle of its own, ascending or descending, so that a
            clip made of one image moves smoothly; otherwise one angle per clip.

    Raises:
        ConfigError: if a name is unknown.
    """

    min_sizes: tuple[int, ...]
    max_size: int
    sampling: str = "choice_by_clip"
    flip: str = "flip_by_clip"
    crop: RandomCrop | None = None
    jitter: LargeScaleJitter | None = None
    extra: tuple[str, ...] = field(default=())
    moving_rotation: bool = False

    def __post_init__(self) -> None:
        """Checks all names, so that a wrong one is told before training."""
        _check_choice("INPUT.MIN_SIZE_TRAIN_SAMPLING", self.sampling, _SAMPLINGS)
        _check_choice("INPUT.RANDOM_FLIP", self.flip, _FLIPS)
        for name in self.extra:
            _check_choice("INPUT.AUGMENTATIONS", name, (*_BLENDS, "rotation"))
        if not self.min_sizes:
            raise ConfigError("INPUT.MIN_SIZE_TRAIN is empty; (0,) keeps the size of the frames")

    @classmethod
    def from_config(cls, cfg: Any, *, pseudo: bool = False) -> dict[str, Any]:
        """Gives the arguments for clips of videos, or (``pseudo``) for clips made from images."""
        node = cfg.INPUT.PSEUDO if pseudo else cfg.INPUT
        enabled = node.CROP.ENABLED
        # As published, videos take type and size of the crop from the image branch.
        crop, jitter = cfg.INPUT.PSEUDO.CROP, cfg.INPUT.LSJ_AUG
        if enabled and (node.CROP.TYPE, *node.CROP.SIZE) != (crop.TYPE, *crop.SIZE):
            _logger.warning(
                "INPUT.CROP.TYPE and SIZE have no effect; INPUT.PSEUDO.CROP says %s %s",
                crop.TYPE,
                tuple(crop.SIZE),
            )
        return {
            "min_sizes": tuple(node.MIN_SIZE_TRAIN),
            "max_size": node.MAX_SIZE_TRAIN,
            "sampling": node.MIN_SIZE_TRAIN_SAMPLING,
            "flip": cfg.INPUT.RANDOM_FLIP,
            "crop": RandomCrop(crop.TYPE, tuple(crop.SIZE), tuple(cfg.INPUT.CROP.MIN_SIZES))
            if enabled
            else None,
            "jitter": LargeScaleJitter(jitter.IMAGE_SIZE, jitter.MIN_SCALE, jitter.MAX_SCALE)
            if jitter.ENABLED
            else None,
            "extra": tuple(node.AUGMENTATIONS),
            "moving_rotation": pseudo,
        }

    def draw(self, rng: np.random.Generator, size: tuple[int, int], num_frames: int) -> ClipPlan:
        """Draws for a clip of ``num_frames`` frames of ``size`` (H, W)."""
        if self.jitter is not None:
            shared = self.jitter.draw(rng, size)
            size = (self.jitter.side, self.jitter.side)
        else:
            shared = self.crop.draw(rng, size) if self.crop is not None else []
            if shared:
                size = shared[-1].size  # type: ignore[attr-defined]
            target = shortest_edge_size(*size, self._shortest(rng), self.max_size)
            shared, size = [*shared, Resize(size, target)], target
        if self.flip != "none" and rng.random() < 0.5:
            shared.append(Flip(size, vertical=self.flip == "vertical"))
        shared += [
            Blend(kind, rng.uniform(*_BLEND_RANGE)) for kind in _BLENDS if kind in self.extra
        ]
        rotations: list[Rotate] = []
        if "rotation" in self.extra:
            rotations = self._rotations(rng, size, num_frames)
        return ClipPlan(shared, rotations, size)

    def _shortest(self, rng: np.random.Generator) -> int:
        if self.sampling.startswith("range"):
            return int(rng.integers(min(self.min_sizes), max(self.min_sizes) + 1))
        return int(rng.choice(self.min_sizes))

    def _rotations(
        self, rng: np.random.Generator, size: tuple[int, int], num_frames: int
    ) -> list[Rotate]:
        center = tuple(float(rng.uniform(*_CENTER_RANGE) * side) for side in (size[1], size[0]))
        if self.moving_rotation:
            angles = np.sort(rng.uniform(-_MAX_ANGLE, _MAX_ANGLE, size=num_frames))
            angles = angles[::-1] if rng.random() < 0.5 else angles
        else:
            angles = np.full(num_frames, rng.uniform(-_MAX_ANGLE, _MAX_ANGLE))
        return [Rotate(float(angle), (center[0], center[1])) for angle in angles]


def sample_frames(
    length: int,
    num_frames: int,
    reach: int,
    rng: np.random.Generator,
    *,
    shuffle: bool = False,
    reverse: bool = False,
) -> list[int]:
    """Chooses the frames of a training clip.

    When ``2 * reach + 1 == num_frames`` they are contiguous; a video that is too short gives all of
    its frames, then random repeats. Otherwise they are a random frame and others at most ``reach``
    frames away, in order.

    Args:
        length: frames of the video, at least 1.
        num_frames: frames of the clip.
        reach: INPUT.SAMPLING_FRAME_RANGE.
        rng: source of all draws.
        shuffle: whether to return them in random order.
        reverse: whether half of the contiguous clips run backwards.

    Note:
        As published, the last possible start of a contiguous clip is never drawn.
    """
    if 2 * reach + 1 == num_frames:
        frames = _contiguous(length, num_frames, rng)
        if reverse and rng.random() < 0.5:
            frames.reverse()
    else:
        frames = _around_reference(length, num_frames, reach, rng)
    if shuffle:
        frames = [frames[place] for place in rng.permutation(len(frames))]
    return frames


def _contiguous(length: int, num_frames: int, rng: np.random.Generator) -> list[int]:
    if length < num_frames:
        repeats = rng.integers(length, size=num_frames - length)
        return [*range(length), *repeats.tolist()]
    start = int(rng.integers(length - num_frames)) if length > num_frames else 0
    return list(range(start, start + num_frames))


def _around_reference(
    length: int, num_frames: int, reach: int, rng: np.random.Generator
) -> list[int]:
    reference = int(rng.integers(length))
    window = range(max(0, reference - reach), min(length, reference + reach + 1))
    others = [frame for frame in window if frame != reference] or [reference]
    count = num_frames - 1
    chosen = rng.choice(others, size=count, replace=len(others) < count) if count else np.zeros(0)
    return sorted([reference, *(int(frame) for frame in chosen)])


def _check_choice(key: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        close = nearest(value, choices) or list(choices)
        raise ConfigError(f"{key} cannot be {value!r}; did you mean {' or '.join(close)}?")
