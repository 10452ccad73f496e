"""Mask encoding against the published resize chain and pycocotools."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from vidseg import rle as rle_ops
from vidseg.modeling.mask_encoding import encode_masks, encode_window
from vidseg.modeling.meta_arch.mask_store import MaskStore
from vidseg.modeling.postprocess import masks_to_rle

Size = tuple[int, int]


def chain(logits: Tensor, padded: Size, image: Size, output: Size) -> Tensor:
    x = F.interpolate(logits[None], size=padded, mode="bilinear", align_corners=False)
    x = x[..., : image[0], : image[1]]
    return F.interpolate(x, size=output, mode="bilinear", align_corners=False)[0] > 0


def blobs(num: int, frames: int, height: int = 8, width: int = 12) -> torch.Tensor:
    return F.avg_pool2d(torch.randn(num, frames, height + 2, width + 2), 3, stride=1) * 10 - 1


@pytest.mark.parametrize("output_size", [(30, 44), (45, 66), (17, 23), (5, 200)])
def test_masks_follow_the_resize_chain(output_size: tuple[int, int]) -> None:
    logits = blobs(3, 4)
    logits[1, 2] = -1.0
    rows = torch.tensor([2, 1, 2])
    found = masks_to_rle(logits, (32, 48), (30, 44), output_size, rows=rows)
    assert found[0] is found[2]
    for track, row in zip(found, rows.tolist(), strict=True):
        whole = chain(logits[row], (32, 48), (30, 44), output_size)
        for mask, want in zip(track, whole, strict=True):
            assert (mask is None) == (not want.any())
            if mask is not None:
                assert (torch.from_numpy(rle_ops.decode(mask)) != want).sum() <= 1  # rounding


def test_a_mask_in_the_padding_is_empty() -> None:
    logits = torch.full((1, 1, 8, 12), -1.0)
    logits[..., -1, -1] = 1
    assert masks_to_rle(logits, (32, 48), (20, 20), (20, 20)) == [[None]]


@pytest.mark.parametrize("output_size", [(64, 96), (50, 31), (200, 300), (7, 9)])
def test_store_keeps_what_enlarging_needs(output_size: tuple[int, int]) -> None:
    logits = blobs(4, 1, 16, 24)[:, 0].half().float()
    logits[2] = -4
    logits[3, 3:5, 5:9] = 7
    store = MaskStore()
    store.append(logits)
    assert len(store) == 1
    sizes = ((64, 96), (64, 96), output_size)
    kept = store.frame(0, [3, 0, 2])
    assert torch.equal(chain(kept, *sizes), chain(logits[[3, 0, 2]], *sizes))
    assert encode_masks(kept, *sizes) == encode_masks(logits[[3, 0, 2]], *sizes)


@pytest.mark.parametrize(
    ("origin", "shape"), [((3, 2), (4, 5)), ((0, 0), (12, 9)), ((5, 0), (7, 9)), ((11, 8), (1, 1))]
)
@pytest.mark.parametrize("fill", [0.0, 0.3, 1.0])
def test_windows_encode_as_the_whole_mask(
    origin: tuple[int, int], shape: tuple[int, int], fill: float
) -> None:
    rng = np.random.default_rng(0)
    window = rng.random(shape) < fill
    whole = np.zeros((12, 9), dtype=bool)
    whole[origin[0] : origin[0] + shape[0], origin[1] : origin[1] + shape[1]] = window
    want = rle_ops.encode(whole.T) if window.any() else None
    assert encode_window(window, origin, (9, 12)) == want


def test_no_masks() -> None:
    assert encode_masks(torch.zeros(0, 8, 12), (32, 48), (32, 48), (32, 48)) == []
    assert masks_to_rle(torch.zeros(0, 3, 8, 12), (32, 48), (32, 48), (32, 48)) == []
