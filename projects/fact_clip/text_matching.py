"""Naming frames by the text that is nearest: cosines, smoothing over time, calibrated stacking.

Shapes: T frames, K candidate classes, E width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .segments import find_segments

__all__ = ["SMOOTHINGS", "ZeroShot", "match_texts", "viterbi"]

SMOOTHINGS = ("none", "segments", "median", "viterbi")


@dataclass(frozen=True)
class ZeroShot:
    """Labels of a video by text. All tensors are on the CPU.

    Attributes:
        labels: ``(T,)`` int64, numbers of candidates.
        cosine: ``(T, K)`` float32, smoothed unless smoothing is ``none`` or ``viterbi``; nothing
            is subtracted from it.
        probabilities: ``(T, K)`` float32, soft-max of ``cosine`` over the temperature.
        candidates: K names.
        gamma: what seen candidates had to be better by.
        seen: ``(K,)`` bool, whether training saw labels of a candidate.
        untrained: ``(T, K)`` float32, cosines of a projection that was never trained, to compare
            with; None if not asked for.
    """

    labels: Tensor
    cosine: Tensor
    probabilities: Tensor
    candidates: list[str]
    gamma: float
    seen: Tensor
    untrained: Tensor | None = None


def match_texts(
    frames: Tensor,
    texts: Tensor,
    candidates: Sequence[str],
    seen: Tensor,
    *,
    gamma: float,
    temperature: float,
    smoothing: str = "none",
    min_duration: int = 1,
    runs: Tensor | None = None,
) -> ZeroShot:
    """Names every frame by the nearest text; seen classes must be nearer by ``gamma``.

    The handicap of seen classes is calibrated stacking (Chao et al., ECCV 2016).

    Args:
        frames: ``(T, E)`` unit vectors.
        texts: ``(K, E)`` unit vectors.
        candidates: K names.
        seen: ``(K,)`` bool.
        gamma: subtracted from the cosines of seen classes.
        temperature: that the cosines are divided by for probabilities, and for Viterbi.
        smoothing: ``none``; ``segments``: means over the runs of equal values in ``runs``;
            ``median``: of each candidate over ``min_duration`` frames; ``viterbi``: the best labels
            whose segments all last ``min_duration`` frames.
        min_duration: in frames.
        runs: ``(T,)`` labels whose runs are meant.

    Raises:
        ValueError: if the smoothing is unknown, its runs are missing, or there is no candidate.
    """
    if smoothing not in SMOOTHINGS:
        raise ValueError(f"smoothing is {smoothing!r}, expected one of {', '.join(SMOOTHINGS)}")
    if not len(texts):
        raise ValueError("there is no candidate class")
    # Mixed precision would round off what tells neighbouring classes apart.
    with torch.autocast(frames.device.type, enabled=False):
        cosine = (frames.float() @ texts.to(frames.device).t()).cpu()
    seen = seen.cpu()
    if smoothing == "segments":
        if runs is None:
            raise ValueError("smoothing by segments needs runs")
        cosine = _means_of_runs(cosine, runs.cpu())
    elif smoothing == "median":
        cosine = _running_median(cosine, min_duration)
    scores = cosine - gamma * seen
    if smoothing == "viterbi":
        labels = viterbi(scores / temperature, min_duration)
    else:
        labels = scores.argmax(1)
    probabilities = (cosine / temperature).softmax(1)
    return ZeroShot(labels, cosine, probabilities, list(candidates), float(gamma), seen)


def viterbi(scores: Tensor, min_duration: int) -> Tensor:
    """Gives the labels of the greatest total score whose segments all have a minimum length.

    Args:
        scores: ``(T, K)``.
        min_duration: in frames; a shorter video is one segment.

    Returns:
        ``(T,)`` int64.
    """
    num_frames, num_classes = scores.shape
    duration = max(min_duration, 1)
    if num_frames == 0 or num_classes == 1 or duration == 1:
        return scores.argmax(1)
    scores = scores.double().cpu()
    if num_frames < 2 * duration:
        return scores.sum(0).argmax().expand(num_frames).clone()
    sums = torch.cat([scores.new_zeros(1, num_classes), scores.cumsum(0)])
    total = scores.new_full((num_frames + 1, num_classes), -torch.inf)
    entered = torch.zeros(num_frames + 1, num_classes, dtype=torch.bool)
    before = torch.full((num_frames + 1, num_classes), -1)
    total[duration] = sums[duration]
    entered[duration] = True
    for end in range(duration + 1, num_frames + 1):
        stay = total[end - 1] + scores[end - 1]
        best, classes = total[end - duration].topk(2)
        # The best class cannot follow itself: after it comes the second best.
        follows = torch.arange(num_classes) == classes[0]
        enter = torch.where(follows, best[1], best[0]) + sums[end] - sums[end - duration]
        entered[end] = enter > stay
        total[end] = torch.maximum(enter, stay)
        before[end] = torch.where(follows, classes[1], classes[0])
    labels = torch.empty(num_frames, dtype=torch.long)
    end, label = num_frames, int(total[num_frames].argmax())
    while end > 0:
        start = end - 1
        if entered[end, label]:
            start = end - duration
        labels[start:end] = label
        if entered[end, label]:
            label = int(before[end, label])
        end = start
    return labels


def _means_of_runs(cosine: Tensor, runs: Tensor) -> Tensor:
    segments = find_segments(runs)
    return segments.to_frames(segments.mean(cosine))


def _running_median(cosine: Tensor, length: int) -> Tensor:
    """Gives medians over an odd number of frames; ends repeat their last frame."""
    reach = max(length, 1) // 2
    if reach == 0 or not len(cosine):
        return cosine
    places = torch.arange(-reach, len(cosine) + reach).clamp(0, len(cosine) - 1)
    return cosine[places].unfold(0, 2 * reach + 1, 1).median(-1).values
