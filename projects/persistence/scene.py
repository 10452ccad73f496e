"""What happens in a generated clip: objects, their paths, and when each can be seen.

Nothing here depends on the class but what the variant says: persistent and transient objects have
sizes, paths, depths and brightness of the same distributions. A path goes through all frames of
the clip, and the object is seen on a part of it. Played backwards, a clip is as likely as forwards.

Shapes: M objects, T frames.
"""

from __future__ import annotations

import colorsys
from dataclasses import dataclass

import numpy as np

from .variants import RED, WHITE, Variant

__all__ = ["BASE_SIZE", "MAX_TRANSIENT", "Occluder", "Scene", "draw_scene"]

BASE_SIZE = 64
"""Side of the frames in pixels that all lengths are given for; larger frames show more detail."""

MAX_TRANSIENT = 5
"""Largest number of transient objects in a clip."""

_MAX_PERSISTENT = 3
_RADIUS = (3.0, 5.5)
_SPEED = (0.2, 1.8)  # pixels per frame
_JITTER = 0.25  # standard deviation of a centre around its path
_BRIGHTNESS = (0.85, 1.0)
_FAINT = 0.08  # opacity of an appearance that is not to be detected

_BLOB_RADIUS = (1.8, 2.6)
_BLOB_BRIGHTNESS = (0.4, 0.7)
_FLICKER = 0.4  # share of the frames that show a flickering blob
_OCCLUDER_WIDTH = (4, 8)
_OCCLUDER_LENGTH = (20, 40)
_OCCLUDED_SHARE = 0.5  # of a disc's width and height: more hides the object


@dataclass(frozen=True)
class Occluder:
    """A bar in front of everything, in pixels: rows ``top`` to ``bottom - 1``, columns likewise."""

    top: int
    bottom: int
    left: int
    right: int


@dataclass
class Scene:
    """Discs to draw, the farthest first, and bars in front of them.

    Args:
        centers: ``(M, T, 2)`` row and column in pixels.
        radii: ``(M, T)`` in pixels.
        visible: ``(M, T)`` bool, whether there is something to see of an object.
        labels: ``(M,)``: 1 persistent, 0 transient, -1 part of the background.
        colors: ``(M, 3)`` RGB in [0, 1], of the brightest point.
        opacity: ``(M, T)`` in [0, 1].
        occluders: the bars.
    """

    centers: np.ndarray
    radii: np.ndarray
    visible: np.ndarray
    labels: np.ndarray
    colors: np.ndarray
    opacity: np.ndarray
    occluders: list[Occluder]


def draw_scene(
    rng: np.random.Generator,
    variant: Variant,
    *,
    size: int,
    num_frames: int,
    min_transient: int,
    agreement: float,
) -> Scene:
    """Draws a scene.

    Args:
        rng: source of all draws.
        variant: what the clips are like.
        size: side of the frames in pixels.
        num_frames: T.
        min_transient: least number of transient objects.
        agreement: share of the objects with the colour of their class, if colours follow it.
    """
    scale = size / BASE_SIZE
    num_persistent = int(rng.integers(1, _MAX_PERSISTENT + 1))
    num_transient = int(rng.integers(min_transient, MAX_TRANSIENT + 1))
    # In random order, which is the order of depth too.
    labels = rng.permutation(np.repeat([1, 0], [num_persistent, num_transient]))
    radii = rng.uniform(*_RADIUS, len(labels)) * scale
    centers = _draw_paths(rng, radii, size, num_frames, scale)
    visible = np.stack([_draw_presence(rng, label, variant, num_frames) for label in labels])
    colors = _draw_colors(rng, labels, variant, agreement)
    opacity = np.where(rng.random(visible.shape) < variant.faint_share, _FAINT, 1.0)
    scene = Scene(
        centers,
        np.repeat(radii[:, None], num_frames, 1),
        visible,
        labels,
        colors,
        opacity,
        _draw_occluders(rng, variant, size, scale),
    )
    for occluder in scene.occluders:
        scene.visible &= ~_is_hidden(occluder, scene.centers, scene.radii)
    return _with_blobs(scene, rng, variant, size, scale)


def _draw_paths(
    rng: np.random.Generator, radii: np.ndarray, size: int, num_frames: int, scale: float
) -> np.ndarray:
    """Draws straight paths that the borders reflect, ``(M, T, 2)``."""
    count = len(radii)
    low, high = radii, size - 1 - radii
    start = rng.uniform(low, high, (2, count))
    speed = rng.uniform(*_SPEED, count) * scale
    angle = rng.uniform(0, 2 * np.pi, count)
    velocity = np.stack([speed * np.sin(angle), speed * np.cos(angle)])
    time = np.arange(num_frames)[:, None, None]
    # Unfolded paths through mirrored copies of the frame, folded back: a triangular wave.
    length = high - low
    phase = (start - low + velocity * time) % (2 * length)
    path = low + np.minimum(phase, 2 * length - phase)
    path = path + rng.normal(scale=_JITTER * scale, size=path.shape)
    return np.clip(path, low, high).transpose(2, 0, 1)


