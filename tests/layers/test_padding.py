from __future__ import annotations

import pytest
import torch

from vidseg.layers.padding import pad_sequences


def test_sequences_become_a_batch() -> None:
    first, second = torch.ones(2, 3), torch.full((4, 3), 2.0)
    batch, mask = pad_sequences([first, second])
    assert batch.shape == (2, 4, 3)
    assert torch.equal(batch[0, :2], first)
    assert torch.equal(batch[1], second)
    assert not batch[0, 2:].any()
    assert mask.tolist() == [[True, True, False, False], [True] * 4]


def test_length_is_a_multiple() -> None:
    for num_frames, expected in ((5, 6), (6, 6)):
        batch, mask = pad_sequences([torch.ones(num_frames, 2)], multiple=3)
        assert batch.shape == (1, expected, 2)
        assert mask.sum() == num_frames
        assert batch.sum() == 2 * num_frames


def test_own_masks_are_kept() -> None:
    own = torch.tensor([True, False])
    batch, mask = pad_sequences([torch.ones(2, 1), torch.ones(3, 1)], masks=[own, None])
    assert mask.tolist() == [[True, False, False], [True, True, True]]
    assert batch[0, 1] == 1  # what is masked stays


def test_empty_sequence_is_all_padding() -> None:
    batch, mask = pad_sequences([torch.ones(0, 2), torch.ones(1, 2)])
    assert mask.tolist() == [[False], [True]]
    assert batch[0].tolist() == [[0, 0]]


def test_gradients_and_dtype_pass() -> None:
    first = torch.ones(2, 3, dtype=torch.float64, requires_grad=True)
    batch, _ = pad_sequences([first, torch.zeros(4, 3, dtype=torch.float64)])
    batch.sum().backward()
    assert batch.dtype == torch.float64
    assert torch.equal(first.grad, torch.ones(2, 3, dtype=torch.float64))


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="no sequences"):
        pad_sequences([])
    with pytest.raises(ValueError, match=r"of one width D, not \(2, 3\), \(2, 4\)"):
        pad_sequences([torch.ones(2, 3), torch.ones(2, 4)])
    with pytest.raises(ValueError, match=r"not \(2,\)"):
        pad_sequences([torch.ones(2)])
    with pytest.raises(ValueError, match="multiple of 0"):
        pad_sequences([torch.ones(2, 3)], multiple=0)
    for mask in (torch.ones(2), torch.ones(3, dtype=torch.bool)):
        with pytest.raises(ValueError, match="sequence of 2 frames must be bool"):
            pad_sequences([torch.ones(2, 3)], masks=[mask])
