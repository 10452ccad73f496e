"""The generated clips MovingShapes, with exact label maps.

A clip is a pure function of seed, split and index, in any process; the splits have disjoint seeds.
Nothing is stored: drawing the frames that a training step needs is as quick as reading them. The
splits of ``hard`` have patterns as strong as differences of colours. In those of ``hidden`` an
object passes behind another one, and some frames count as dropped: what a model that knows the
frames around them says about these can be compared with what it sees in them.

Shapes: T frames, M objects, S = 128 side of the canvas.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from vidseg.errors import UserError, nearest

from .shape_rendering import render
from .shape_scene import Scene, draw_hiding_scene, draw_scene

__all__ = ["SPLITS", "MovingShapes", "ShapeClip"]

_VERSION = 1  # of what a seed means
_STANDARD, _HARD = 0.15, 0.35  # amplitude of the patterns
_DROPPED_SHARE = 0.2
_DROPPED_RUN = 3  # longest
_HIDDEN_SHARE = 0.1

SPLITS = ("train", "val", "hard_train", "hard_val", "hidden_val")
"""In this order, which the seeds of their clips depend on."""


@dataclass(frozen=True)
class ShapeClip:
    """Frames of a generated clip.

    Attributes:
        frames: uint8 ``(T, 3, S, S)`` RGB.
        label_maps: int16 ``(T, S, S)``: 0 background, k the k-th object; a hidden one has no pixel.
        num_objects: M of the clip, seen or not.
        dropped: bool ``(T,)``, frames that a model is not to look at; they are drawn all the same.
    """

    frames: Tensor
    label_maps: Tensor
    num_objects: int
    dropped: Tensor

    @property
    def hidden(self) -> Tensor:
        """Bool ``(M, T)``: less than a tenth of what is seen of the object at best is seen."""
        objects = torch.arange(1, self.num_objects + 1)
        areas = (self.label_maps.flatten(1) == objects[:, None, None]).sum(2)
        return areas < _HIDDEN_SHARE * areas.amax(1, keepdim=True).clamp(min=1)


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
        draw = draw_hiding_scene if self.split.startswith("hidden") else draw_scene
        amplitude = _HARD if self.split.startswith("hard") else _STANDARD
        return draw(self._rng(index, 0), num_frames=self.num_frames, amplitude=amplitude)

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
        return ShapeClip(
            torch.from_numpy(pixels),
            torch.from_numpy(labels),
            len(scene.objects),
            torch.from_numpy(self._dropped(index)[list(wanted)]),
        )

    def _dropped(self, index: int) -> np.ndarray:
        """Draws short runs of frames, bool ``(T,)``."""
        dropped = np.zeros(self.num_frames, dtype=bool)
        if self.split.startswith("hidden"):
            rng = self._rng(index, 1)
            while dropped.sum() < int(_DROPPED_SHARE * self.num_frames):
                start = rng.integers(self.num_frames)
                dropped[start : start + rng.integers(1, _DROPPED_RUN + 1)] = True
        return dropped

    def _rng(self, index: int, purpose: int) -> np.random.Generator:
        key = (SPLITS.index(self.split), index, *([purpose] if purpose else []))
        seeds = np.random.SeedSequence((_VERSION, self.seed), spawn_key=key)
        return np.random.default_rng(seeds)
