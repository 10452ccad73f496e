"""Frames named by texts: candidates, smoothing over time, and labels of a minimum duration."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch.nn import functional as F

from vidseg.projects.fact_clip.text_matching import ZeroShot, match_texts, viterbi


def named(frames: torch.Tensor, smoothing: str, min_duration: int = 1, **more: object) -> ZeroShot:
    texts = torch.eye(frames.shape[1])
    names = [str(number) for number in range(len(texts))]
    seen = torch.ones(len(texts), dtype=torch.bool)
    given = {"gamma": 0.0, "temperature": 0.1, **more}
    return match_texts(
        frames,
        texts,
        names,
        seen,
        smoothing=smoothing,
        min_duration=min_duration,
        **given,  # type: ignore[arg-type]
    )


def test_probabilities_are_soft_maxes_of_the_cosines() -> None:
    frames = F.normalize(torch.randn(6, 3), dim=1)
    found = named(frames, "none")
    torch.testing.assert_close(found.probabilities, (frames / 0.1).softmax(1))
    assert torch.equal(found.labels, found.probabilities.argmax(1))


def test_segments_keep_boundaries_and_average_within() -> None:
    frames = F.normalize(torch.randn(10, 4), dim=1)
    runs = torch.tensor([7, 7, 7, 2, 2, 7, 7, 7, 7, 7])
    found = named(frames, "segments", runs=runs)
    for part in (slice(0, 3), slice(3, 5), slice(5, 10)):
        mean = frames[part].mean(0)
        torch.testing.assert_close(found.cosine[part], mean.expand_as(frames[part]))
        assert (found.labels[part] == mean.argmax()).all()


def test_median_removes_what_is_shorter_than_half_its_length() -> None:
    labels = torch.tensor([0] * 10 + [1] * 2 + [0] * 6 + [2] * 9)
    found = named(F.one_hot(labels, 3).float(), "median", 5)
    assert found.labels.tolist() == [0] * 18 + [2] * 9


def brute_force(scores: torch.Tensor, duration: int) -> float:
    num_frames, num_classes = scores.shape
    best = -float("inf")
    for labels in itertools.product(range(num_classes), repeat=num_frames):
        lengths = [len(list(run)) for _, run in itertools.groupby(labels)]
        if min(lengths) >= duration:
            best = max(best, float(scores[range(num_frames), labels].sum()))
    return best


@pytest.mark.parametrize("duration", [2, 3, 4])
@pytest.mark.parametrize("num_classes", [2, 3])
def test_viterbi_is_the_best_of_all_labellings(duration: int, num_classes: int) -> None:
    for seed in range(5):
        scores = torch.randn(8, num_classes, generator=torch.Generator().manual_seed(seed))
        labels = viterbi(scores, duration)
        lengths = [len(list(run)) for _, run in itertools.groupby(labels.tolist())]
        assert min(lengths) >= duration
        total = float(scores[range(8), labels].sum())
        assert total == pytest.approx(brute_force(scores, duration), abs=1e-5)


@pytest.mark.parametrize("num_frames", [0, 1, 3])
def test_viterbi_of_short_videos(num_frames: int) -> None:
    scores = torch.randn(num_frames, 3)
    labels = viterbi(scores, 4)
    assert labels.shape == (num_frames,)
    assert len(labels.unique()) <= 1


def test_viterbi_labels_obey_gamma() -> None:
    frames = torch.tensor([[0.6, 0.5]]).repeat(6, 1)
    seen = torch.tensor([True, False])
    given = {"temperature": 0.1, "smoothing": "viterbi", "min_duration": 2}
    low, high = (
        match_texts(frames, torch.eye(2), ["a", "b"], seen, gamma=gamma, **given)  # type: ignore[arg-type]
        for gamma in (0.05, 0.2)
    )
    assert low.labels.unique().tolist() == [0]
    assert high.labels.unique().tolist() == [1]
    torch.testing.assert_close(high.cosine, frames)


def test_what_cannot_be_done_is_said() -> None:
    frames = torch.eye(3)
    with pytest.raises(ValueError, match="expected one of none, segments, median, viterbi"):
        named(frames, "mean")
    with pytest.raises(ValueError, match="needs runs"):
        named(frames, "segments")
    with pytest.raises(ValueError, match="no candidate"):
        match_texts(
            frames, torch.zeros(0, 3), [], torch.zeros(0).bool(), gamma=0.0, temperature=1.0
        )
