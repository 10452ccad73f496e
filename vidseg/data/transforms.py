"""Image operations with their counterparts for masks and polygons; nothing here is random.

Images are resized bilinearly as PIL does it, masks by nearest neighbour. Resizing, cropping and
flipping a mask only picks rows and columns, so a chain of them is one look-up per axis.

Shapes: N masks, H W pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

__all__ = [
    "Blend",
    "Crop",
    "Flip",
    "Pad",
    "Resize",
    "Rotate",
    "Transform",
    "apply_to_image",
    "apply_to_masks",
    "apply_to_polygon",
    "nearest_indices",
    "shortest_edge_size",
]

_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)  # ITU-R BT.601


class Transform:
    """One operation; the base class leaves everything as it is.

    A *separable* one moves masks by picking rows and columns (``pick``); any other one implements
    ``masks``.
    """

    separable = True

    def image(self, image: np.ndarray) -> np.ndarray:
        """Maps a uint8 ``(H, W, 3)`` image."""
        return image

    def pick(self, rows: np.ndarray, cols: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Maps the source row of every row, and the source column of every column."""
        return rows, cols

    def masks(self, masks: np.ndarray) -> np.ndarray:
        """Maps bool masks ``(N, H, W)``."""
        return masks

    def points(self, points: np.ndarray) -> np.ndarray:
        """Maps ``(P, 2)`` float points x, y."""
        return points


