"""Linking, selection and mask encoding."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch.nn import functional as F

from vidseg import rle as rle_ops
from vidseg.modeling import postprocess
from vidseg.modeling.meta_arch.mask_store import MaskStore
from vidseg.modeling.postprocess import (
    encode_masks,
    foreground_confidence,
    link_queries,
    link_step,
    masks_to_rle,
    resize_masks,
    select_instances,
)


def test_linking_undoes_a_permutation() -> None:
    tracks = torch.randn(1, 6, 16)
    orders = torch.stack([torch.randperm(6) for _ in range(5)])
    orders[0] = torch.arange(6)
    noisy = tracks + 0.01 * torch.randn(5, 6, 16)
    embeds = torch.stack([frame[order] for frame, order in zip(noisy, orders, strict=True)])
    found = link_queries(embeds)
    for order, link in zip(orders, found, strict=True):
        assert torch.equal(order[link], torch.arange(6))


def test_link_step_is_the_best_of_all_assignments() -> None:
    previous, current = torch.randn(4, 3), torch.randn(4, 3) * 5
    cosine = F.normalize(previous, dim=1) @ F.normalize(current, dim=1).T
    best = max(
        itertools.permutations(range(4)),
        key=lambda p: sum(cosine[i, j].item() for i, j in enumerate(p)),
    )
    assert link_step(previous, current).tolist() == list(best)


@pytest.mark.parametrize("num_frames", [0, 1])
def test_linking_short_videos(num_frames: int) -> None:
    assert link_queries(torch.randn(num_frames, 3, 4)).shape == (num_frames, 3)


def test_selection_ranks_pairs() -> None:
    probability = torch.tensor([[0.5, 0.4, 0.1], [0.1, 0.3, 0.6]])
    scores, labels, rows = select_instances(probability.log(), 3)
    torch.testing.assert_close(scores, torch.tensor([0.5, 0.4, 0.3]))
    assert labels.tolist() == [0, 1, 1]
    assert rows.tolist() == [0, 0, 1]
    scores, labels, rows = select_instances(probability.log(), 3, one_label_per_track=True)
    assert (labels.tolist(), rows.tolist()) == ([0, 1], [0, 1])


def test_selection_with_quality_and_few_tracks() -> None:
    logits = torch.tensor([[2.0, 0, 0], [2, 0, 0]])
    scores, _, rows = select_instances(logits, 20, quality=torch.tensor([0.1, 1.0]))
    assert len(scores) == 4
    assert rows[0] == 1
    assert (scores.diff() <= 0).all()


@pytest.mark.parametrize("one_label", [False, True])
def test_selection_of_nothing(one_label: bool) -> None:
    found = select_instances(torch.zeros(0, 4), 5, one_label_per_track=one_label)
    assert [len(part) for part in found] == [0, 0, 0]


def blobs(num: int, frames: int, height: int = 8, width: int = 12) -> torch.Tensor:
    return F.avg_pool2d(torch.randn(num, frames, height + 2, width + 2), 3, stride=1) * 10 - 1


@pytest.mark.parametrize("output_size", [(30, 44), (45, 66), (17, 23)])
def test_masks_follow_the_resize_chain(output_size: tuple[int, int]) -> None:
    logits = blobs(3, 4)
    logits[1, 2] = -1.0
    rows = torch.tensor([2, 1, 2])
    found = masks_to_rle(logits, (32, 48), (30, 44), output_size, rows=rows)
    assert found[0] is found[2]
    for track, row in zip(found, rows.tolist(), strict=True):
        x = F.interpolate(logits[row][None], size=(32, 48), mode="bilinear", align_corners=False)
        x = F.interpolate(x[..., :30, :44], size=output_size, mode="bilinear", align_corners=False)
        for mask, want in zip(track, x[0] > 0, strict=True):
            assert (mask is None) == (not want.any())
            if mask is not None:
                assert (torch.from_numpy(rle_ops.decode(mask)) != want).sum() <= 1  # rounding


def test_encoding_in_small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    logits = blobs(5, 1)[:, 0]
    whole = encode_masks(logits, (32, 48), (32, 48), (32, 48))
    monkeypatch.setattr(postprocess, "_MAX_RESIZED", 1)
    assert encode_masks(logits, (32, 48), (32, 48), (32, 48)) == whole


def test_a_mask_in_the_padding_is_empty() -> None:
    logits = torch.full((1, 1, 8, 12), -1.0)
    logits[..., -1, -1] = 1
    assert masks_to_rle(logits, (32, 48), (20, 20), (20, 20)) == [[None]]


def test_quality_is_the_mean_foreground_probability() -> None:
    logits = torch.tensor([[[2.0, -1.0], [0.5, -3.0]], [[-1, -1], [-1, -1]]])
    total, pixels = foreground_confidence(logits)
    torch.testing.assert_close(total, torch.stack([logits[0, :, 0].sigmoid().sum(), total[1] * 0]))
    assert pixels.tolist() == [2, 0]


@pytest.mark.parametrize("output_size", [(64, 96), (50, 31), (200, 300)])
def test_store_keeps_what_enlarging_needs(output_size: tuple[int, int]) -> None:
    logits = blobs(4, 1, 16, 24)[:, 0].half().float()
    logits[2] = -4
    logits[3, 3:5, 5:9] = 7
    store = MaskStore()
    store.append(logits)
    args = ((64, 96), (64, 96), output_size)
    kept = store.frame(0, [3, 0, 2])
    whole = resize_masks(logits[[3, 0, 2]], *args) > 0
    assert torch.equal(resize_masks(kept, *args) > 0, whole)
    assert len(store) == 1
