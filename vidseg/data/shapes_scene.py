"""Scenes of moving shapes with exact masks: what the embedded data set ``shapes_vis`` shows.

A scene is a slowly panning background and a few flat shapes that move, rotate, change size, pass
before one another, enter and leave. Everything follows from one ``numpy.random.Generator``, so a
scene is the same on every machine. Masks are exact: a pixel belongs to the topmost shape that
covers at least half of it.

Shapes: T frames, N objects, H W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from importlib import resources

import numpy as np
from PIL import Image, ImageDraw

__all__ = ["CLASSES", "LEVELS", "Scene", "SceneObject", "random_scene", "render_frame"]

CLASSES = ("disc", "square", "triangle", "star", "cross")
LEVELS = ("easy", "standard", "hard")

_PALETTE = ((225, 60, 55), (60, 165, 75), (60, 105, 225), (240, 195, 40), (165, 70, 190))
_PHOTOS = (
    "astronaut.png",
    "brick.png",
    "chelsea.png",
    "coffee.png",
    "coins.png",
    "grass.png",
    "gravel.png",
    "motorcycle_left.png",
    "rocket.jpg",
    "retina.jpg",
)
_SUPERSAMPLE = 4
_COLOUR_IS_CLASS = {"easy": 1.0, "standard": 0.8, "hard": 0.0}


@dataclass(frozen=True)
class SceneObject:
    """One object of a scene; positions in pixels, angles in radians, one row per frame.

    Attributes:
        label: index into ``CLASSES``.
        centres: ``(T, 2)`` x, y.
        radii: ``(T,)`` radius of the circumscribed circle.
        angles: ``(T,)`` rotation.
        colour: RGB, 0..255; unused when ``texture`` is set.
        texture: photograph patch ``(S, S, 3)`` that fills the shape and turns with it, or ``None``.
    """

    label: int
    centres: np.ndarray
    radii: np.ndarray
    angles: np.ndarray
    colour: tuple[int, int, int]
    texture: np.ndarray | None = None


@dataclass(frozen=True)
class Scene:
    """Objects from back to front before a background; ``pan`` is ``(T, 2)``, the crop's corner."""

    height: int
    width: int
    background: np.ndarray
    pan: np.ndarray
    objects: tuple[SceneObject, ...]

    @property
    def length(self) -> int:
        """Number of frames."""
        return len(self.pan)


def random_scene(
    rng: np.random.Generator,
    level: str,
    *,
    height: int,
    width: int,
    length: int,
    colour_is_class: float | None = None,
) -> Scene:
    """Draws a scene of two to four objects.

    Args:
        rng: source of every choice.
        level: one of ``LEVELS``; ``easy`` has flat colours, the class goes with the colour, and
            each class is there at most once; in ``standard`` the class is the shape and the colour
            tells it in four cases of five before photographs; in ``hard`` objects are filled with
            photographs and the shape alone tells.
        height: frame height in pixels.
        width: frame width in pixels.
        length: number of frames.
        colour_is_class: share of the objects whose colour is that of their class, where it is not
            to be the level's.

    Raises:
        ValueError: on an unknown level.
    """
    if level not in LEVELS:
        raise ValueError(f"unknown level {level!r}; choose one of {', '.join(LEVELS)}")
    background, pan = _draw_background(rng, level, height, width, length)
    count = int(rng.integers(2, 5))
    share = _COLOUR_IS_CLASS[level] if colour_is_class is None else colour_is_class
    labels: list[int | None] = [None] * count
    if level == "easy":  # two shapes of one flat colour show no border where they meet
        labels = [int(label) for label in rng.permutation(len(CLASSES))[:count]]
    objects = tuple(
        _draw_object(rng, level, label, share, height, width, length) for label in labels
    )
    return Scene(height, width, background, pan, objects)


