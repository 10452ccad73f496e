"""Detection of blobs, against ``blob_log`` of scikit-image with the same scales.

That both sides find the same blobs in the same order, in every frame, is checked first.
Shapes: T frames of H x W pixels.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from .case import Case, Run

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["CASES"]

_FRAMES_OF_A_CLIP = 16
_DISCS = 8  # of a frame at most, up to 2 pixels beyond its border
_RADII = (2.5, 6.0)
_NOISE = 0.03


@functools.cache
def _prepare(num_clips: int, num_frames: int, height: int, width: int) -> tuple[Any, Any, Any]:
    """Makes the detector, the arguments of the peer, and clips float32 ``(T, H, W)``."""
    import numpy as np
    from skimage.feature import blob_log

    from vidseg.config import get_cfg
    from vidseg.projects.persistence import add_config
    from vidseg.projects.persistence.detector import BlobDetector

    cfg = get_cfg()
    add_config(cfg)
    detector = BlobDetector.from_config(cfg)
    names = ("min_sigma", "max_sigma", "num_sigma", "threshold", "overlap", "log_scale")
    settings = {name: detector.settings()[name] for name in names}
    rng = np.random.default_rng(0)
    clips = [_draw(rng, num_frames, height, width) for _ in range(num_clips)]
    for clip in clips:
        for frame, found in zip(clip, detector.detect_blobs(clip), strict=True):
            if not np.array_equal(found, blob_log(frame.double().numpy(), **settings)):
                raise AssertionError("a frame has other blobs than the peer finds")
    return detector, settings, clips


def _draw(rng: Any, num_frames: int, height: int, width: int) -> Tensor:
    """Draws discs with soft edges on noise, in steps of a byte."""
    import numpy as np
    import torch

    rows, columns = np.ogrid[:height, :width]
    frames = rng.normal(0, _NOISE, (num_frames, height, width))
    for frame in frames:
        for _ in range(rng.integers(1, _DISCS + 1)):
            y, x = rng.uniform(-2, height + 1), rng.uniform(-2, width + 1)
            cover = np.clip(rng.uniform(*_RADII) + 0.5 - np.hypot(rows - y, columns - x), 0, 1)
            np.maximum(frame, rng.uniform(0.4, 1) * cover, out=frame)
    return torch.from_numpy((frames.clip(0, 1) * 255).astype(np.uint8)) / 255


def _ours(*sizes: int) -> Run:
    detector, _, clips = _prepare(*sizes)

    def run() -> object:
        return [detector.detect_blobs(clip) for clip in clips]

    return run


def _theirs(*sizes: int) -> Run:
    from skimage.feature import blob_log

    _, settings, clips = _prepare(*sizes)
    images = [frame.double().numpy() for clip in clips for frame in clip]

    def run() -> object:
        return [blob_log(image, **settings) for image in images]

    return run


def _case(name: str, bar: float, repeats: int, *sizes: int) -> Case:
    num_clips, num_frames, height, width = sizes
    return Case(
        name=name,
        about=f"{num_clips} clips of {num_frames} frames of {height} x {width} pixels, "
        "the scales of the default config",
        peer="skimage.feature.blob_log, frame by frame; the same blobs",
        bars={"cpu": bar},
        ours=lambda: _ours(*sizes),
        theirs=lambda: _theirs(*sizes),
        repeats=repeats,
    )


CASES = (
    _case("blob_detector_64", 4.0, 7, 20, _FRAMES_OF_A_CLIP, 64, 64),
    _case("blob_detector_128", 4.0, 5, 20, _FRAMES_OF_A_CLIP, 128, 128),
    _case("blob_detector_720p", 4.0, 5, 1, 4, 720, 1280),
)
