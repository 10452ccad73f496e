"""Masking of channels and time in training, and the merge of branches."""

from __future__ import annotations

import pytest
import torch

from vidseg.projects.fact_clip.masking import mask_channels, mask_time
from vidseg.projects.fact_clip.prediction import merge_branches, merge_with_transcript


def test_channels_are_dropped_for_the_whole_video_and_scaled() -> None:
    torch.manual_seed(0)
    features = torch.randn(20, 4000)
    masked = mask_channels(features, 0.25)
    dropped = (masked == 0).all(0)
    assert 0.2 < float(dropped.float().mean()) < 0.3
    torch.testing.assert_close(masked[:, ~dropped], features[:, ~dropped] / 0.75)
    assert torch.equal(mask_channels(features, 0.0), features)
    assert not mask_channels(features, 1.0).any()


def test_spans_of_time_are_zeros_in_a_copy() -> None:
    features = torch.ones(200, 3)
    for seed in range(30):
        generator = torch.Generator().manual_seed(seed)
        masked = mask_time(features, span=11, share=0.5, count=3, generator=generator)
        zeros = (masked == 0).all(1)
        assert torch.equal(masked[~zeros], features[~zeros])
        assert int(zeros.sum()) <= 30
    assert features.all()


def test_a_span_is_capped_by_its_share_and_no_span_ends_the_masking() -> None:
    features = torch.ones(100, 2)
    shares = [
        int((mask_time(features, span=1000, share=0.05, count=1) == 0).all(1).sum())
        for _ in range(20)
    ]
    assert max(shares) == 5
    assert mask_time(features, span=1, share=1.0, count=5) is features
    assert mask_time(features[:1], span=30, share=0.05, count=5).all()
    assert not mask_time(features[:1], span=1000, share=1.0, count=50).any()


def test_kept_tokens_name_the_frames() -> None:
    frames = torch.tensor([[0.1, 0.9], [0.9, 0.1], [0.2, 0.8]])
    tokens = torch.tensor([[0.5, 0.2, 0.3], [0.1, 0.2, 0.7], [0.1, 0.6, 0.3]])
    attention = torch.tensor([[0.2, 0.7, 0.1], [0.1, 0.5, 0.4], [0.6, 0.3, 0.1]])
    merged = merge_branches(frames, tokens, attention, 0.0)
    assert merged.token_labels.tolist() == [0, 2, 1]
    assert merged.action_labels.tolist() == merged.labels.tolist() == [0, 1, 0]
    assert merged.frame_labels.tolist() == [1, 0, 1]
    torch.testing.assert_close(merged.probabilities[0], torch.tensor([5 / 7, 2 / 7]))
    assert merge_branches(frames, tokens, attention, 1.0).labels.tolist() == [1, 0, 1]
    half = merge_branches(frames, tokens, attention, 0.5)
    torch.testing.assert_close(half.probabilities, (merged.probabilities + frames) / 2)
    assert half.attention.dtype == torch.float16
    assert half.attention.shape == (3, 3)


@pytest.mark.parametrize("mwt", [0.0, 0.5])
def test_the_frame_branch_decides_where_all_tokens_are_null(mwt: float) -> None:
    frames = torch.tensor([[0.1, 0.9], [0.9, 0.1]])
    tokens = torch.tensor([[0.2, 0.2, 0.6]])
    merged = merge_branches(frames, tokens, torch.ones(2, 1), mwt)
    assert merged.labels.tolist() == [1, 0]
    assert merged.action_labels.tolist() == [-1, -1]
    torch.testing.assert_close(merged.probabilities, frames)


def test_a_transcript_confines_the_labels() -> None:
    frames = torch.tensor([[0.1, 0.2, 0.7], [0.5, 0.1, 0.4]])
    attention = torch.tensor([[0.1, 0.8, 0.1], [0.1, 0.1, 0.8]])
    transcript = torch.tensor([2, 0, 2])
    tokens = torch.full((3, 4), 0.25)
    by_action = merge_with_transcript(frames, tokens, attention, 0.0, transcript)
    assert by_action.labels.tolist() == by_action.action_labels.tolist() == [0, 2]
    by_frame = merge_with_transcript(frames, tokens, attention, 1.0, transcript)
    assert by_frame.labels.tolist() == by_frame.frame_labels.tolist() == [2, 0]
    assert (by_frame.probabilities[:, 1] == 0).all()
    torch.testing.assert_close(by_frame.probabilities[:, 2], frames[:, 2])
