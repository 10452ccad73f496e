"""Matching of action tokens and segments of a video (FACT, Lu and Elhamifar, CVPR 2024).

Shapes: T frames, M tokens, S segments, C classes (the null class of tokens is index C).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from vidseg.modeling.matcher import assign

from .targets import VideoTargets

__all__ = ["Match", "match_cost", "one_to_many", "one_to_one", "sequential", "soft_iou"]


@dataclass(frozen=True)
class Match:
    """Pairs of tokens and segments; a segment is in one pair at most.

    Args:
        tokens: ``(n,)`` int64; one may serve several segments.
        segments: ``(n,)`` int64.
    """

    tokens: Tensor
    segments: Tensor

    @classmethod
    def of(cls, tokens: np.ndarray, segments: np.ndarray, device: torch.device) -> Match:
        """Takes pairs that were found on the host."""
        pairs = torch.from_numpy(np.stack([tokens, segments]).astype(np.int64)).to(device)
        return cls(pairs[0], pairs[1])


def soft_iou(attention: Tensor, targets: VideoTargets) -> Tensor:
    """Gives the overlap of the tokens' attention with the segments, relative to their union.

    The union of token and segment is the sum over frames of ``min(attention + [in segment], 1)``.
    As an attention is 1 at most, that is the length of the segment plus the sum of the attention
    minus the overlap, without an array over frames, tokens and segments.

    Args:
        attention: ``(T, M)``, within 0 to 1.
        targets: of the video; frames without label do not count.

    Returns:
        ``(M, S)`` float32, within 0 to 1.
    """
    attention = attention.float()
    if len(targets.frames) < targets.num_frames:
        attention = attention[targets.frames]
    num_segments = len(targets.transcript)
    overlap = attention.new_zeros(num_segments, attention.shape[1])
    overlap.index_add_(0, targets.segments, attention)
    lengths = torch.bincount(targets.segments, minlength=num_segments)
    union = lengths[:, None] + overlap.sum(0) - overlap
    return (overlap / union).T


@torch.no_grad()
def match_cost(
    class_probs: Tensor,
    attention: Tensor,
    targets: VideoTargets,
    *,
    class_cost: float,
    overlap_cost: float,
) -> np.ndarray:
    """Gives the cost of matching each token with each segment.

    Args:
        class_probs: of the tokens, ``(M, C + 1)``.
        attention: of the frames to the tokens, ``(T, M)``.
        targets: of the video.
        class_cost: weight of the probability of the segment's class.
        overlap_cost: weight of the soft IoU.

    Returns:
        ``(M, S)`` float32: minus the weighted sum.
    """
    cost = class_probs.new_zeros(len(class_probs), len(targets.transcript), dtype=torch.float32)
    if class_cost:
        cost -= class_cost * class_probs.float()[:, targets.transcript]
    if overlap_cost:
        cost -= overlap_cost * soft_iou(attention, targets)
    return cost.cpu().numpy()


def one_to_one(cost: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Matches at the smallest total cost (Hungarian method).

    Args:
        cost: ``(M, S)``.

    Returns:
        Tokens, ascending, and their segments: ``min(M, S)`` pairs.
    """
    rows, columns = assign(cost)
    return rows.numpy(), columns.numpy()


def one_to_many(cost: np.ndarray, transcript: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Matches tokens with classes first, and each segment with the best token of its class.

    Every class of the video gets a token at the smallest total cost; each token that is left over
    joins the class where it costs least.

    Args:
        cost: ``(M, S)``.
        transcript: class of each segment, ``(S,)``.

    Returns:
        Tokens and segments by ascending class, within a class by ascending segment. Every segment
        is there once, unless the video has more classes than M: then those of classes without
        token are missing.
    """
    if not cost.size:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    classes, class_of_segment = np.unique(transcript, return_inverse=True)
    class_costs = np.zeros((len(cost), len(classes)), cost.dtype)
    np.add.at(class_costs.T, class_of_segment, cost.T)
    class_of_token = class_costs.argmin(1)
    rows, columns = one_to_one(class_costs)
    class_of_token[rows] = columns
    served = np.arange(len(classes)) if len(rows) == len(classes) else columns
    is_own = class_of_token[:, None] == class_of_segment
    tokens = np.where(is_own, cost, np.inf).argmin(0)
    segments = np.argsort(class_of_segment, kind="stable")
    segments = segments[np.isin(class_of_segment[segments], served)]
    return tokens[segments], segments


def sequential(num_tokens: int, num_segments: int) -> tuple[np.ndarray, np.ndarray]:
    """Matches token k with segment k, as far as there are both."""
    pairs = np.arange(min(num_tokens, num_segments))
    return pairs, pairs