def render_frame(scene: Scene, frame: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draws one frame.

    Returns:
        image: uint8 ``(H, W, 3)`` RGB.
        masks: bool ``(N, H, W)``, visible pixels of each object; they never overlap.
        full_areas: int ``(N,)``, pixels each object would show inside the frame if nothing hid it.
    """
    x, y = scene.pan[frame]
    image = scene.background[y : y + scene.height, x : x + scene.width].astype(np.float32)
    masks = np.zeros((len(scene.objects), scene.height, scene.width), dtype=bool)
    full_areas = np.zeros(len(scene.objects), dtype=np.int64)
    for index, item in enumerate(scene.objects):
        placed = _rasterise(item, frame, scene.height, scene.width)
        if placed is None:
            continue
        rows, cols, alpha, colour = placed
        window = image[rows, cols]
        window += alpha[..., None] * (colour - window)
        covered = alpha >= 0.5
        full_areas[index] = covered.sum()
        masks[:index, rows, cols] &= ~covered
        masks[index, rows, cols] = covered
    return np.clip(image + 0.5, 0, 255).astype(np.uint8), masks, full_areas


def _draw_background(
    rng: np.random.Generator, level: str, height: int, width: int, length: int
) -> tuple[np.ndarray, np.ndarray]:
    margin = 16
    if level == "easy":
        flat = (rng.integers(40, 216) + rng.integers(-14, 15, size=3)).astype(np.uint8)
        canvas = np.broadcast_to(flat, (height + margin, width + margin, 3)).copy()
    else:
        canvas = _photo_crop(rng, height + margin, width + margin)
    start = rng.uniform(0, margin, size=2)
    stop = rng.uniform(0, margin, size=2)
    steps = np.linspace(0.0, 1.0, max(length, 2))[:length, None]
    return canvas, np.floor(start + steps * (stop - start)).astype(np.int64)


def _draw_object(
    rng: np.random.Generator,
    level: str,
    label: int | None,
    colour_is_class: float,
    height: int,
    width: int,
    length: int,
) -> SceneObject:
    """Draws an object of the given class, or of any."""
    label = int(rng.integers(len(CLASSES))) if label is None else label
    follows_class = rng.random() < colour_is_class
    base = _PALETTE[label if follows_class else int(rng.integers(len(_PALETTE)))]
    jitter = rng.integers(-18, 19, size=3)
    colour = tuple(int(v) for v in np.clip(np.asarray(base) + jitter, 0, 255))
    size = min(height, width)
    radius = rng.uniform(0.15, 0.28) * size
    texture = _photo_crop(rng, size, size) if level == "hard" else None
    time = np.arange(length)
    swing = 1.0 + rng.uniform(0.0, 0.25) * np.sin(
        rng.uniform(0.1, 0.4) * time + rng.uniform(0, 6.3)
    )
    angles = rng.uniform(0, 2 * np.pi) + rng.uniform(-0.15, 0.15) * time
    return SceneObject(
        label,
        _draw_path(rng, height, width, length, radius),
        radius * swing,
        angles,
        colour,  # type: ignore[arg-type]
        texture,
    )


def _draw_path(
    rng: np.random.Generator, height: int, width: int, length: int, radius: float
) -> np.ndarray:
    """A straight path with a slow sway; one in four begins outside, one in four ends there."""
    extent = np.array([width, height], dtype=np.float64)
    start, stop = rng.uniform(0.12, 0.88, size=(2, 2)) * extent
    kind = rng.random()
    side = rng.integers(2)
    outside = rng.uniform(0.1, 0.9, size=2) * extent
    outside[side] = -1.3 * radius if rng.random() < 0.5 else extent[side] + 1.3 * radius
    if kind < 0.25:
        start = outside
    elif kind < 0.5:
        stop = outside
    steps = np.linspace(0.0, 1.0, max(length, 2))[:length, None]
    wave = np.sin(rng.uniform(2.0, 7.0) * steps + rng.uniform(0, 6.3))
    sway = rng.uniform(0.0, 0.06) * extent * wave
    return start + steps * (stop - start) + sway


def _rasterise(
    item: SceneObject, frame: int, height: int, width: int
) -> tuple[slice, slice, np.ndarray, np.ndarray] | None:
    """Coverage in [0, 1] and colour of an object inside its bounding square, or None outside."""
    (x, y), radius = item.centres[frame], float(item.radii[frame])
    left, top = int(np.floor(x - radius)) - 1, int(np.floor(y - radius)) - 1
    side = int(np.ceil(2 * radius)) + 3
    x0, y0, x1, y1 = max(left, 0), max(top, 0), min(left + side, width), min(top + side, height)
    if x0 >= x1 or y0 >= y1:
        return None
    canvas = Image.new("L", (side * _SUPERSAMPLE, side * _SUPERSAMPLE), 0)
    middle = np.array([x - left, y - top])
    outline = _outline(item.label, radius, float(item.angles[frame])) + middle
    ImageDraw.Draw(canvas).polygon([tuple(p) for p in outline * _SUPERSAMPLE], fill=255)
    alpha = np.asarray(canvas.reduce(_SUPERSAMPLE), dtype=np.float32) / 255.0
    if item.texture is None:
        colour = np.asarray(item.colour, dtype=np.float32)
    else:
        turned = -np.degrees(item.angles[frame])
        patch = Image.fromarray(item.texture).rotate(turned, Image.Resampling.BILINEAR)
        offset = (patch.width - side) // 2
        patch = patch.crop((offset, offset, offset + side, offset + side))
        colour = np.asarray(patch, dtype=np.float32)[y0 - top : y1 - top, x0 - left : x1 - left]
    inside = alpha[y0 - top : y1 - top, x0 - left : x1 - left]
    return slice(y0, y1), slice(x0, x1), inside, colour


def _outline(label: int, radius: float, angle: float) -> np.ndarray:
    """Corner points ``(P, 2)`` of a class's shape about the origin."""
    points = _unit_outline(CLASSES[label]) * radius
    cos, sin = np.cos(angle), np.sin(angle)
    return points @ np.array([[cos, sin], [-sin, cos]])


@lru_cache(maxsize=len(CLASSES))
def _unit_outline(name: str) -> np.ndarray:
    if name == "cross":
        a, b = 0.95, 0.32
        corners = [(b, a), (b, b), (a, b), (a, -b), (b, -b), (b, -a)]
        corners += [(-x, -y) for x, y in corners]
        return np.array(corners)
    sides = {"disc": 48, "square": 4, "triangle": 3, "star": 10}[name]
    turns = 2 * np.pi * np.arange(sides) / sides
    radii = np.where(np.arange(sides) % 2 == 1, 0.42, 1.0) if name == "star" else np.ones(sides)
    if name == "disc":
        radii = radii * 0.85
    return np.stack([radii * np.cos(turns), radii * np.sin(turns)], axis=1)


def _photo_crop(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """A random crop ``(height, width, 3)`` of a photograph, at a random scale, maybe mirrored."""
    photo = _photo(_PHOTOS[int(rng.integers(len(_PHOTOS)))])
    zoom = rng.uniform(1.0, 2.2)
    crop_h = min(int(height * zoom), photo.shape[0])
    crop_w = min(int(width * zoom), photo.shape[1])
    y = int(rng.integers(photo.shape[0] - crop_h + 1))
    x = int(rng.integers(photo.shape[1] - crop_w + 1))
    crop = photo[y : y + crop_h, x : x + crop_w]
    if rng.random() < 0.5:
        crop = crop[:, ::-1]
    return np.asarray(Image.fromarray(crop).resize((width, height), Image.Resampling.BOX))


@lru_cache(maxsize=len(_PHOTOS))
def _photo(name: str) -> np.ndarray:
    path = resources.files("skimage.data").joinpath(name)
    with resources.as_file(path) as file, Image.open(file) as image:
        return np.asarray(image.convert("RGB"))
