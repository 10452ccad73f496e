"""The generated clips MovingShapes, with exact label maps.

A clip is a pure function of seed, split and index, on any machine and in any process; the splits
have disjoint seeds. Nothing is stored: drawing the frames that a training step needs is as quick as
reading them. Clips of a split of ``hard`` have patterns as strong as differences of colours.

Shapes: T frames, S = 128 side of the canvas.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from vidseg.errors import UserError, nearest

from .shape_rendering import render
from .shape_scene import Scene, draw_scene

__all__ = ["SPLITS", "MovingShapes", "ShapeClip"]

_VERSION = 1  # of what a seed means
_STANDARD, _HARD = 0.15, 0.35  # amplitude of the patterns
_AMPLITUDES = {"train": _STANDARD, "val": _STANDARD, "hard_train": _HARD, "hard_val": _HARD}

SPLITS = tuple(_AMPLITUDES)
"""In this order, which the seeds of their clips depend on."""


@dataclass(frozen=True)
class ShapeClip:
    """Frames of a generated clip.

    Attributes:
        frames: uint8 ``(T, 3, S, S)`` RGB.
        label_maps: int16 ``(T, S, S)``: 0 background, k the k-th object; a hidden one has no pixel.
        num_objects: of the clip, seen or not.
    """

    frames: Tensor
    label_maps: Tensor
    num_objects: int


class MovingShapes:
    """The clips of a split, as many as there are numbers.

    Args:
        split: one of ``SPLITS``.
        num_frames: T of a whole clip; a longer clip begins like a shorter one.
        seed: another number gives other clips.

    Raises:
        UserError: if the split is unknown or there is no frame.
    """

    def __init__(self, split: str, *, num_frames: int = 24, seed: int = 0) -> None:
        if split not in SPLITS:
            close = nearest(split, SPLITS) or SPLITS
            raise UserError(f"moving_shapes has no split {split!r}; use {' or '.join(close)}")
        if num_frames < 1 or seed < 0:
            raise UserError(
                f"moving_shapes of {num_frames} frames and seed {seed} do not exist; give 1 frame "
                "or more and a seed from 0"
            )
        self.split = split
        self.num_frames = num_frames
        self.seed = seed

    def scene(self, index: int) -> Scene:
        """Draws the scene of a clip.

        Raises:
            IndexError: if the index is negative.
        """
        if index < 0:
            raise IndexError(f"clips are numbered from 0, not {index}")
        key = (SPLITS.index(self.split), index)
        rng = np.random.default_rng(np.random.SeedSequence((_VERSION, self.seed), spawn_key=key))
        return draw_scene(rng, num_frames=self.num_frames, amplitude=_AMPLITUDES[self.split])

    def clip(self, index: int, frames: Sequence[int] | None = None) -> ShapeClip:
        """Makes a clip.

        Args:
            index: its number, from 0.
            frames: which of its frames; all of them if left out.

        Raises:
            IndexError: if the index is negative, or there is no such frame.
        """
        scene = self.scene(index)
        wanted = range(self.num_frames) if frames is None else frames
        if any(not 0 <= frame < self.num_frames for frame in wanted):
            raise IndexError(f"the clip has {self.num_frames} frames, not those of {list(wanted)}")
        pixels, labels = render(scene, wanted)
        return ShapeClip(torch.from_numpy(pixels), torch.from_numpy(labels), len(scene.objects))
