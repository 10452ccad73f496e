"""What happens in a generated clip: turning, patterned shapes that bounce before a moving ground.

Lengths are pixels and angles radians throughout; positions are (row, column), and a pixel lies
where its indices say.

Shapes: T frames.
"""

from __future__ import annotations

import colorsys
from dataclasses import dataclass

import numpy as np

__all__ = [
    "CANVAS",
    "PATTERNS",
    "SHAPES",
    "Background",
    "MovingShape",
    "Scene",
    "draw_hiding_scene",
    "draw_scene",
    "follow_path",
]

CANVAS = 128
"""Side of the frames in pixels."""

SHAPES = ("disc", "square", "ellipse", "triangle", "cross")
PATTERNS = ("stripes", "checker", "egg_box", "none")

_NUM_OBJECTS = (3, 6)
_RADIUS = (0.10, 0.19)  # of the canvas
_SPEED = (0.5, 2.5)
_SPIN = 0.12
_PATTERN_FREQUENCY = (4.0, 9.0)  # radians per radius
_OBJECT_SATURATION = _OBJECT_VALUE = (0.6, 1.0)

_NUM_OTHERS = (1, 4)  # objects beside the two of which one passes behind the other
_HIDER_RADIUS = (0.14, 0.16)
_HIDDEN_RADIUS = (0.10, 0.11)
_HIDDEN_SPEED = (1.5, 2.5)
_HIDER_SHAPES = ("disc", "square")
_ATTEMPTS = 50  # at a path that begins and ends beside the large object

_NUM_WAVES = 3
_WAVE_PERIODS = (2.0, 8.0)  # per canvas
_WAVE_AMPLITUDE = 0.067
_CHANNEL_SCALE = (0.5, 1.0)
_PAN = 0.5
_GROUND_SATURATION = (0.0, 0.3)
_GROUND_VALUE = (0.25, 0.65)


@dataclass(frozen=True)
class Background:
    """Plane waves upon a colour.

    Args:
        color: ``(3,)`` RGB in [0, 1].
        frequencies: ``(W, 2)`` radians per pixel, by row and by column.
        phases: ``(W,)``.
        amplitudes: ``(W, 3)`` of the channels.
        pan: ``(2,)`` pixels per frame that it moves.
    """

    color: np.ndarray
    frequencies: np.ndarray
    phases: np.ndarray
    amplitudes: np.ndarray
    pan: np.ndarray


@dataclass(frozen=True)
class MovingShape:
    """An object.

    Args:
        shape: one of ``SHAPES``.
        radius: in pixels; how far it reaches depends on the shape.
        color: ``(3,)`` RGB in [0, 1].
        pattern: one of ``PATTERNS``.
        frequency: of the pattern, radians per radius.
        amplitude: of the pattern, the same on all channels.
        centers: ``(T, 2)``.
        angles: ``(T,)``.
    """

    shape: str
    radius: float
    color: np.ndarray
    pattern: str
    frequency: float
    amplitude: float
    centers: np.ndarray
    angles: np.ndarray


@dataclass(frozen=True)
class Scene:
    """Objects before a background; a later object covers an earlier one."""

    background: Background
    objects: tuple[MovingShape, ...]


def draw_scene(rng: np.random.Generator, *, num_frames: int, amplitude: float) -> Scene:
    """Draws a scene.

    Args:
        rng: source of all draws.
        num_frames: T.
        amplitude: of the patterns; 0.35 makes them as strong as the differences of colours.
    """
    background = _draw_background(rng)
    count = int(rng.integers(_NUM_OBJECTS[0], _NUM_OBJECTS[1] + 1))
    objects = [_draw_object(rng, num_frames, amplitude) for _ in range(count)]
    return Scene(background, tuple(objects))


