"""From soft masks to frames and segmentations."""

from __future__ import annotations

import pytest
import torch

from vidseg.projects.slot_bert.composition import (
    MASK_SOURCES,
    compose,
    decoder_masks,
    resize_maps,
    segmentation_masks,
    without_hidden,
)

M, K = 2, 5


def masks_of(*size: int) -> torch.Tensor:
    return (torch.randn(M, K, *size) * 6).softmax(1)


def test_a_frame_is_the_mean_of_what_slots_draw() -> None:
    rgb, masks = torch.rand(M, K, 3, 4, 6), masks_of(4, 6)
    expected = sum(masks[:, k, None] * rgb[:, k] for k in range(K))
    torch.testing.assert_close(compose(rgb, masks), expected)
    flat = compose(rgb.flatten(-2), masks.flatten(-2))
    torch.testing.assert_close(flat, expected.flatten(-2))
    same = torch.rand(M, 1, 3, 4, 6).expand(-1, K, -1, -1, -1)
    torch.testing.assert_close(compose(same, masks), same[:, 0])


@pytest.mark.parametrize("source", MASK_SOURCES)
@pytest.mark.parametrize("size", [(1, 1), (8, 8), (17, 61), (64, 4), (5, 97), (128, 128)])
def test_masks_sum_to_one_at_any_size(source: str, size: tuple[int, int]) -> None:
    masks = segmentation_masks(
        source, masks_of(8, 8), decoder_masks(torch.randn(M, K, 32, 32)), size
    )
    assert masks.shape == (M, K, *size)
    assert (masks >= 0).all()
    torch.testing.assert_close(masks.sum(1), torch.ones(M, *size), atol=1e-5, rtol=0)


def test_masks_that_exclude_each_other_have_a_product() -> None:
    one, other = torch.zeros(2, 1, 2, 8, 8)
    one[:, 0] = other[:, 1] = 1
    masks = segmentation_masks("product", one, other, (16, 16))
    torch.testing.assert_close(masks, torch.full((1, 2, 16, 16), 0.5))
    certain = segmentation_masks("product", one, torch.full((1, 2, 8, 8), 0.5), (8, 8))
    torch.testing.assert_close(certain, one)
    with pytest.raises(ValueError, match="none of attn, decoder, product"):
        segmentation_masks("slots", one, other, (8, 8))


def test_resizing_is_bilinear_upwards_and_the_mean_of_an_area_downwards() -> None:
    ramp = torch.arange(4.0).expand(2, 4)
    wide = resize_maps(ramp, (2, 8))
    torch.testing.assert_close(wide[0], torch.tensor([0, 0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3.0]))
    torch.testing.assert_close(resize_maps(ramp, (1, 2)), torch.tensor([[0.5, 2.5]]))
    # A side may shrink while the other grows; leading axes of any number stay.
    both = resize_maps(ramp.expand(3, 1, 2, 2, 4), (4, 2))
    torch.testing.assert_close(both, torch.tensor([0.5, 2.5]).expand(3, 1, 2, 4, 2))
    half = ramp.bfloat16()
    assert resize_maps(half, (2, 4)).dtype == torch.float32


def test_soft_masks_give_borders_finer_than_the_grid() -> None:
    attn = torch.tensor([[[[0.9, 0.3]], [[0.1, 0.7]]]])  # (1, 2, 1, 2)
    owner = segmentation_masks("attn", attn, attn, (1, 16)).argmax(1)[0, 0]
    assert owner.tolist() == [0] * 9 + [1] * 7  # where the line from 0.9 to 0.3 falls below 0.5


def test_hidden_frames_are_composed_by_the_decoder() -> None:
    attn, masks = masks_of(4, 4), masks_of(4, 4)
    mixed = without_hidden(attn, masks, torch.tensor([False, True]))
    assert torch.equal(mixed[0], attn[0])
    assert torch.equal(mixed[1], masks[1])
    assert without_hidden(attn, masks, None) is attn
