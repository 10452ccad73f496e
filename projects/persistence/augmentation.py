"""Random changes of training clips, on their detections instead of their frames.

None tells or hides the class: each leaves both as they are or treats them alike.

Shapes: N detections, P side of a patch, M objects, T frames.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vidseg.config import CfgNode
from vidseg.errors import ConfigError

from .detections import Detections

__all__ = ["TokenAugmentation", "TokenClip"]

_KEY = "INPUT.PERSISTENCE"


@dataclass
class TokenClip:
    """The tokens of a clip with what is known about them.

    Attributes:
        detections: N of them.
        patches: uint8 ``(N, 3, P, P)``.
        object_ids: int64 ``(N,)``, -1 for none.
        tracks: int64 ``(N,)``.
        presence: bool ``(M, T)`` of the objects.
    """

    detections: Detections
    patches: Tensor
    object_ids: Tensor
    tracks: Tensor
    presence: Tensor

    def select(self, index: Tensor) -> TokenClip:
        """Gives the tokens of an index or a mask, in its order."""
        return replace(
            self,
            detections=self.detections.select(index),
            patches=self.patches[index],
            object_ids=self.object_ids[index],
            tracks=self.tracks[index],
        )


class TokenAugmentation:
    """Draws and applies the changes.

    Args:
        flip: flips each axis of half of the clips, and swaps the axes of half of those with square
            frames.
        time_reversal: plays half of the clips backwards.
        brightness: largest relative change of a clip's brightness.
        noise: standard deviation of what is added to every pixel, of [0, 1].
        token_dropout: share of the detections that are left out.
        jitter: standard deviation of what is added to the centres, in pixels.
        color_jitter: share, in [0, 1], of a random colour in that of each object.

    Raises:
        ConfigError: if a number is out of its range.
    """

    def __init__(
        self,
        *,
        flip: bool = True,
        time_reversal: bool = True,
        brightness: float = 0.2,
        noise: float = 0.02,
        token_dropout: float = 0.03,
        jitter: float = 0.3,
        color_jitter: float = 0.0,
    ) -> None:
        shares = {
            "BRIGHTNESS": brightness,
            "NOISE": noise,
            "TOKEN_DROPOUT": token_dropout,
            "COLOR_JITTER": color_jitter,
        }
        for name, share in shares.items():
            if not 0 <= share <= 1:
                raise ConfigError(f"{_KEY}.{name} is {share}; give a number in [0, 1]")
        if not jitter >= 0:
            raise ConfigError(f"{_KEY}.JITTER is {jitter}; give a number of pixels, 0 for none")
        self.flip = flip
        self.time_reversal = time_reversal
        self.brightness = brightness
        self.noise = noise
        self.token_dropout = token_dropout
        self.jitter = jitter
        self.color_jitter = color_jitter

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Gives the arguments of ``__init__``."""
        node = cfg.INPUT.PERSISTENCE
        return {
            "flip": node.FLIP,
            "time_reversal": node.TIME_REVERSAL,
            "brightness": node.BRIGHTNESS,
            "noise": node.NOISE,
            "token_dropout": node.TOKEN_DROPOUT,
            "jitter": node.JITTER,
            "color_jitter": node.COLOR_JITTER,
        }

    def __call__(self, clip: TokenClip, rng: np.random.Generator) -> TokenClip:
        """Changes a clip at random.

        Args:
            clip: not modified.
            rng: source of all draws.
        """
        if self.flip:
            clip = _flip(clip, rng)
        if self.time_reversal and rng.random() < 0.5:
            clip = _reverse(clip)
        if self.token_dropout:
            kept = rng.random(len(clip.detections)) >= self.token_dropout
            clip = clip.select(torch.from_numpy(kept))
        if self.jitter:
            clip = _jitter(clip, self.jitter, rng)
        if self.color_jitter:
            clip = _recolour(clip, self.color_jitter, rng)
        if self.brightness or self.noise:
            clip = _expose(clip, self.brightness, self.noise, rng)
        return clip


def _flip(clip: TokenClip, rng: np.random.Generator) -> TokenClip:
    found, patches = clip.detections, clip.patches
    height, width = found.size
    rows, columns, axes = rng.random(3) < 0.5
    y = height - 1 - found.y if rows else found.y
    x = width - 1 - found.x if columns else found.x
    flipped = [dim for dim, is_due in ((2, rows), (3, columns)) if is_due]
    patches = patches.flip(flipped) if flipped else patches
    if axes and height == width:
        y, x, patches = x, y, patches.transpose(2, 3)
    return replace(clip, detections=replace(found, y=y, x=x), patches=patches.contiguous())


def _reverse(clip: TokenClip) -> TokenClip:
    found = clip.detections
    frame = found.num_frames - 1 - found.frame
    clip = replace(clip, detections=replace(found, frame=frame), presence=clip.presence.flip(1))
    return clip.select(torch.argsort(frame, stable=True))


def _jitter(clip: TokenClip, deviation: float, rng: np.random.Generator) -> TokenClip:
    found = clip.detections
    shift = rng.standard_normal((2, len(found)), dtype=np.float32) * np.float32(deviation)
    dy, dx = torch.from_numpy(shift)
    return replace(clip, detections=replace(found, y=found.y + dy, x=found.x + dx))


def _recolour(clip: TokenClip, strength: float, rng: np.random.Generator) -> TokenClip:
    """Gives each object another colour of the same strength, and everything else a common one."""
    # Strength is the largest channel, by which blobs are found.
    colors = rng.random((len(clip.presence) + 1, 3), dtype=np.float32)
    colors /= colors.max(axis=1, keepdims=True)
    drawn = torch.from_numpy(colors)[clip.object_ids]  # the last one for -1
    found = clip.detections
    color = found.color.lerp(found.color.amax(1, keepdim=True) * drawn, strength)
    pixels = clip.patches.float()
    grey = pixels.amax(1, keepdim=True) * drawn[:, :, None, None]
    patches = pixels.lerp(grey, strength).round().to(torch.uint8)
    return replace(clip, detections=replace(found, color=color), patches=patches)


def _expose(
    clip: TokenClip, brightness: float, noise: float, rng: np.random.Generator
) -> TokenClip:
    factor = float(rng.uniform(1 - brightness, 1 + brightness))
    found = clip.detections
    pixels = clip.patches.float() * factor
    if noise:
        drawn = rng.standard_normal(tuple(pixels.shape), dtype=np.float32)
        pixels += torch.from_numpy(drawn).mul_(255 * noise)
    found = replace(
        found, response=found.response * factor, color=(found.color * factor).clamp(0, 1)
    )
    patches = pixels.round_().clamp_(0, 255).to(torch.uint8)
    return replace(clip, detections=found, patches=patches)
