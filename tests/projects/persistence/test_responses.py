"""Both ways to the responses stay within their tolerance of SciPy's filters."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.projects.persistence.support_detector import random_frames
from vidseg.projects.persistence import responses
from vidseg.projects.persistence.responses import (
    CosineResponses,
    ScaleSpace,
    TiledResponses,
    exact_response,
    scale_space,
)

SIGMAS = np.array([0.6, 1.5, 4.0, 9.0])
CPU = torch.device("cpu")


def images(height: int, width: int) -> np.ndarray:
    rng = np.random.default_rng(height)
    rows, columns = np.mgrid[:height, :width]
    return np.stack(
        [
            np.ones((height, width)),
            (rows + columns) % 2,
            columns // 8 % 2,
            rng.integers(0, 2, (height, width)),
            random_frames(rng, 1, height, width)[0] / 255,
        ]
    ).astype(np.float32)


def largest_error(space: ScaleSpace, grey: np.ndarray) -> float:
    found = space(torch.from_numpy(grey)).numpy()
    assert found.dtype == np.float32
    exact = [[exact_response(image.astype(np.float64), s) for s in SIGMAS] for image in grey]
    return float(np.abs(found - exact).max())


# Of the smallest frame every kernel reaches over the whole of it, more than once.
@pytest.mark.parametrize("size", [(5, 8), (1, 1), (64, 64), (63, 97), (130, 257)])
@pytest.mark.parametrize("kind", [CosineResponses, TiledResponses])
def test_error_is_a_tenth_of_the_tolerance(kind: type[ScaleSpace], size: tuple[int, int]) -> None:
    space = kind(size, SIGMAS, CPU)
    assert largest_error(space, images(*size)) <= space.tolerance / 10


def test_large_frames_are_tiled() -> None:
    assert isinstance(scale_space((64, 128), SIGMAS, CPU), CosineResponses)
    assert isinstance(scale_space((64, 300), SIGMAS, CPU), TiledResponses)


def test_no_setting_of_matrix_products_reduces_the_precision(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch, "get_float32_matmul_precision", lambda: "medium")
    space = CosineResponses((64, 64), SIGMAS, CPU)
    assert space.dtype == torch.float64
    with torch.autocast("cpu", torch.bfloat16):
        assert largest_error(space, images(64, 64)) <= 1e-7
        assert largest_error(TiledResponses((64, 64), SIGMAS, CPU), images(64, 64)) <= 1e-7
    monkeypatch.undo()
    with torch.autocast("cpu", torch.bfloat16):
        space = scale_space((64, 64), SIGMAS, CPU)
        assert largest_error(space, images(64, 64)) <= space.tolerance / 10


def test_a_crop_has_the_bits_of_the_whole() -> None:
    image = random_frames(np.random.default_rng(3), 1, 90, 80)[0] / 255
    for sigma in SIGMAS[:3]:
        reach = responses.kernel_radius(sigma)
        whole = exact_response(image, sigma)
        for y, x in ((0, 0), (40, 40), (89, 30), (3, 79)):
            top, left = max(y - reach, 0), max(x - reach, 0)
            crop = exact_response(image[top : y + reach + 1, left : x + reach + 1], sigma)
            assert crop[y - top, x - left] == whole[y, x]
