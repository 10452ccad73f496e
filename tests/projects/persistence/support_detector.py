"""Frames with blobs for the tests of the detector."""

from __future__ import annotations

import numpy as np

SETTINGS = {
    "min_sigma": 1.5,
    "max_sigma": 5.0,
    "num_sigma": 8,
    "log_scale": False,
    "threshold": 0.1,
    "overlap": 0.5,
}


def draw_disc(image: np.ndarray, y: float, x: float, radius: float, value: float = 1.0) -> None:
    rows, columns = np.ogrid[: image.shape[0], : image.shape[1]]
    cover = np.clip(radius + 0.5 - np.hypot(rows - y, columns - x), 0, 1)
    np.maximum(image, value * cover, out=image)


def random_frames(
    rng: np.random.Generator, num_frames: int, height: int, width: int, noise: float = 0.03
) -> np.ndarray:
    """Draws uint8 ``(T, H, W)``: discs, also across the border, on noise."""
    frames = np.zeros((num_frames, height, width))
    for frame in frames:
        for _ in range(rng.integers(1, 9)):
            y, x = rng.uniform(-2, height + 1), rng.uniform(-2, width + 1)
            draw_disc(frame, y, x, rng.uniform(2, 6), rng.uniform(0.4, 1))
    frames += rng.normal(0, noise, frames.shape)
    return (frames.clip(0, 1) * 255).astype(np.uint8)
