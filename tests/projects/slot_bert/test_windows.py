"""Windows over videos of any length."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from vidseg.projects.slot_bert.windows import map_windows, window_starts

LENGTHS = (1, 2, 4, 5, 6, 7, 23, 24, 29, 50)


@pytest.mark.parametrize("num_frames", LENGTHS)
@pytest.mark.parametrize(("window", "stride"), [(1, 1), (6, 3), (6, 6), (6, 1), (24, 12), (5, 4)])
def test_every_frame_is_covered(num_frames: int, window: int, stride: int) -> None:
    starts = window_starts(num_frames, window, stride)
    assert starts == sorted(set(starts))
    covered = {frame for start in starts for frame in range(start, start + window)}
    assert covered >= set(range(num_frames))
    assert num_frames < window or max(covered) == num_frames - 1, "the last one ends with the clip"


@pytest.mark.parametrize("num_frames", LENGTHS)
def test_what_all_windows_agree_on_stays(num_frames: int) -> None:
    values = torch.randn(2, num_frames, 3)
    torch.testing.assert_close(map_windows(lambda x: 2 * x, values, 6, 4), 2 * values)


def test_the_middle_of_a_window_counts_most() -> None:
    calls: list[Tensor] = []

    def number(x: Tensor) -> Tensor:
        calls.append(x)
        return torch.arange(len(x), dtype=torch.float32).view(-1, 1, 1).expand(x.shape)

    (result,) = map_windows(number, torch.zeros(1, 6, 1), 4, 2)[..., 0]
    assert [tuple(x.shape) for x in calls] == [(2, 4, 1)], "all windows in one call"
    # Weights 1 2 2 1 from frame 0 and from frame 2.
    torch.testing.assert_close(result, torch.tensor([0.0, 0.0, 1 / 3, 2 / 3, 1.0, 1.0]))


def test_batches_do_not_mix() -> None:
    values = torch.randn(3, 17, 2)
    together = map_windows(lambda x: x.cumsum(1), values, 6, 4)
    for row in range(3):
        alone = map_windows(lambda x: x.cumsum(1), values[row : row + 1], 6, 4)
        torch.testing.assert_close(alone[0], together[row])