@dataclass(frozen=True)
class Resize(Transform):
    """Resizes from ``source`` to ``size``, both (H, W)."""

    source: tuple[int, int]
    size: tuple[int, int]

    def image(self, image: np.ndarray) -> np.ndarray:
        """Maps a uint8 ``(H, W, 3)`` image."""
        if self.source == self.size:
            return image
        height, width = self.size
        resized = Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR)
        return np.asarray(resized)

    def pick(self, rows: np.ndarray, cols: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Maps row and column numbers."""
        return (
            rows[nearest_indices(len(rows), self.size[0])],
            cols[nearest_indices(len(cols), self.size[1])],
        )

    def points(self, points: np.ndarray) -> np.ndarray:
        """Maps points."""
        scale = (self.size[1] / self.source[1], self.size[0] / self.source[0])
        return points * np.array(scale)


@dataclass(frozen=True)
class Crop(Transform):
    """Keeps ``size`` (H, W) pixels from row ``top`` and column ``left`` on."""

    top: int
    left: int
    size: tuple[int, int]

    def image(self, image: np.ndarray) -> np.ndarray:
        """Maps a uint8 ``(H, W, 3)`` image."""
        return image[self.top : self.top + self.size[0], self.left : self.left + self.size[1]]

    def pick(self, rows: np.ndarray, cols: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Maps row and column numbers."""
        return (
            rows[self.top : self.top + self.size[0]],
            cols[self.left : self.left + self.size[1]],
        )

    def points(self, points: np.ndarray) -> np.ndarray:
        """Maps points."""
        return points - np.array([self.left, self.top])


@dataclass(frozen=True)
class Flip(Transform):
    """Mirrors an image of ``size`` (H, W), left to right or (``vertical``) top to bottom."""

    size: tuple[int, int]
    vertical: bool = False

    def image(self, image: np.ndarray) -> np.ndarray:
        """Maps a uint8 ``(H, W, 3)`` image."""
        return image[::-1] if self.vertical else image[:, ::-1]

    def pick(self, rows: np.ndarray, cols: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Maps row and column numbers."""
        return (rows[::-1], cols) if self.vertical else (rows, cols[::-1])

    def points(self, points: np.ndarray) -> np.ndarray:
        """Maps points."""
        flipped = points.copy()
        axis = 1 if self.vertical else 0
        flipped[:, axis] = self.size[1 - axis] - points[:, axis]
        return flipped


@dataclass(frozen=True)
class Pad(Transform):
    """Extends to ``size`` (H, W) below and to the right, images in grey, masks with background."""

    size: tuple[int, int]
    value: int = 128
    separable = False

    def image(self, image: np.ndarray) -> np.ndarray:
        """Maps a uint8 ``(H, W, 3)`` image."""
        padded = np.full((*self.size, image.shape[2]), self.value, dtype=image.dtype)
        padded[: image.shape[0], : image.shape[1]] = image
        return padded

    def masks(self, masks: np.ndarray) -> np.ndarray:
        """Maps bool masks."""
        padded = np.zeros((len(masks), *self.size), dtype=bool)
        padded[:, : masks.shape[1], : masks.shape[2]] = masks
        return padded


@dataclass(frozen=True)
class Rotate(Transform):
    """Rotates counter-clockwise by ``angle`` degrees about ``center`` (x, y); the size stays."""

    angle: float
    center: tuple[float, float]
    separable = False

    def image(self, image: np.ndarray) -> np.ndarray:
        """Maps a uint8 ``(H, W, 3)`` image; what comes from outside is black."""
        return self._rotate(image, Image.Resampling.BILINEAR)

    def masks(self, masks: np.ndarray) -> np.ndarray:
        """Maps bool masks."""
        turned = [self._rotate(m.astype(np.uint8), Image.Resampling.NEAREST) for m in masks]
        return np.stack(turned).astype(bool) if turned else masks

    def points(self, points: np.ndarray) -> np.ndarray:
        """Maps points."""
        radians = math.radians(self.angle)
        cosine, sine = math.cos(radians), math.sin(radians)
        # y points down, so counter-clockwise on the screen has the sines swapped.
        matrix = np.array([[cosine, -sine], [sine, cosine]])
        return (points - self.center) @ matrix + self.center

    def _rotate(self, array: np.ndarray, resample: Image.Resampling) -> np.ndarray:
        image = Image.fromarray(np.ascontiguousarray(array))
        return np.asarray(image.rotate(self.angle, resample=resample, center=self.center))


@dataclass(frozen=True)
class Blend(Transform):
    """Changes colours: the image is blended with black, its mean or its grey version.

    Args:
        kind: ``"brightness"``, ``"contrast"`` or ``"saturation"``.
        weight: of the image itself; 1 changes nothing, 0 leaves only the other one.
    """

    kind: str
    weight: float

    def image(self, image: np.ndarray) -> np.ndarray:
        """Maps a uint8 ``(H, W, 3)`` image."""
        pixels = image.astype(np.float32)
        mixed = self.weight * pixels
        if self.kind == "contrast":
            mixed += (1.0 - self.weight) * pixels.mean()
        elif self.kind == "saturation":
            mixed += (1.0 - self.weight) * (pixels @ _LUMA)[..., None]
        return np.clip(mixed, 0, 255).astype(np.uint8)


def apply_to_image(transforms: Sequence[Transform], image: np.ndarray) -> np.ndarray:
    """Applies a chain to a uint8 ``(H, W, 3)`` image."""
    for transform in transforms:
        image = transform.image(image)
    return image


def apply_to_masks(transforms: Sequence[Transform], masks: np.ndarray) -> np.ndarray:
    """Applies a chain to bool masks ``(N, H, W)``; separable stretches cost one look-up."""
    rows, cols = np.arange(masks.shape[1]), np.arange(masks.shape[2])
    for transform in transforms:
        if transform.separable:
            rows, cols = transform.pick(rows, cols)
        else:
            masks = transform.masks(_look_up(masks, rows, cols))
            rows, cols = np.arange(masks.shape[1]), np.arange(masks.shape[2])
    return _look_up(masks, rows, cols)


def apply_to_polygon(transforms: Sequence[Transform], polygon: Sequence[float]) -> list[float]:
    """Applies a chain to a polygon ``[x0, y0, x1, y1, ...]``; points may leave the image."""
    points = np.asarray(polygon, dtype=np.float64).reshape(-1, 2)
    for transform in transforms:
        points = transform.points(points)
    return points.reshape(-1).tolist()


def shortest_edge_size(height: int, width: int, shortest: int, longest: int) -> tuple[int, int]:
    """Gives the size with the shortest edge ``shortest`` and the longest at most ``longest``.

    Args:
        height: of the image.
        width: of the image.
        shortest: wanted length of the shorter side in pixels; 0 or less keeps the size.
        longest: limit of the longer side in pixels, stronger than ``shortest``.

    Returns:
        (height, width), each rounded half up.
    """
    if shortest <= 0:
        return height, width
    scale = shortest / min(height, width)
    new_height, new_width = (
        (float(shortest), scale * width) if height < width else (scale * height, float(shortest))
    )
    if max(new_height, new_width) > longest:
        scale = longest / max(new_height, new_width)
        new_height, new_width = new_height * scale, new_width * scale
    return max(int(new_height + 0.5), 1), max(int(new_width + 0.5), 1)


def nearest_indices(source: int, target: int) -> np.ndarray:
    """Gives the source position of each of ``target`` positions as PIL's nearest filter picks it.

    Returns:
        int64 ``(target,)`` in [0, source).
    """
    if source == target:
        return np.arange(source)
    step = source / target
    # PIL adds the step up instead of multiplying; only the same sum rounds the same way.
    position = np.cumsum(np.concatenate([[step * 0.5], np.full(target - 1, step)]))
    return np.clip(position.astype(np.int64), 0, source - 1)


def _look_up(masks: np.ndarray, rows: np.ndarray, cols: np.ndarray) -> np.ndarray:
    if not _is_identity(rows, masks.shape[1]):
        masks = masks[:, rows]
    if not _is_identity(cols, masks.shape[2]):
        masks = masks[:, :, cols]
    return masks


def _is_identity(index: np.ndarray, length: int) -> bool:
    return len(index) == length and np.array_equal(index, np.arange(length))
