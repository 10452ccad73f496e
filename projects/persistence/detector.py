"""Detector of bright blobs: maxima of the Laplacian of Gaussian over space and scale.

Source: Lindeberg, "Feature Detection with Automatic Scale Selection", IJCV 1998; the reference is
``skimage.feature.blob_log``, whose blobs the batched detector finds as well, in the same order.
Shapes: T frames of H x W pixels, C channels, S scales, N blobs.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vidseg.config import CfgNode
from vidseg.errors import ConfigError, nearest

from .confidence import measure_blobs, size_factor
from .detections import Detections
from .layouts import ClipFrames, open_clip
from .peaks import find_peaks, prune_overlaps
from .responses import ScaleSpace, scale_space

__all__ = ["BACKENDS", "GREYS", "BlobDetector"]

logger = logging.getLogger(__name__)

BACKENDS = ("torch", "skimage")
GREYS = ("max", "luma", "dark")

_KEY = "MODEL.PERSISTENCE.DETECTOR"
_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601
_CHUNK = 1 << 21  # responses at a time
_LEAST_WARNED = 8  # frames of a clip from which on it is strange that there is nothing


class BlobDetector:
    """Finds the blobs of a clip and measures them.

    Args:
        backend: ``"torch"``, or ``"skimage"`` for ``blob_log`` itself, with the same results.
        grey: ``"max"`` of the colour channels, ``"luma"``, or ``"dark"``, one minus the smallest
            channel, for dark objects on light ground.
        min_sigma: smallest scale in pixels; the radius of a blob is sqrt(2) times its scale.
        max_sigma: largest scale in pixels.
        num_sigma: number of scales.
        log_scale: spaces the scales evenly in their logarithm.
        threshold: of the response, for frames in [0, 1].
        overlap: share of the smaller disc from which on the smaller blob is dropped.
        max_per_frame: blobs kept of a frame, by confidence.
        expected_radius: in pixels; 0 takes the geometric mean of the smallest and the largest.
        confidence_weights: exponents of brightness, circularity and size; they sum to 1.

    Raises:
        ValueError: if a value is out of its range.
    """

    def __init__(
        self,
        *,
        backend: str = "torch",
        grey: str = "max",
        min_sigma: float,
        max_sigma: float,
        num_sigma: int,
        log_scale: bool,
        threshold: float,
        overlap: float,
        max_per_frame: int,
        expected_radius: float = 0.0,
        confidence_weights: Sequence[float] = (0.5, 0.3, 0.2),
    ) -> None:
        self._settings: dict[str, Any] = {
            "backend": backend,
            "grey": grey,
            "min_sigma": float(min_sigma),
            "max_sigma": float(max_sigma),
            "num_sigma": num_sigma,
            "log_scale": log_scale,
            "threshold": float(threshold),
            "overlap": float(overlap),
            "max_per_frame": max_per_frame,
            "expected_radius": float(expected_radius),
            "confidence_weights": [float(weight) for weight in confidence_weights],
        }
        _check(self._settings)
        if log_scale:
            self.sigmas = np.logspace(np.log10(min_sigma), np.log10(max_sigma), num_sigma)
        else:
            self.sigmas = np.linspace(min_sigma, max_sigma, num_sigma)
        self.expected_radius = expected_radius or math.sqrt(2 * min_sigma * max_sigma)
        self._scale_space: ScaleSpace | None = None
        self._has_warned = False

    @classmethod
    def from_config(cls, cfg: CfgNode) -> BlobDetector:
        """Builds the detector of ``MODEL.PERSISTENCE.DETECTOR``.

        Raises:
            ConfigError: if a value is out of its range.
        """
        node = cfg.MODEL.PERSISTENCE.DETECTOR
        try:
            return cls(
                backend=node.BACKEND,
                grey=node.GREY,
                min_sigma=node.MIN_SIGMA,
                max_sigma=node.MAX_SIGMA,
                num_sigma=node.NUM_SIGMA,
                log_scale=node.LOG_SCALE,
                threshold=node.THRESHOLD,
                overlap=node.OVERLAP,
                max_per_frame=node.MAX_PER_FRAME,
                expected_radius=node.EXPECTED_RADIUS,
                confidence_weights=node.CONFIDENCE_WEIGHTS,
            )
        except ValueError as error:
            name, _, rest = str(error).partition(" ")
            raise ConfigError(f"{_KEY}.{name.upper()} {rest}") from error

    def settings(self) -> dict[str, Any]:
        """Gives everything that results depend on, as plain values."""
        return dict(self._settings)

    def __call__(self, clip: Any, layout: str = "auto") -> Detections:
        """Finds and measures the blobs of a clip.

        Args:
            clip: see ``open_clip``.
            layout: see ``open_clip``.

        Raises:
            ClipError: if ``clip`` is none.
        """
        frames = open_clip(clip, layout)
        chunk = self._frames_at_a_time(frames.size)
        parts = [
            self._measure(frames[start : start + chunk], start)
            for start in range(0, len(frames), chunk)
        ]
        rows = {
            name: torch.from_numpy(np.concatenate([p[name] for p in parts])) for name in parts[0]
        }
        if not len(rows["frame"]):
            self._warn_of_nothing(frames)
        return Detections(num_frames=len(frames), size=frames.size, **rows)

    def detect_blobs(self, grey: Tensor) -> list[np.ndarray]:
        """Finds the blobs of frames, without measuring them.

        Args:
            grey: float32 ``(T, H, W)`` in [0, 1].

        Returns:
            For each frame float64 ``(N, 3)``: row, column, sigma, by falling response.
        """
        blobs = []
        for part in grey.split(self._frames_at_a_time((grey.shape[1], grey.shape[2]))):
            found = self._detect(part)
            bounds = np.searchsorted(found.frame, np.arange(1, len(part)))
            blobs += np.split(found.blobs, bounds)
        return blobs

    @torch.no_grad()
    def _detect(self, grey: Tensor) -> _Found:
        space = self._space(grey)
        responses, images = space(grey).cpu().numpy(), grey.cpu().numpy()
        if self._settings["backend"] == "skimage":
            return self._detect_with_skimage(images, responses)
        threshold = self._settings["threshold"]
        peaks = find_peaks(responses, images, self.sigmas, threshold, space.tolerance)
        blobs = peaks.points[:, [1, 2, 0]].astype(np.float64)
        blobs[:, 2] = self.sigmas[peaks.points[:, 0]]
        keep = prune_overlaps(peaks.frame, blobs, self._settings["overlap"])
        return _Found(peaks.frame[keep], blobs[keep], peaks.values[keep])

    def _detect_with_skimage(self, images: np.ndarray, responses: np.ndarray) -> _Found:
        from skimage.feature import blob_log

        names = ("min_sigma", "max_sigma", "num_sigma", "threshold", "overlap", "log_scale")
        settings = {name: self._settings[name] for name in names}
        each = [blob_log(image.astype(np.float64), **settings) for image in images]
        frame = np.repeat(np.arange(len(each)), [len(blobs) for blobs in each])
        blobs = np.concatenate(each)
        y, x = blobs[:, :2].astype(np.int64).T
        scale = np.abs(blobs[:, 2, None] - self.sigmas).argmin(1)
        return _Found(frame, blobs, responses[frame, scale, y, x].astype(np.float64))

    def _measure(self, frames: Tensor, start: int) -> dict[str, np.ndarray]:
        """Gives the fields of ``Detections`` of a chunk that starts at a frame."""
        grey = self._grey(frames)
        found = self._detect(grey)
        seen = measure_blobs(frames.cpu().numpy(), grey.cpu().numpy(), found.blobs, found.frame)
        y, x, sigma = found.blobs.T
        size = size_factor(math.sqrt(2) * sigma, self.expected_radius)
        factors = (seen.brightness, seen.circularity, size)
        weights = self._settings["confidence_weights"]
        confidence = np.prod([f**w for f, w in zip(factors, weights, strict=True)], axis=0)
        order = np.lexsort((-confidence, found.frame))
        rank = np.arange(len(order)) - np.searchsorted(found.frame, found.frame)
        order = order[rank < self._settings["max_per_frame"]]
        columns = {
            "y": y,
            "x": x,
            "sigma": sigma,
            "response": found.responses,
            "brightness": seen.brightness,
            "circularity": seen.circularity,
            "confidence": confidence,
            "color": seen.color,
        }
        kept = {name: column[order].astype(np.float32) for name, column in columns.items()}
        return {"frame": found.frame[order] + start, **kept}

    def _grey(self, frames: Tensor) -> Tensor:
        if self._settings["grey"] == "dark":
            return 1 - frames.amin(1)
        if self._settings["grey"] == "max" or frames.shape[1] == 1:
            return frames.amax(1)
        return torch.einsum("tchw,c->thw", frames, frames.new_tensor(_LUMA))

    def _space(self, grey: Tensor) -> ScaleSpace:
        size = (grey.shape[1], grey.shape[2])
        if self._scale_space is None or self._scale_space.size != size:
            self._scale_space = scale_space(size, self.sigmas, grey.device)
        return self._scale_space

    def _frames_at_a_time(self, size: tuple[int, int]) -> int:
        return max(_CHUNK // (size[0] * size[1] * len(self.sigmas)), 1)

    def _warn_of_nothing(self, frames: ClipFrames) -> None:
        if self._has_warned or len(frames) < _LEAST_WARNED:
            return
        self._has_warned = True
        low, high = frames.value_range
        logger.warning(
            "no blob in any of %d frames, read as %s with values from %g to %g, at a threshold "
            "of %g; a wrong layout or range looks like this (said once)",
            len(frames),
            frames.layout,
            low,
            high,
            self._settings["threshold"],
        )


@dataclass
class _Found:
    """Blobs of a chunk, frame after frame and within one by falling response.

    Attributes:
        frame: int64 ``(N,)``, ascending.
        blobs: float64 ``(N, 3)``: row, column, sigma.
        responses: float64 ``(N,)``.
    """

    frame: np.ndarray
    blobs: np.ndarray
    responses: np.ndarray


def _check(settings: dict[str, Any]) -> None:
    """Refuses values out of range; a message begins with the name of the argument."""

    def require(is_met: bool, name: str, why: str) -> None:
        if not is_met:
            raise ValueError(f"{name} is {settings[name]!r}; {why}")

    for name, choices in (("backend", BACKENDS), ("grey", GREYS)):
        value = settings[name]
        require(value in choices, name, f"nearest: {', '.join(nearest(value, choices) or choices)}")
    require(settings["min_sigma"] > 0, "min_sigma", "it must be above 0")
    low = settings["min_sigma"]
    require(low <= settings["max_sigma"] < math.inf, "max_sigma", f"min_sigma is {low:g}")
    for name in ("num_sigma", "max_per_frame"):
        require(settings[name] >= 1, name, "it must be 1 or more")
    require(settings["threshold"] > 0, "threshold", "it must be above 0")
    require(0 <= settings["overlap"] <= 1, "overlap", "it must lie within 0 to 1")
    require(0 <= settings["expected_radius"] < math.inf, "expected_radius", "it cannot be negative")
    weights = settings["confidence_weights"]
    fits = len(weights) == 3 and min(weights) >= 0 and math.isclose(sum(weights), 1, abs_tol=1e-6)
    require(fits, "confidence_weights", "give three that are 0 or more and sum to 1")
