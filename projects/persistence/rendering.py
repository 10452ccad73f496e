"""Draws scenes: shaded spheres before a dark, noisy background.

Shapes: T frames, S side of the frames, M discs, P appearances (one disc in one frame), K side of
the window that holds the largest disc.
"""

from __future__ import annotations

import itertools

import numpy as np

from .scene import Occluder, Scene

__all__ = ["render"]

_BACKGROUND = 0.05
_NOISE = 0.015  # standard deviation
_AMBIENT = 0.35  # share of the light that comes from all sides
_LIGHT = np.array([-0.3, -0.3, 0.9]) / np.linalg.norm([-0.3, -0.3, 0.9])  # rows, columns, viewer
_OCCLUDER_GREY = 0.12


def render(scene: Scene, size: int, rng: np.random.Generator) -> np.ndarray:
    """Draws the frames of a scene.

    Args:
        scene: what to draw.
        size: S.
        rng: draws the noise.

    Returns:
        uint8 ``(T, 3, S, S)`` RGB.
    """
    num_frames = scene.visible.shape[1]
    margin = int(np.ceil(scene.radii.max())) + 2
    side = size + 2 * margin
    canvas = np.full((num_frames * side * side, 3), _BACKGROUND, dtype=np.float32)
    disc, frame = np.nonzero(scene.visible)  # sorted by disc: the farthest first
    alpha, light, place = _windows(scene, disc, frame, margin, side)
    colors = scene.colors[disc].astype(np.float32)
    bounds = np.searchsorted(disc, np.arange(len(scene.labels) + 1))
    for start, stop in itertools.pairwise(bounds):
        # A disc is once in a frame: no pixel occurs twice.
        covered, a = place[start:stop], alpha[start:stop, :, None]
        paint = light[start:stop, :, None] * colors[start:stop, None]
        below = canvas[covered]
        canvas[covered] = below + a * (paint - below)
    shape = (num_frames, side, side, 3)
    inner = slice(margin, margin + size)
    drawn = canvas.reshape(shape)[:, inner, inner].transpose(0, 3, 1, 2)
    frames = rng.standard_normal(drawn.shape, dtype=np.float32)
    frames *= _NOISE
    frames += drawn
    for occluder in scene.occluders:
        _cover(frames, occluder)
    np.clip(frames, 0, 1, out=frames)
    frames *= 255
    frames += 0.5
    pixels: np.ndarray = frames.astype(np.uint8)
    return pixels


def _windows(
    scene: Scene, disc: np.ndarray, frame: np.ndarray, margin: int, side: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Gives opacity, light and place in the canvas of all pixels around all appearances.

    Returns:
        Three arrays ``(P, K * K)``: float32 in [0, 1] twice, and flat int64 indices.
    """
    reach = margin - 1
    offsets = np.arange(-reach, reach + 1)
    corner = np.rint(scene.centers[disc, frame]).astype(np.int64)  # (P, 2)
    radius = scene.radii[disc, frame].astype(np.float32)[:, None, None]
    shift = (corner - scene.centers[disc, frame]).astype(np.float32)
    dy = (offsets + shift[:, :1]).astype(np.float32)[:, :, None]
    dx = (offsets + shift[:, 1:]).astype(np.float32)[:, None, :]
    squared = dy * dy + dx * dx
    # The edge is one pixel wide: what an exact coverage would be within a few percent.
    alpha = np.clip(radius + 0.5 - np.sqrt(squared), 0, 1)
    alpha *= scene.opacity[disc, frame].astype(np.float32)[:, None, None]
    height = np.sqrt(np.maximum(radius * radius - squared, 0))
    facing = (_LIGHT[0] * dy + _LIGHT[1] * dx + _LIGHT[2] * height).astype(np.float32) / radius
    light = _AMBIENT + (1 - _AMBIENT) * np.maximum(facing, 0)
    rows = corner[:, :1] + margin + offsets
    columns = corner[:, 1:] + margin + offsets
    place = (frame[:, None, None] * side + rows[:, :, None]) * side + columns[:, None, :]
    count = len(disc)
    return alpha.reshape(count, -1), light.reshape(count, -1), place.reshape(count, -1)


def _cover(frames: np.ndarray, bar: Occluder) -> None:
    frames[:, :, bar.top : bar.bottom, bar.left : bar.right] = _OCCLUDER_GREY
