"""Clips of any layout, type and range become one form; what is none is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vidseg.errors import DataError
from vidseg.projects.persistence.layouts import ClipError, open_clip, to_frames

RNG = np.random.default_rng(0)
TCHW = RNG.integers(0, 256, (9, 3, 20, 24), dtype=np.uint8)
EXPECTED = torch.from_numpy(TCHW).float() / 255


@pytest.mark.parametrize("as_torch", [False, True])
@pytest.mark.parametrize("kind", ["uint8", "unit", "byte float", "float64", "float16"])
@pytest.mark.parametrize("layout", ["TCHW", "THWC"])
def test_layouts_types_and_ranges_agree(layout: str, kind: str, as_torch: bool) -> None:
    pixels = TCHW if layout == "TCHW" else TCHW.transpose(0, 2, 3, 1)
    clip = {
        "uint8": pixels,
        "unit": pixels.astype(np.float32) / 255,
        "byte float": pixels.astype(np.float32),
        "float64": pixels / 255,
        "float16": (pixels / 255).astype(np.float16),
    }[kind]
    for said in ("auto", layout):
        frames = to_frames(torch.from_numpy(clip) if as_torch else clip, said)
        assert frames.dtype == torch.float32
        torch.testing.assert_close(
            frames, EXPECTED, atol=1e-3 if kind == "float16" else 1e-7, rtol=0
        )


@pytest.mark.parametrize(
    ("shape", "layout", "frames", "read_as"),
    [
        ((20, 24), "auto", (1, 1, 20, 24), "HW"),
        ((9, 20, 24), "auto", (9, 1, 20, 24), "THW"),
        ((20, 24, 3), "auto", (1, 3, 20, 24), "HWC"),
        ((20, 24, 4), "auto", (1, 3, 20, 24), "HWC"),
        ((20, 24, 1), "auto", (20, 1, 24, 1), "THW"),
        ((20, 24, 1), "THWC", (1, 1, 20, 24), "HWC"),
        ((9, 20, 3), "TCHW", (9, 1, 20, 3), "THW"),
        ((9, 1, 20, 24), "auto", (9, 1, 20, 24), "TCHW"),
        ((9, 20, 24, 1), "auto", (9, 1, 20, 24), "THWC"),
        ((9, 4, 20, 24), "auto", (9, 3, 20, 24), "TCHW"),
        ((9, 3, 20, 4), "TCHW", (9, 3, 20, 4), "TCHW"),
        ((9, 3, 20, 4), "THWC", (9, 3, 3, 20), "THWC"),
    ],
)
def test_shapes(shape: tuple[int, ...], layout: str, frames: tuple[int, ...], read_as: str) -> None:
    clip = open_clip(np.zeros(shape, np.uint8), layout)
    assert (tuple(clip[:].shape), clip.layout) == (frames, read_as)


def test_alpha_is_dropped() -> None:
    clip = np.concatenate([TCHW, np.full_like(TCHW[:, :1], 7)], 1)
    assert torch.equal(to_frames(clip), EXPECTED)


def test_views_that_torch_refuses() -> None:
    assert torch.equal(to_frames(TCHW[::-1, :, ::-1]), EXPECTED.flip(0, 2))
    fixed = TCHW.copy()
    fixed.flags.writeable = False
    assert torch.equal(to_frames(fixed), EXPECTED)
    swapped = (TCHW / 255).astype(">f8")
    torch.testing.assert_close(to_frames(swapped), EXPECTED, atol=1e-7, rtol=0)


def test_overshoot_of_interpolation_is_clamped() -> None:
    frames = to_frames(np.array([[-0.01, 0.5], [1.02, 1.0]]))
    assert frames.flatten().tolist() == [0.0, 0.5, 1.0, 1.0]
    frames = to_frames(np.array([[-9.0, 51.0], [270.0, 255.0]]))
    assert frames.flatten().tolist() == pytest.approx([0.0, 0.2, 1.0, 1.0])


def with_bad_pixel(value: float) -> np.ndarray:
    clip = np.zeros((9, 20, 24), np.float32)
    clip[5, 3, 4] = value
    return clip


@pytest.mark.parametrize(
    ("clip", "layout", "said"),
    [
        (np.zeros((9, 3, 20, 3)), "auto", r"axis 1 or on axis 3; say layout='TCHW'"),
        (np.zeros((9, 20, 24, 5)), "auto", r"\(9, 20, 24, 5\) has 1, 3 or 4 channels on neither"),
        (np.zeros((9, 2, 20, 24)), "TCHW", r"4 channels not where TCHW says"),
        (np.zeros((9, 20, 24, 3)), "TCHW", r"\(9, 20, 24, 3\)"),
        (np.zeros((9, 20, 24)), "HWC", r"layout is 'HWC'; choose from auto, TCHW, THWC"),
        (np.zeros((2, 9, 3, 20, 24)), "auto", r"has 5 axes; give \(T, C, H, W\)"),
        (np.zeros(7), "auto", r"has 1 axes"),
        (np.zeros((0, 3, 20, 24)), "auto", r"\(0, 3, 20, 24\) is empty"),
        (np.zeros((9, 20, 24), np.int64), "auto", r"type int64 has no range; give uint8 or float"),
        (torch.zeros(9, 20, 24, dtype=torch.bool), "auto", r"type torch.bool has no range"),
        (with_bad_pixel(np.nan), "auto", r"frame 5 of 9 has pixels that are NaN or infinite"),
        (with_bad_pixel(-np.inf), "auto", r"frame 5 of 9"),
        (with_bad_pixel(-0.8), "auto", r"lie within -0.8 to 0; give float in \[0, 1\]"),
        (with_bad_pixel(4095.0), "auto", r"lie within 0 to 4095"),
        ((TCHW / 255 - 0.45) / 0.225, "auto", r"lie within -2 to 2\.44"),
        ("street.mp4", "auto", r"'street.mp4' is no clip but a path"),
    ],
)
def test_what_is_no_clip(clip: object, layout: str, said: str) -> None:
    with pytest.raises(ClipError, match=said) as caught:
        to_frames(clip, layout)
    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, DataError)
