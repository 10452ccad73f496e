"""J and F against recorded figures, morphology of scikit-image, and cases done by hand."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tests.golden_utils import GOLDEN
from vidseg.evaluation.region_boundary import (
    _dilate,
    named_region_boundary_shares,
    region_boundary_shares,
)

FOLDER = GOLDEN / "davis_j_and_f"


@pytest.mark.parametrize("name", ["seq0", "seq1"])
def test_recorded_figures(name: str) -> None:
    expected = json.loads((FOLDER / "expected.json").read_text())[name]
    arrays = np.load(FOLDER / "masks.npz")
    labels = arrays[f"{name}/gt"].astype(np.int64)
    labels[labels == 255] = -1
    found = region_boundary_shares(labels, arrays[f"{name}/pred"], background=0)
    for key, (total, number) in found.items():
        recorded = f"{key}-Mean" if key in ("J", "F") else key
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
    return means(region_boundary_shares(labels, segments, **options))


def means(found: dict[str, tuple[float, float]]) -> dict[str, float]:
    return {name: total / number for name, (total, number) in found.items()}


def test_boundaries_may_lie_a_pixel_apart() -> None:
    labels = square(5, 5)
    perfect = shares(labels, labels)
    assert perfect == dict.fromkeys(("J&F", "J", "J-Recall", "F", "F-Recall"), 1) | {
        "J-Decay": 0,
        "F-Decay": 0,
    }
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
    halved = shares(labels, square(5, 5))
    assert (halved["J"], halved["F"], halved["J&F"]) == (0.5, 0.5, 0.5)
    assert (halved["J-Recall"], halved["J-Decay"]) == (0.5, 1)


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
    one = square(1, 1)
    for labels, segments in ((one * 0, one), (one[:0], one[:0])):
        for strict in (False, True):
            found = region_boundary_shares(labels, segments, strict=strict)
            assert set(found.values()) == {(0, 0)}
    for labels in (one * 0, one, one[:1], one[:0]):  # nothing is between first and last frame
        assert set(named_region_boundary_shares(labels, labels).values()) == {(0, 0)}


@pytest.mark.parametrize(
    ("length", "first", "last"), [(1, 1, 1), (2, 1, 1), (6, 2, 2), (8, 3, 3), (12, 4, 4)]
)
def test_recall_and_decay(length: int, first: int, last: int) -> None:
    labels = square(5, 5, length=length)
    rows = np.arange(length)
    segments = labels.copy()
    for frame in rows:
        segments[frame, 5 : 5 + 6 * frame // length] = 0  # less and less of it is found
    regions = 1 - (6 * rows // length) / 6
    found = shares(labels, segments)
    assert found["J"] == pytest.approx(regions.mean())
    assert found["J-Recall"] == (regions > 0.5).mean()
    decay = regions[:first].mean() - regions[-last:].mean()
    assert found["J-Decay"] == pytest.approx(decay)


def test_strict_takes_the_best_by_both_and_forgives_absence() -> None:
    labels = square(2, 2)
    labels[1] = 0
    labels[:, 12:18, 12:18] = 2
    one = np.where(labels == 2, 1, 0)
    assert shares(labels, one, background=0)["J"] == pytest.approx((0 + 1) / 2)
    assert shares(labels, one, background=0, strict=True)["J"] == pytest.approx((0.5 + 1) / 2)
    # a part with holes has the larger J, one without the larger F
    labels = np.zeros((1, 40, 40), np.int64)
    labels[:, 4:34, 4:34] = 1
    segments = np.zeros_like(labels)
    segments[:, 4:34, 4:20] = 1
    segments[:, 8:30:3, 6:18:3] = 0
    segments[:, 4:34, 20:34] = 2
    by_region, by_both = (shares(labels, segments, background=0, strict=s) for s in (False, True))
    assert by_region["J"] > by_both["J"]
    assert by_region["J&F"] < by_both["J&F"]


def test_numbers_that_say_everything() -> None:
    labels = square(2, 2, length=5) + square(12, 12, number=2, length=5)
    swapped = np.where(labels > 0, 3 - labels, 0)
    assert means(named_region_boundary_shares(labels, labels))["J&F"] == 1
    assert means(named_region_boundary_shares(labels, swapped))["J&F"] == 0
    segments = labels.copy()
    segments[[0, 4]] = 0  # frames that do not count
    segments[1][segments[1] == 2] = 0
    found = means(named_region_boundary_shares(labels, segments))
    assert found["J"] == pytest.approx((1 + 2 / 3) / 2)
    void = np.where((labels == 0) & (segments == 0), -1, labels)
    assert means(named_region_boundary_shares(void, segments)) == found
    with pytest.raises(ValueError, match="there is no object 7"):
        named_region_boundary_shares(labels, np.where(labels == 2, 7, labels))
