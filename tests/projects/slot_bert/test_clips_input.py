"""Videos of any type and number of channels."""

from __future__ import annotations

import re

import pytest
import torch

from vidseg.errors import DataError
from vidseg.projects.slot_bert.clips_input import to_video


def test_bytes_and_floats_agree() -> None:
    frames = torch.randint(0, 256, (2, 3, 5, 4), dtype=torch.uint8)
    video = to_video(frames)
    assert (video.dtype, video.shape) == (torch.float32, (2, 3, 5, 4))
    assert torch.equal(video, frames / 255)
    assert torch.equal(to_video(frames / 255), video)
    assert torch.equal(to_video((frames / 255).double()), video)
    torch.testing.assert_close(to_video((frames / 255).half()), video, atol=1e-3, rtol=0)
    assert to_video(frames[None, None]).shape == (1, 1, 2, 3, 5, 4)


def test_grey_and_alpha() -> None:
    frames = torch.rand(2, 4, 5, 4)
    assert torch.equal(to_video(frames), frames[:, :3])
    assert torch.equal(to_video(frames[:, :1]), frames[:, :1].expand(2, 3, 5, 4))


def test_overshoot_of_resized_frames_is_clamped() -> None:
    video = to_video(torch.tensor([-0.05, 0.5, 1.05]).view(1, 3, 1, 1))
    assert video.flatten().tolist() == [0.0, 0.5, 1.0]


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        (torch.zeros(3, 5, 4), "frames of shape (3, 5, 4) are no video"),
        (torch.zeros(2, 5, 4, 3), "frames of shape (2, 5, 4, 3) are no video; give (T, C, H, W)"),
        (torch.zeros(0, 3, 5, 4), "frames of shape (0, 3, 5, 4) have no pixels"),
        (torch.zeros(2, 3, 0, 4), "have no pixels"),
        (torch.full((1, 3, 2, 2), 200.0), "the pixels lie within 200 to 200; give uint8, or float"),
        (torch.full((1, 3, 2, 2), torch.nan), "the pixels lie within nan to nan"),
        (torch.full((1, 3, 2, 2), torch.inf), "the pixels lie within inf to inf"),
        (torch.zeros(1, 3, 2, 2, dtype=torch.int32), "type torch.int32 have no range"),
    ],
)
def test_what_is_no_video_is_refused(frames: torch.Tensor, message: str) -> None:
    with pytest.raises(DataError, match=re.escape(message)):
        to_video(frames)
