"""Generated clips of spheres, some of which stay and some of which come and go.

A clip is a pure function of seed, variant, split and index, on any machine and in any process. The
splits have disjoint seeds by construction.

Shapes: M objects, T frames, S side of the frames, N detections.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vidseg.errors import UserError

from .rendering import render
from .scene import MAX_TRANSIENT, draw_scene
from .variants import SPLITS, find_variant

__all__ = ["Clip", "ClipObjects", "PersistenceClips"]

_VERSION = 1  # of what a seed means
_SCENE = 0  # last word of the seeds; see ground_truth for the other
_MIN_SIZE = 32


@dataclass
class ClipObjects:
    """The objects of a clip.

    Attributes:
        centers: float32 ``(M, T, 2)``, row and column in pixels, also where it is not visible.
        radii: float32 ``(M, T)`` in pixels.
        visible: bool ``(M, T)``: it is there, and no bar covers most of it. Other objects may.
        labels: int64 ``(M,)``: 1 persistent, 0 transient.
        durations: float32 ``(M,)``, share of the frames that it is visible in.
        colors: float32 ``(M, 3)``, RGB in [0, 1].
    """

    centers: np.ndarray
    radii: np.ndarray
    visible: np.ndarray
    labels: np.ndarray
    durations: np.ndarray
    colors: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)


@dataclass
class Clip:
    """A generated clip.

    Attributes:
        frames: uint8 ``(T, 3, S, S)`` RGB.
        objects: what is to be found in it.
    """

    frames: Tensor
    objects: ClipObjects


class PersistenceClips:
    """The clips of a variant and split, as many as there are numbers.

    Args:
        variant: a name of ``variants.VARIANTS``.
        split: ``"train"``, ``"val"`` or ``"test"``.
        size: S; at twice the size the same scenes are twice as large.
        num_frames: T.
        min_transient: least number of transient objects, up to 5.
        seed: another number gives other clips.

    Raises:
        UserError: if one of these has no meaning.
    """

    def __init__(
        self,
        variant: str,
        split: str,
        *,
        size: int = 64,
        num_frames: int = 16,
        min_transient: int = 0,
        seed: int = 0,
    ) -> None:
        self.variant = find_variant(variant)
        if split not in SPLITS:
            raise UserError(f"there is no split {split!r} of the clips; use one of {SPLITS}")
        if size < _MIN_SIZE:
            raise UserError(f"clips of {size} pixels are too small; use {_MIN_SIZE} or more")
        shortest = self.variant.transient_frames[1] + 2
        if num_frames < shortest:
            raise UserError(
                f"in {num_frames} frames nothing tells what stays; clips of {variant} need "
                f"{shortest} or more"
            )
        if not 0 <= min_transient <= MAX_TRANSIENT:
            raise UserError(f"min_transient is {min_transient}; give 0 to {MAX_TRANSIENT}")
        self.name = variant
        self.split = split
        self.size = size
        self.num_frames = num_frames
        self.min_transient = min_transient
        self.seed = seed

    def settings(self) -> dict[str, Any]:
        """Gives everything but the split that the clips depend on, as plain json."""
        return {
            "version": _VERSION,
            "variant": self.name,
            "size": self.size,
            "num_frames": self.num_frames,
            "min_transient": self.min_transient,
            "seed": self.seed,
        }

    def seed_sequence(self, index: int, purpose: int = _SCENE) -> np.random.SeedSequence:
        """Gives the seeds of a clip; other purposes than its scene have their own."""
        key = (self.variant.number, SPLITS.index(self.split), index, purpose)
        return np.random.SeedSequence((_VERSION, self.seed), spawn_key=key)

    def __getitem__(self, index: int) -> Clip:
        """Makes a clip.

        Raises:
            IndexError: if the index is negative.
        """
        if index < 0:
            raise IndexError(f"clips are numbered from 0, not {index}")
        rng = np.random.default_rng(self.seed_sequence(index))
        scene = draw_scene(
            rng,
            self.variant,
            size=self.size,
            num_frames=self.num_frames,
            min_transient=self.min_transient,
            agreement=self.variant.agreement[self.split == "test"],
        )
        frames = torch.from_numpy(render(scene, self.size, rng))
        real = scene.labels >= 0
        visible = scene.visible[real]
        objects = ClipObjects(
            centers=scene.centers[real].astype(np.float32),
            radii=scene.radii[real].astype(np.float32),
            visible=visible,
            labels=scene.labels[real].astype(np.int64),
            durations=visible.mean(axis=1).astype(np.float32),
            colors=scene.colors[real].astype(np.float32),
        )
        return Clip(frames, objects)
