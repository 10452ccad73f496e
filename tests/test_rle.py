import json

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask

from vidseg import rle


def random_masks(*shape: int, share: float = 0.5) -> np.ndarray:
    return np.random.default_rng(0).random(shape) < share


@pytest.mark.parametrize("shape", [(1, 1), (4, 6), (37, 53)])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.9, 1.0])
def test_masks_survive_the_way_there_and_back(shape: tuple[int, int], share: float) -> None:
    masks = random_masks(3, *shape, share=share)
    rles = rle.encode(masks)
    np.testing.assert_array_equal(rle.decode(rles), masks)
    np.testing.assert_array_equal(rle.area(rles), masks.sum(axis=(1, 2)))
    assert rle.area(rles[0]) == masks[0].sum()
    for one, mask in zip(rles, masks, strict=True):
        assert one == rle.encode(mask) == coco_mask.encode(np.asfortranarray(mask.view(np.uint8)))
        assert one["size"] == list(shape)
        np.testing.assert_array_equal(rle.decode(one), mask)


def test_tensors_arrays_and_numbers_encode_alike() -> None:
    masks = random_masks(2, 5, 7)
    expected = rle.encode(masks)
    assert rle.encode(torch.from_numpy(masks)) == expected
    assert rle.encode(masks.astype(np.int64) * 7) == expected
    assert rle.encode(masks.transpose(0, 2, 1)[..., ::-1]) == rle.encode(
        np.ascontiguousarray(masks.transpose(0, 2, 1)[..., ::-1])
    )


def test_empty_stacks_and_empty_masks() -> None:
    assert rle.encode(np.zeros((0, 4, 5), dtype=bool)) == []
    assert rle.encode(np.zeros((4, 5), dtype=bool)) == rle.empty(4, 5)
    assert rle.area([]).shape == (0,)
    assert rle.boxes([]).shape == (0, 4)
    assert rle.iou([], [rle.empty(2, 2)]).shape == (0, 1)
    assert rle.iou([rle.empty(2, 2)], [rle.empty(2, 2)]).item() == 0
    with pytest.raises(ValueError, match="size is unknown"):
        rle.decode([])
    with pytest.raises(ValueError, match=r"expected \(H, W\) or \(N, H, W\)"):
        rle.encode(np.zeros(4, dtype=bool))


def test_more_masks_than_a_byte_can_count() -> None:
    masks = random_masks(600, 3, 4)
    np.testing.assert_array_equal(rle.area(rle.encode(masks)), masks.sum(axis=(1, 2)))


def test_sizes_must_agree() -> None:
    small, large = rle.encode(np.ones((2, 2), bool)), rle.encode(np.ones((3, 2), bool))
    assert rle.iou([small], [large]).item() == 0
    with pytest.raises(ValueError, match="different sizes"):
        rle.decode([small, large])
    with pytest.raises(ValueError, match="all of one size"):
        rle.union([small, large])


def test_iou_boxes_and_union_by_hand() -> None:
    a, b = np.zeros((4, 6), bool), np.zeros((4, 6), bool)
    a[0:2, 0:2], b[1:3, 1:3] = True, True
    rles = rle.encode(np.stack([a, b]))
    np.testing.assert_array_equal(rle.iou(rles, rles), [[1, 1 / 7], [1 / 7, 1]])
    np.testing.assert_array_equal(rle.boxes(rles), [[0, 0, 2, 2], [1, 1, 2, 2]])
    np.testing.assert_array_equal(rle.decode(rle.union(rles)), a | b)


def test_every_json_form_reads_alike() -> None:
    square = np.zeros((6, 8), bool)
    square[1:4, 2:5] = True
    compressed = rle.encode(square)
    text = json.loads(json.dumps(rle.to_text(compressed)))
    uncompressed = {"size": [6, 8], "counts": [13, 3, 3, 3, 3, 3, 20]}
    polygon = [[2, 1, 5, 1, 5, 4, 2, 4]]
    for form in (compressed, text, uncompressed, polygon):
        assert rle.from_segmentation(form, 6, 8) == compressed
    assert rle.from_segmentation(None, 6, 8) is None
    assert rle.from_segmentation([], 6, 8) is None
    assert rle.to_text(None) is None


@pytest.mark.parametrize("number", [float("nan"), float("inf"), 1e30, -3e8])
def test_polygons_far_outside_are_refused(number: float) -> None:
    with pytest.raises(ValueError, match="far outside of the frame"):
        rle.from_polygons([[0, 0, number, 0, 3, 3]], 4, 4)


def test_polygons_may_be_arrays() -> None:
    square = [0, 0, 2, 0, 2, 2, 0, 2]
    assert rle.from_polygons([np.array(square)], 5, 6) == rle.from_polygons([square], 5, 6)


def test_parts_of_a_polygon_are_united() -> None:
    parts = [[0, 0, 2, 0, 2, 2, 0, 2], [1, 1, 4, 1, 4, 3, 1, 3]]
    whole = rle.decode(rle.from_polygons(parts, 5, 6))
    single = [rle.decode(rle.from_polygons([part], 5, 6)) for part in parts]
    np.testing.assert_array_equal(whole, single[0] | single[1])


@pytest.mark.parametrize(
    ("form", "message"),
    [
        ("text", "is a str"),
        ([[0, 0, 1, 1]], "4 numbers"),
        ([[0, 0, 1, 1, 2, 2, 3]], "7 numbers"),
        ({"size": [2, 2]}, "'counts'"),
        ({"counts": "04"}, "'size'"),
        ({"size": [2], "counts": "04"}, "expected \\[height, width\\]"),
        ({"size": [2, 2], "counts": [1, 2]}, "covers 3 pixels"),
        ({"size": [2, 2], "counts": 4}, "type int"),
    ],
)
def test_broken_forms_say_what_is_wrong(form: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        rle.from_segmentation(form, 2, 2)


@pytest.mark.parametrize("density", [0.0, 0.02, 0.5, 1.0])
def test_runs_of_encoded_masks_cover_them(density: float) -> None:
    rng = np.random.default_rng(0)
    for size in ((1, 1), (7, 5), (240, 426), (3, 4000)):
        rle.require_cover(rle.encode(rng.random(size) < density))
    rle.require_cover(None)


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        (b"", "stop inside a number"),
        (b"4", "cover 4 pixels"),
        (b"4N", "cover 2 pixels"),
        (b"4P", "stop inside a number"),
        (b"4 ", "character that no RLE has"),
        (b"P" * 12 + b"0", "too long"),
    ],
)
def test_runs_that_do_not_cover_are_refused(counts: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        rle.require_cover({"size": [4, 5], "counts": counts})
