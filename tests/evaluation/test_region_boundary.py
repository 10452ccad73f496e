"""J and F against recorded figures, morphology of scikit-image, and cases done by hand."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tests.golden_utils import GOLDEN
from vidseg.evaluation.region_boundary import _dilate, region_boundary_shares

FOLDER = GOLDEN / "davis_j_and_f"


@pytest.mark.parametrize("name", ["seq0", "seq1"])
def test_recorded_figures(name: str) -> None:
    expected = json.loads((FOLDER / "expected.json").read_text())[name]
    arrays = np.load(FOLDER / "masks.npz")
    labels = arrays[f"{name}/gt"].astype(np.int64)
    labels[labels == 255] = -1
    found = region_boundary_shares(labels, arrays[f"{name}/pred"], background=0)
    for key, recorded in (("J", "J-Mean"), ("F", "F-Mean"), ("J&F", "J&F")):
        total, number = found[key]
        assert number == expected["num_gt_tracks"]
        assert total / number == pytest.approx(expected[recorded], abs=1e-12)


@pytest.mark.parametrize("radius", [0, 1, 2, 5, 8])
def test_discs_are_those_of_scikit_image(radius: int) -> None:
    morphology = pytest.importorskip("skimage.morphology")
    masks = np.random.default_rng(radius).random((3, 11, 17)) < 0.04
    expected = [morphology.dilation(mask, morphology.disk(radius)) for mask in masks]
    assert (_dilate(masks, radius) == np.stack(expected)).all()


def square(row: int, column: int, *, number: int = 1, length: int = 2) -> np.ndarray:
    labels = np.zeros((length, 20, 20), np.int64)
    labels[:, row : row + 6, column : column + 6] = number
    return labels


def shares(labels: np.ndarray, segments: np.ndarray, **options: int) -> dict[str, float]:
    found = region_boundary_shares(labels, segments, **options)
    return {name: total / number for name, (total, number) in found.items()}


def test_boundaries_may_lie_a_pixel_apart() -> None:
    labels = square(5, 5)
    assert shares(labels, labels) == {"J": 1, "F": 1, "J&F": 1}
    moved = shares(labels, square(5, 6))
    assert moved["F"] == 1
    assert moved["J"] == pytest.approx(30 / 42)
    assert moved["J&F"] == pytest.approx((1 + 30 / 42) / 2)
    assert shares(labels, square(5, 8))["F"] < 0.7


def test_numbers_say_nothing() -> None:
    labels = square(5, 5) + square(12, 12, number=70_000)
    assert shares(labels, square(5, 5, number=9) + square(12, 12, number=90_000))["J&F"] == 1


def test_an_object_that_leaves() -> None:
    labels = square(5, 5)
    labels[1] = 0
    assert shares(labels, labels)["J&F"] == 1
    assert shares(labels, square(5, 5)) == {"J": 0.5, "F": 0.5, "J&F": 0.5}


def test_an_object_without_a_segment_and_one_of_background() -> None:
    labels = square(2, 2) + square(12, 12, number=2)
    one = square(2, 2)
    assert shares(labels, one, background=0)["J"] == 0.5
    assert shares(labels, one)["J"] > 0.5  # the segment of the background fits a little
    assert shares(labels, np.zeros_like(labels), background=0)["J&F"] == 0


def test_void_is_cut_out_of_segments() -> None:
    labels = square(5, 5)
    labels[:, 11:13, 5:11] = -1
    segments = np.where(labels < 0, 1, labels)
    assert shares(labels, segments)["J&F"] == 1


def test_nothing_to_score() -> None:
    nothing = {"J": (0, 0), "F": (0, 0), "J&F": (0, 0)}
    assert region_boundary_shares(square(1, 1) * 0, square(1, 1)) == nothing
    assert region_boundary_shares(square(1, 1)[:0], square(1, 1)[:0]) == nothing
