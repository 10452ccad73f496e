"""Where windows lie, and which of them are valid."""

from __future__ import annotations

import pytest
import torch

from vidseg.projects.rqvae.windows import (
    MODES,
    cut_frames,
    first_start,
    num_windows,
    window_centres,
    window_validity,
)


@pytest.mark.parametrize(
    ("window", "stride", "expected"),
    [(25, 12, (42, 41, 40)), (50, 25, (20, 19, 19)), (10, 5, (100, 99, 99)), (500, 500, (1, 1, 1))],
)
def test_number_of_windows(window: int, stride: int, expected: tuple[int, ...]) -> None:
    assert tuple(num_windows(500, window, stride, mode) for mode in MODES) == expected


@pytest.mark.parametrize("mode", ["same", "tail"])
@pytest.mark.parametrize(("window", "stride"), [(25, 12), (10, 5), (7, 7), (8, 3), (4, 1), (1, 1)])
def test_every_frame_is_in_a_window(window: int, stride: int, mode: str) -> None:
    for num_frames in range(1, 80):
        num = num_windows(num_frames, window, stride, mode)
        first = first_start(window, stride, mode)
        covered = {first + n * stride + t for n in range(num) for t in range(window)}
        assert set(range(num_frames)) <= covered
        if mode == "tail" and num > 1:
            assert first + (num - 2) * stride + window < num_frames  # not one window too many


def test_windows_of_same_are_centred_on_their_strides() -> None:
    # The middle of window n is that of the n-th stride, half a frame off for an odd difference.
    assert window_centres(3, 9, 5).tolist() == [2.0, 7.0, 12.0]
    assert window_centres(3, 25, 12).tolist() == [6.0, 18.0, 30.0]
    assert window_centres(2, 4, 2, "tail").tolist() == [1.5, 3.5]
    assert window_centres(2, 4, 2).dtype == torch.float32


def test_short_documents() -> None:
    assert [num_windows(3, 25, 12, mode) for mode in ("same", "tail")] == [1, 1]
    assert num_windows(13, 25, 12) == 2
    with pytest.raises(ValueError, match="mode 'drop' makes no window of 25 frames from 24"):
        num_windows(24, 25, 12, "drop")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ((0, 25, 12), "needs 1 frame or more"),
        ((9, 0, 1), "must be 1 frame or more, got window 0"),
        ((9, 5, 0), "got window 5 and stride 0"),
        ((9, 5, 6), "stride 6 is larger than window 5.*allow gaps"),
        ((9, 5, 5, "sane"), "no window mode 'sane'; nearest: same"),
    ],
)
def test_settings_that_cannot_be(settings: tuple, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        num_windows(*settings)


def test_gaps_on_request() -> None:
    assert num_windows(30, 5, 12, allow_gaps=True) == 3
    valid, window_mask = window_validity(torch.ones(1, 27) > 0, 5, 12, allow_gaps=True)
    assert window_centres(3, 5, 12).tolist() == [6.0, 18.0, 30.0]
    assert valid.sum(-1).tolist() == [[5, 5, 0]]
    assert window_mask.tolist() == [[True, True, False]]


def test_validity_is_that_of_the_frames() -> None:
    mask = torch.tensor([[True, True, False, True, True, True, True]])
    valid, window_mask = window_validity(mask, 4, 2, min_valid=3)
    assert valid.int().tolist() == [[[0, 1, 1, 0], [1, 0, 1, 1], [1, 1, 1, 1], [1, 1, 0, 0]]]
    assert window_mask.tolist() == [[False, True, True, False]]
    assert valid.untyped_storage().nbytes() <= 12  # frames and padding, not windows times frames


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("window", "stride"), [(25, 12), (10, 5), (4, 3)])
def test_padding_adds_no_window_to_a_document(window: int, stride: int, mode: str) -> None:
    lengths = torch.arange(window, 70)
    mask = torch.arange(100) < lengths[:, None]
    _, window_mask = window_validity(mask, window, stride, mode)
    expected = [num_windows(n, window, stride, mode) for n in lengths.tolist()]
    assert window_mask.sum(1).tolist() == expected
    assert all(row[:n].all() for row, n in zip(window_mask, expected, strict=True))


def test_document_without_valid_frames() -> None:
    for mode in MODES:
        assert not window_validity(torch.zeros(2, 30, dtype=torch.bool), 10, 5, mode)[1].any()


def test_cut_frames_beyond_both_ends() -> None:
    x = torch.arange(1, 4)[None, :, None]
    assert cut_frames(x, -2, 5).flatten().tolist() == [0, 0, 1, 2, 3, 0, 0]
    assert cut_frames(x, 1, 2).flatten().tolist() == [2]
    assert cut_frames(x, 4, 6).flatten().tolist() == [0, 0]
    assert cut_frames(x, -5, -3).flatten().tolist() == [0, 0]