def _draw_presence(
    rng: np.random.Generator, label: int, variant: Variant, num_frames: int
) -> np.ndarray:
    """Draws in which frames an object is there, bool ``(T,)``."""
    frames = np.arange(num_frames)
    if label == 1:
        if rng.random() >= variant.gap_share:
            return np.ones(num_frames, dtype=bool)
        gap = int(rng.integers(variant.gap_frames[0], variant.gap_frames[1] + 1))
        start = int(rng.integers(1, num_frames - gap))
        gone: np.ndarray = (frames >= start) & (frames < start + gap)
        return ~gone
    shortest, longest = variant.transient_frames
    duration = int(rng.integers(shortest, longest + 1))
    # Starts before the clip and ends after it count too: starts drawn within it would make
    # transient objects rare in the first and last frames, and the frame index would tell the class.
    start = int(rng.integers(shortest - duration, num_frames - shortest + 1))
    there: np.ndarray = (frames >= start) & (frames < start + duration)
    return there


def _draw_colors(
    rng: np.random.Generator, labels: np.ndarray, variant: Variant, agreement: float
) -> np.ndarray:
    """Draws the colours, ``(M, 3)``; the strongest channel has the same distribution in all."""
    count = len(labels)
    white, red = np.array(WHITE), np.array(RED)
    if variant.colors == "random":
        hues, saturations = rng.random(count), rng.uniform(0.3, 0.95, count)
        pairs = zip(hues, saturations, strict=True)
        colors = np.array([colorsys.hsv_to_rgb(hue, share, 1.0) for hue, share in pairs])
    elif variant.colors == "class":
        agrees = rng.random(count) < agreement
        colors = np.where(((labels == 1) == agrees)[:, None], white, red)
    else:
        colors = np.repeat(white[None], count, 0)
    return colors * rng.uniform(*_BRIGHTNESS, (count, 1))


def _draw_occluders(
    rng: np.random.Generator, variant: Variant, size: int, scale: float
) -> list[Occluder]:
    bars = []
    for _ in range(int(rng.integers(variant.occluders + 1))):
        sides = [
            round(int(rng.integers(low, high + 1)) * scale)
            for low, high in (_OCCLUDER_WIDTH, _OCCLUDER_LENGTH)
        ]
        height, width = rng.permutation(sides).tolist()
        top, left = (int(rng.integers(size - side + 1)) for side in (height, width))
        bars.append(Occluder(top, top + height, left, left + width))
    return bars


def _is_hidden(occluder: Occluder, centers: np.ndarray, radii: np.ndarray) -> np.ndarray:
    """Tells which discs a bar covers for the most part, by their bounding boxes, ``(M, T)``."""
    shares = []
    for axis, (low, high) in enumerate(
        ((occluder.top, occluder.bottom), (occluder.left, occluder.right))
    ):
        center = centers[..., axis]
        # Pixel i covers [i - 0.5, i + 0.5].
        overlap = np.minimum(center + radii, high - 0.5) - np.maximum(center - radii, low - 0.5)
        shares.append(np.maximum(overlap, 0) / (2 * radii))
    hidden: np.ndarray = shares[0] * shares[1] > _OCCLUDED_SHARE
    return hidden


def _with_blobs(
    scene: Scene, rng: np.random.Generator, variant: Variant, size: int, scale: float
) -> Scene:
    """Puts blobs behind the objects that are none of them."""
    num_frames = scene.visible.shape[1]
    num_static = int(rng.integers(variant.static_blobs + 1))
    num_flickering = int(rng.integers(variant.flickering_blobs + 1))
    count = num_static + num_flickering
    if not count:
        return scene
    radii = rng.uniform(*_BLOB_RADIUS, count) * scale
    centers = rng.uniform(radii, size - 1 - radii, (2, count)).T
    visible = np.ones((count, num_frames), dtype=bool)
    visible[num_static:] = rng.random((num_flickering, num_frames)) < _FLICKER
    colors = np.array(WHITE) * rng.uniform(*_BLOB_BRIGHTNESS, (count, 1))
    return Scene(
        np.concatenate([np.repeat(centers[:, None], num_frames, 1), scene.centers]),
        np.concatenate([np.repeat(radii[:, None], num_frames, 1), scene.radii]),
        np.concatenate([visible, scene.visible]),
        np.concatenate([np.full(count, -1), scene.labels]),
        np.concatenate([colors, scene.colors]),
        np.concatenate([np.ones((count, num_frames)), scene.opacity]),
        scene.occluders,
    )
