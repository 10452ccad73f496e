"""Clips as users have them: any layout of the axes, uint8 or float, NumPy or torch.

Shapes: T frames of H x W pixels, C channels. The spellings of a layout are those of ``LAYOUTS``.
"""

from __future__ import annotations

from dataclasses import dataclass
from os import PathLike
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vidseg.errors import DataError

__all__ = ["LAYOUTS", "ClipError", "ClipFrames", "open_clip", "to_frames"]

LAYOUTS = ("auto", "TCHW", "THWC")

_CHANNELS = (1, 3, 4)
_BYTE_RANGE = 1.5  # a float image with a larger value counts from 0 to 255
_OVERSHOOT = 0.1  # how far interpolated images may leave [0, 1]; they are clamped


class ClipError(DataError, ValueError):
    """Reports pixels that cannot be a clip: wrong shape, type, range, or not finite."""


@dataclass(frozen=True)
class ClipFrames:
    """A checked clip whose frames are normalised when they are asked for.

    Attributes:
        pixels: view ``(T, C, H, W)`` of what the user gave, C 1 or 3, in its own type.
        layout: how its axes were read, such as ``"THWC"`` or ``"HW"``.
        white: value of full brightness, 1 or 255.
        value_range: its smallest and largest value.
    """

    pixels: Tensor
    layout: str
    white: float
    value_range: tuple[float, float]

    def __len__(self) -> int:
        return len(self.pixels)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.pixels.shape[2], self.pixels.shape[3]

    def __getitem__(self, frames: slice) -> Tensor:
        """Gives the frames as float32 ``(T', C, H, W)`` in [0, 1]."""
        pixels = self.pixels[frames].to(torch.float32, memory_format=torch.contiguous_format)
        return (pixels / self.white).clamp_(0.0, 1.0)


def to_frames(clip: Any, layout: str = "auto") -> Tensor:
    """Brings a clip into one form.

    Args:
        clip: see ``open_clip``.
        layout: see ``open_clip``.

    Returns:
        float32 ``(T, C, H, W)`` in [0, 1], C 1 or 3, on the device of ``clip``.

    Raises:
        ClipError: see ``open_clip``.
    """
    return open_clip(clip, layout)[:]


def open_clip(clip: Any, layout: str = "auto") -> ClipFrames:
    """Checks a clip and finds out how to read it, without copying it.

    Args:
        clip: array or tensor ``(T, C, H, W)``, ``(T, H, W, C)``, ``(T, H, W)``, ``(H, W, C)`` or
            ``(H, W)`` with 1, 3 or 4 channels (of 4 the last, alpha, is dropped); uint8, or float
            in [0, 1] or [0, 255], the latter recognised by a value above 1.5. Three axes are a
            colour image if the last has 3 or 4 entries, else frames of grey.
        layout: ``"TCHW"`` or ``"THWC"`` where the shape alone does not tell; three axes are then
            frames of grey with the former, and a colour image with the latter.

    Raises:
        ClipError: if there are no pixels, if shape or type fit no layout or the shape fits two, or
            if a value is not finite or lies outside of both ranges.
    """
    if layout not in LAYOUTS:
        raise ClipError(f"layout is {layout!r}; choose from {', '.join(LAYOUTS)}")
    pixels = _as_tensor(clip)
    shape = tuple(pixels.shape)
    if not 2 <= pixels.ndim <= 4:
        raise ClipError(
            f"a clip of shape {shape} has {pixels.ndim} axes; give (T, C, H, W), (T, H, W, C), "
            "(T, H, W), (H, W, C) or (H, W)"
        )
    if not pixels.numel():
        raise ClipError(f"a clip of shape {shape} is empty")
    pixels, read_as = _in_order(pixels, layout)
    low, high = _check_values(pixels)
    is_byte = pixels.dtype == torch.uint8 or high > _BYTE_RANGE
    return ClipFrames(pixels, read_as, 255.0 if is_byte else 1.0, (low, high))


def _as_tensor(clip: Any) -> Tensor:
    if isinstance(clip, str | PathLike):
        raise ClipError(f"{str(clip)!r} is no clip but a path; read its frames first")
    if isinstance(clip, Tensor):
        pixels = clip.detach()
    else:
        array = np.asarray(clip)
        if array.dtype != np.uint8 and array.dtype.kind != "f":
            raise ClipError(f"a clip of type {array.dtype} has no range; give uint8 or float")
        if array.dtype.itemsize > 8 or not array.dtype.isnative:
            array = array.astype(np.float64)
        # Torch takes neither negative strides nor, without a warning, arrays that it may not write.
        pixels = torch.from_numpy(array if _is_plain(array) else array.copy())
    if pixels.dtype != torch.uint8 and not pixels.is_floating_point():
        raise ClipError(f"a clip of type {pixels.dtype} has no range; give uint8 or float")
    return pixels


def _is_plain(array: np.ndarray) -> bool:
    return array.flags.writeable and all(stride >= 0 for stride in array.strides)


def _in_order(pixels: Tensor, layout: str) -> tuple[Tensor, str]:
    """Gives the view ``(T, C, H, W)`` without alpha, and the layout it was read as."""
    shape = tuple(pixels.shape)
    if pixels.ndim == 2:
        return pixels[None, None], "HW"
    if pixels.ndim == 3:
        is_color = shape[2] in _CHANNELS if layout == "THWC" else shape[2] in (3, 4)
        if layout == "TCHW" or not is_color:
            return pixels[:, None], "THW"
        return pixels.permute(2, 0, 1)[None, :3], "HWC"
    fits = [name for name, axis in (("TCHW", 1), ("THWC", 3)) if shape[axis] in _CHANNELS]
    if layout == "auto" and len(fits) == 2:
        raise ClipError(
            f"a clip of shape {shape} may have its channels on axis 1 or on axis 3; "
            "say layout='TCHW' or layout='THWC'"
        )
    if not fits or layout not in ("auto", *fits):
        where = "on neither axis 1 nor axis 3" if layout == "auto" else f"not where {layout} says"
        raise ClipError(f"a clip of shape {shape} has 1, 3 or 4 channels {where}")
    read_as = fits[0] if layout == "auto" else layout
    ordered = pixels if read_as == "TCHW" else pixels.permute(0, 3, 1, 2)
    return ordered[:, :3], read_as


def _check_values(pixels: Tensor) -> tuple[float, float]:
    """Gives the smallest and the largest value, frame after frame to save memory."""
    if pixels.dtype == torch.uint8:
        return float(pixels.amin()), float(pixels.amax())
    lows, highs = [], []
    for number, frame in enumerate(pixels):
        low, high = (float(value) for value in torch.aminmax(frame))
        if not (np.isfinite(low) and np.isfinite(high)):
            raise ClipError(f"frame {number} of {len(pixels)} has pixels that are NaN or infinite")
        lows.append(low)
        highs.append(high)
    low, high = min(lows), max(highs)
    largest = 255.0 if high > _BYTE_RANGE else _BYTE_RANGE
    # Measured by what is there: images with their mean taken off may well be above 1.5.
    if low < -_OVERSHOOT * max(high, _BYTE_RANGE) or high > (1 + _OVERSHOOT) * largest:
        raise ClipError(
            f"the pixels lie within {low:g} to {high:g}; give float in [0, 1] or [0, 255]"
        )
    return low, high
