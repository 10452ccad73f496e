from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from vidseg import rle
from vidseg.data.transforms import (
    Blend,
    Crop,
    Flip,
    Pad,
    Resize,
    Rotate,
    apply_to_image,
    apply_to_masks,
    apply_to_polygon,
    nearest_indices,
    shortest_edge_size,
)


def test_nearest_indices_are_those_of_pil() -> None:
    rng = np.random.default_rng(0)
    for source, target in rng.integers(1, 1400, size=(300, 2)).tolist():
        line = np.arange(source, dtype=np.int32)[None].repeat(2, axis=0)
        wanted = Image.fromarray(line).resize((target, 2), Image.Resampling.NEAREST)
        assert np.array_equal(np.asarray(wanted)[0], nearest_indices(source, target))


def test_chain_on_masks_equals_chain_on_label_image() -> None:
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 3, size=(24, 32)).astype(np.uint8)
    chain = [Resize((24, 32), (50, 67)), Crop(3, 5, (40, 31)), Resize((40, 31), (17, 60))]
    chain += [Flip((17, 60)), Pad((30, 64)), Flip((30, 64), vertical=True)]
    masks = apply_to_masks(chain, np.stack([labels == k for k in range(3)]))
    image = Image.fromarray(labels).resize((67, 50), Image.Resampling.NEAREST)
    image = image.crop((5, 3, 36, 43)).resize((60, 17), Image.Resampling.NEAREST)
    padded = np.full((30, 64), 9, dtype=np.uint8)
    padded[:17, :60] = np.asarray(image)[:, ::-1]
    for k in range(3):
        assert np.array_equal(masks[k], padded[::-1] == k)


@pytest.mark.parametrize(
    "chain",
    [
        [Resize((60, 80), (90, 130))],
        [Crop(10, 12, (45, 60))],
        [Flip((60, 80))],
        [Flip((60, 80), vertical=True)],
        [Rotate(14.0, (35.0, 28.0))],
        [Rotate(-11.0, (50.0, 33.0)), Pad((70, 90))],
    ],
)
def test_masks_polygons_and_images_move_alike(chain) -> None:
    polygon = [20, 20, 60, 25, 50, 50, 22, 45]
    mask = rle.decode(rle.from_polygons([polygon], 60, 80))
    moved = apply_to_masks(chain, mask[None])[0]
    filled = rle.decode(rle.from_polygons([apply_to_polygon(chain, polygon)], *moved.shape))
    assert (moved & filled).sum() / (moved | filled).sum() > 0.93
    image = apply_to_image(chain, np.where(mask, 255, 0).astype(np.uint8)[..., None].repeat(3, 2))
    seen = image[..., 0] > 128
    if isinstance(chain[-1], Pad):
        seen[60:], seen[:, 80:] = False, False
    assert image.shape[:2] == moved.shape
    assert (moved & seen).sum() / (moved | seen).sum() > 0.95


def test_no_mask_at_all() -> None:
    chain = [Resize((6, 8), (3, 4)), Rotate(3.0, (1.0, 1.0)), Pad((9, 9))]
    assert apply_to_masks(chain, np.zeros((0, 6, 8), dtype=bool)).shape == (0, 9, 9)


def test_blend() -> None:
    image = np.array([[[10, 100, 200], [30, 30, 30]]], dtype=np.uint8)
    assert Blend("brightness", 1.1).image(image)[0, 0].tolist() == [11, 110, 220]
    assert np.array_equal(Blend("contrast", 1.0).image(image), image)
    grey = Blend("saturation", 0.0).image(image)[0, 0]
    assert grey.tolist() == [84, 84, 84]


def test_size_zero_keeps_the_size() -> None:
    assert shortest_edge_size(7, 900, 0, 20) == (7, 900)
    assert shortest_edge_size(1, 900, 10, 100) == (1, 100)
