"""Videos as users have them, brought to the one form that the model computes with.

Shapes: T frames of H x W pixels, C channels; leading axes are kept.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vidseg.errors import DataError

__all__ = ["to_clips", "to_video"]

_CHANNELS = (1, 3, 4)
_OVERSHOOT = 0.1  # how far resized images may leave [0, 1]; they are clamped


def to_video(frames: Tensor) -> Tensor:
    """Brings frames to colour in [0, 1].

    Args:
        frames: ``(..., T, C, H, W)``: grey, RGB or RGBA (alpha is dropped); uint8, or float taken
            as [0, 1].

    Returns:
        float32 ``(..., T, 3, H, W)``.

    Raises:
        DataError: if there are no pixels, if shape or type fit no video, or if a float is not
            finite or far outside of [0, 1].
    """
    shape = tuple(frames.shape)
    if frames.ndim < 4 or shape[-3] not in _CHANNELS:
        raise DataError(
            f"frames of shape {shape} are no video; give (T, C, H, W) with 1 channel (grey), "
            "3 (RGB) or 4 (RGBA)"
        )
    if not frames.numel():
        raise DataError(f"frames of shape {shape} have no pixels")
    rgb = frames[..., :3, :, :]
    if frames.dtype == torch.uint8:
        video = rgb.float() / 255
    elif frames.is_floating_point():
        video = _checked(rgb.float())
    else:
        raise DataError(f"frames of type {frames.dtype} have no range; give uint8 or float")
    return video.expand(*shape[:-3], 3, *shape[-2:])


def to_clips(video: Tensor) -> Tensor:
    """Brings a batch of clips ``(B, T, C, H, W)`` to colour in [0, 1], see :func:`to_video`.

    Raises:
        DataError: if it is no batch of clips.
    """
    if video.ndim != 5:
        raise DataError(
            f"clips of shape {tuple(video.shape)} are no batch (B, T, C, H, W); video[None] makes "
            "one of a single clip (T, C, H, W)"
        )
    return to_video(video)


def _checked(video: Tensor) -> Tensor:
    low, high = (float(value) for value in torch.aminmax(video.detach()))
    if not (low >= -_OVERSHOOT and high <= 1 + _OVERSHOOT):  # also where one is NaN
        raise DataError(
            f"the pixels lie within {low:g} to {high:g}; give uint8, or float in [0, 1]"
        )
    return video.clamp(0.0, 1.0)
