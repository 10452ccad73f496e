"""Features of pairs of blobs: distances along a motion, and neighbours in time."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from vidseg.projects.persistence.pair_bias import _GAIN, PairBias, motion_of, pair_features
from vidseg.projects.persistence.tokenizer import Tokens


def tokens_of(rows: list[tuple[int, float, float]], *, padding: int = 0) -> Tokens:
    """Blobs of radius 2 from (frame, row, column)."""
    frame, y, x = (torch.tensor(column) for column in zip(*rows, strict=True))
    boxes = torch.stack([x - 2, y - 2, x + 2, y + 2], 1)
    length = len(rows) + padding
    boxes = torch.nn.functional.pad(boxes, (0, 0, 0, padding))
    return Tokens(
        tokens=torch.zeros(1, length, 8),
        padding_mask=torch.arange(length)[None] >= len(rows),
        frame_index=torch.nn.functional.pad(frame, (0, padding))[None],
        boxes=boxes[None],
        scale=torch.ones(1),
        num_frames=[16],
    )


def motion(tokens: Tokens, gate: float = 3.5) -> tuple[Tensor, Tensor, Tensor]:
    place = tokens.centers
    offset = place[:, None] - place[:, :, None]
    step = (tokens.frame_index[:, None] - tokens.frame_index[:, :, None]).float()
    return motion_of(offset, offset.norm(dim=-1), step, tokens.padding_mask, gate=gate)


def test_motion_is_that_of_the_nearest_blobs_one_frame_off() -> None:
    # One blob moves by (1, 2) a frame and is away in frame 3; another stands 3 pixels off in 1.
    rows = [(0, 10.0, 10.0), (1, 11.0, 12.0), (1, 14.0, 12.0), (2, 12.0, 14.0), (4, 14.0, 18.0)]
    velocity, before, after = motion(tokens_of(rows, padding=2))
    assert velocity[0, [0, 1, 3]].tolist() == [[1, 2]] * 3
    assert velocity[0, 4].tolist() == [0, 0]
    # The one beside it would move by (-2, 2); averaged twice with what it seems to lead to.
    assert velocity[0, 2].tolist() == [0.25, 2]
    assert before[0].tolist() == [False, True, False, True, False, False, False]
    assert after[0].tolist() == [True, True, True, False, False, False, False]


def test_motion_compensation_sees_through_a_gap() -> None:
    rows = [(t, 10.0 + t, 10.0 + 2 * t) for t in (0, 1, 2, 5)]
    plain = pair_features(tokens_of(rows), "plain")
    compensated = pair_features(tokens_of(rows), "motion")[len(plain) :]
    assert compensated[0][0, 2, 3] == 1.0  # where the motion of blob 2 leads by frame 5
    assert plain[3][0, 2, 3] < 0.1
    assert compensated[6][0, 2, 3] == 0.0


def test_neighbours_are_told_by_side() -> None:
    rows = [(0, 10.0, 10.0), (1, 10.0, 10.0), (5, 40.0, 40.0)]
    towards, away, other_towards, other_away = pair_features(tokens_of(rows), "motion")[-4:]
    assert (towards[0, 0, 2], away[0, 0, 2]) == (1, 0)  # blob 0 goes on towards blob 2
    assert (towards[0, 1, 2], away[0, 1, 2]) == (0, 1)  # blob 1 ends before it
    assert (other_towards[0, 2, 1], other_away[0, 2, 1]) == (0, 1)
    assert (towards[0, 0, 0], away[0, 0, 0]) == (0.5, 0.5)
    assert not towards[0, 2].any()


@pytest.mark.parametrize("kind", ["plain", "motion"])
def test_features_are_those_of_the_clip_played_backwards(kind: str) -> None:
    torch.manual_seed(0)
    rows = [(t, *(10 * torch.rand(2)).tolist()) for t in (0, 0, 1, 1, 2, 4, 5, 5)]
    back = tokens_of([(5 - t, y, x) for t, y, x in rows])
    pairs = zip(pair_features(tokens_of(rows), kind), pair_features(back, kind), strict=True)
    for forward, backward in pairs:
        torch.testing.assert_close(forward, backward)


def test_bias_closes_the_padding_and_puts_the_null_key_last() -> None:
    bias = PairBias("motion", 2, 3, null_key=True)
    assert bias.weight is not None
    assert not bias.weight[..., -1].any()
    torch.nn.init.constant_(bias.weight[..., -1], 0.7)
    both = bias(tokens_of([(0, 1.0, 1.0), (1, 1.0, 1.0)], padding=1))
    assert len(both) == 2
    for out in both:
        assert out.shape == (1, 3, 3, 4)
        assert out[..., :2].isfinite().all()
        assert (out[..., 2] == -torch.inf).all()
        torch.testing.assert_close(out[..., 3], torch.full((1, 3, 3), 0.7 * _GAIN))
    plain = PairBias("none", 2, 3)(tokens_of([(0, 1.0, 1.0)], padding=1))
    assert [out.flatten().tolist() for out in plain] == [[0, -torch.inf]] * 2


def test_bias_is_linear_in_the_features_of_each_head() -> None:
    bias, tokens = PairBias("plain", 2, 3), tokens_of([(0, 1.0, 1.0), (1, 2.0, 1.0)])
    features = torch.stack(pair_features(tokens, "plain"), -1)  # (1, N, N, F)
    assert bias.weight is not None
    for out, weight in zip(bias(tokens), bias.weight, strict=True):
        torch.testing.assert_close(out, _GAIN * (features @ weight.T).permute(0, 3, 1, 2))


def test_tracks_are_a_feature_and_have_to_be_given() -> None:
    bias, tokens = PairBias("none", 1, 1, track_bias=True), tokens_of([(0, 1.0, 1.0)] * 3)
    assert bias.weight is not None
    (out,) = bias(tokens, torch.tensor([[4, 4, -1]]))
    assert (out[0, 0] / bias.weight.detach() / _GAIN).squeeze().tolist() == [
        [1, 1, 0],
        [1, 1, 0],
        [0, 0, 0],
    ]
    with pytest.raises(ValueError, match="needs the tracks"):
        bias(tokens)
    with pytest.raises(ValueError, match="none, plain, motion"):
        PairBias("movement", 1, 1)
