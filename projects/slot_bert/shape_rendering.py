"""Draws scenes of moving shapes and their label maps, frame by frame.

No pixel costs a sine: the sine of a sum is a product of matrices of rank two.

Shapes: T frames, S side of the canvas.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .shape_scene import CANVAS, Background, MovingShape, Scene

__all__ = ["render"]

_REACH = 1.25  # radii from the centre that every shape ends within
_SQUARE = 0.85
_ELLIPSE = (1.1, 1.1 * 0.6)
_ARM = 0.35
_GRID = np.arange(CANVAS, dtype=np.float32)


def render(scene: Scene, frames: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Draws frames of a scene; borders are sharp, each pixel shows one object or none.

    Args:
        scene: what to draw.
        frames: T numbers of frames, in any order.

    Returns:
        uint8 ``(T, 3, S, S)`` RGB and int16 ``(T, S, S)``: 0 background, k the k-th object.
    """
    canvas = _draw_background(scene.background, np.asarray(frames))
    labels = np.zeros((len(frames), CANVAS, CANVAS), dtype=np.int16)
    for place, frame in enumerate(frames):
        for number, item in enumerate(scene.objects, start=1):
            _draw_object(canvas[place], labels[place], item, frame, number)
    canvas *= 255
    canvas += 0.5
    np.clip(canvas, 0, 255, out=canvas)
    return canvas.astype(np.uint8), labels


def _draw_background(ground: Background, frames: np.ndarray) -> np.ndarray:
    """Gives float32 ``(T, 3, S, S)``."""
    moved = ground.phases - frames[:, None] * (ground.frequencies @ ground.pan)  # (T, W)
    by_row = ground.frequencies[:, :1] * _GRID + moved[:, :, None]
    by_column = ground.frequencies[:, 1:] * _GRID
    waves = np.concatenate([np.sin(by_row), np.cos(by_row)], axis=1)  # (T, 2W, S)
    weights = np.tile(ground.amplitudes, (2, 1)).T  # (3, 2W)
    rows = waves.transpose(0, 2, 1)[:, None] * weights[:, None]  # (T, 3, S, 2W)
    level = np.broadcast_to(ground.color[:, None, None], (*rows.shape[:3], 1))
    left = np.concatenate([rows, level], axis=3).astype(np.float32)
    right = np.concatenate([np.cos(by_column), np.sin(by_column), np.ones((1, CANVAS))])
    flat: np.ndarray = left.reshape(-1, left.shape[3]) @ right.astype(np.float32)
    return flat.reshape(len(frames), 3, CANVAS, CANVAS)


def _draw_object(
    canvas: np.ndarray, labels: np.ndarray, item: MovingShape, frame: int, number: int
) -> None:
    reach = _REACH * item.radius
    (top, left), (bottom, right) = (
        np.clip(np.ceil(item.centers[frame] + shift), 0, CANVAS).astype(int).tolist()
        for shift in (-reach, reach)
    )
    center, angle = item.centers[frame], item.angles[frame]
    dy = ((_GRID[top:bottom] - center[0]) / item.radius).astype(np.float32)
    dx = ((_GRID[left:right] - center[1]) / item.radius).astype(np.float32)
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    inside = _inside(item.shape, dy, dx, cos, sin)
    labels[top:bottom, left:right][inside] = number
    paint = item.color.astype(np.float32)[:, None, None]
    if item.pattern != "none":
        frequency = np.float32(item.frequency)
        paint = paint + np.float32(item.amplitude) * _pattern(
            item.pattern, frequency * dy, frequency * dx, cos, sin
        )
    np.copyto(canvas[:, top:bottom, left:right], paint, where=inside)


def _inside(shape: str, dy: np.ndarray, dx: np.ndarray, cos: float, sin: float) -> np.ndarray:
    """Tells which pixels of a window belong to a shape, bool ``(h, w)``.

    Args:
        shape: one of ``SHAPES``.
        dy: ``(h,)``, rows from the centre in radii.
        dx: ``(w,)``, columns likewise.
        cos: of the angle that the shape is turned by.
        sin: likewise.
    """
    if shape == "disc":
        inside: np.ndarray = (dy * dy)[:, None] + dx * dx <= 1
        return inside
    u = (sin * dy)[:, None] + cos * dx
    v = (cos * dy)[:, None] - sin * dx
    if shape == "square":
        inside = np.maximum(np.abs(u), np.abs(v)) <= _SQUARE
    elif shape == "ellipse":
        inside = (u / _ELLIPSE[0]) ** 2 + (v / _ELLIPSE[1]) ** 2 <= 1
    elif shape == "triangle":  # equilateral, its corners one radius from the centre
        side = np.float32(np.sqrt(0.75)) * np.abs(u)
        inside = np.maximum(v, side - 0.5 * v) <= 0.5
    else:
        u, v = np.abs(u), np.abs(v)
        inside = (np.minimum(u, v) <= _ARM) & (np.maximum(u, v) <= 1)
    return inside


def _pattern(pattern: str, dy: np.ndarray, dx: np.ndarray, cos: float, sin: float) -> np.ndarray:
    """Gives the values of a pattern in [-1, 1] on a window, ``(h, w)``; ``dy, dx`` are phases."""
    across = _sine_of_sum(sin * dy, cos * dx)
    if pattern == "stripes":
        return across
    across *= _sine_of_sum(cos * dy, -sin * dx)
    return across if pattern == "egg_box" else np.sign(across)


def _sine_of_sum(rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    left = np.stack([np.sin(rows), np.cos(rows)], axis=1)
    right = np.stack([np.cos(columns), np.sin(columns)])
    product: np.ndarray = left @ right
    return product