def draw_hiding_scene(rng: np.random.Generator, *, num_frames: int, amplitude: float) -> Scene:
    """Draws a scene in which a small object disappears behind a large, slow one and comes back.

    They are the last two objects, the large one in front of all.

    Args:
        rng: source of all draws.
        num_frames: T; clips of less than about 20 frames may be too short to see it on both sides.
        amplitude: of the patterns.
    """
    background = _draw_background(rng)
    count = int(rng.integers(_NUM_OTHERS[0], _NUM_OTHERS[1] + 1))
    objects = [_draw_object(rng, num_frames, amplitude) for _ in range(count)]
    hider = _draw_object(
        rng,
        num_frames,
        amplitude,
        radii=_HIDER_RADIUS,
        speeds=(_SPEED[0], _SPEED[0]),
        shapes=_HIDER_SHAPES,
    )
    for _ in range(_ATTEMPTS):
        meeting = int(rng.integers(num_frames // 3, num_frames - num_frames // 3))
        hidden = _draw_object(
            rng,
            num_frames,
            amplitude,
            radii=_HIDDEN_RADIUS,
            speeds=_HIDDEN_SPEED,
            through=(meeting, hider.centers[meeting]),
        )
        distances = np.linalg.norm(hidden.centers - hider.centers, axis=1)
        if distances[[0, -1]].min() > hidden.radius + hider.radius:
            break
    return Scene(background, (*objects, hidden, hider))


def follow_path(
    place: np.ndarray, velocity: np.ndarray, frames: np.ndarray, margin: float
) -> np.ndarray:
    """Gives a straight path that bounces off walls at a distance from the borders.

    Args:
        place: ``(2,)`` at frame 0, between the walls.
        velocity: ``(2,)``, per frame, at frame 0.
        frames: ``(T,)``, also before frame 0.
        margin: distance of the walls.

    Returns:
        ``(T, 2)``.
    """
    length = CANVAS - 1 - 2 * margin
    # Straight through mirrored copies of the canvas, folded back: a triangular wave.
    phase = (place - margin + velocity * frames[:, None]) % (2 * length)
    path: np.ndarray = margin + np.minimum(phase, 2 * length - phase)
    return path


def _draw_background(rng: np.random.Generator) -> Background:
    periods = rng.uniform(*_WAVE_PERIODS, _NUM_WAVES)
    direction = rng.uniform(0, 2 * np.pi, _NUM_WAVES)
    unit = np.stack([np.sin(direction), np.cos(direction)], axis=1)
    return Background(
        color=_draw_color(rng, _GROUND_SATURATION, _GROUND_VALUE),
        frequencies=2 * np.pi * periods[:, None] / CANVAS * unit,
        phases=rng.uniform(0, 2 * np.pi, _NUM_WAVES),
        amplitudes=_WAVE_AMPLITUDE * rng.uniform(*_CHANNEL_SCALE, (_NUM_WAVES, 3)),
        pan=rng.uniform(-_PAN, _PAN, 2),
    )


def _draw_object(
    rng: np.random.Generator,
    num_frames: int,
    amplitude: float,
    *,
    radii: tuple[float, float] = _RADIUS,
    speeds: tuple[float, float] = _SPEED,
    shapes: tuple[str, ...] = SHAPES,
    through: tuple[int, np.ndarray] | None = None,
) -> MovingShape:
    """Draws an object, on a path ``through`` a frame and place if they are given."""
    radius = float(rng.uniform(*radii) * CANVAS)
    margin = radius / 2
    direction = rng.uniform(0, 2 * np.pi)
    velocity = rng.uniform(*speeds) * np.array([np.sin(direction), np.cos(direction)])
    start = rng.uniform(margin, CANVAS - 1 - margin, 2)
    meeting, place = (0, start) if through is None else through
    angle, spin = rng.uniform(0, 2 * np.pi), rng.uniform(-_SPIN, _SPIN)
    frames = np.arange(num_frames)
    return MovingShape(
        shape=shapes[rng.integers(len(shapes))],
        radius=radius,
        color=_draw_color(rng, _OBJECT_SATURATION, _OBJECT_VALUE),
        pattern=PATTERNS[rng.integers(len(PATTERNS))],
        frequency=float(rng.uniform(*_PATTERN_FREQUENCY)),
        amplitude=amplitude,
        centers=follow_path(place, velocity, frames - meeting, margin),
        angles=angle + spin * frames,
    )


def _draw_color(
    rng: np.random.Generator, saturation: tuple[float, float], value: tuple[float, float]
) -> np.ndarray:
    hue = rng.uniform()
    return np.array(colorsys.hsv_to_rgb(hue, rng.uniform(*saturation), rng.uniform(*value)))
