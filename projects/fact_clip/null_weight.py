"""The weight of the tokens' null class, from how many tokens the training videos leave over."""

from __future__ import annotations

from dataclasses import dataclass

from vidseg.collectives import gather

from .targets import VideoTargets

__all__ = ["TokenDemand", "null_weight", "tokens_needed"]


def null_weight(num_tokens: int, mean_matched: float, num_classes: float) -> float:
    """Gives the weight at which the null class counts as much as any other class on average.

    Args:
        num_tokens: M.
        mean_matched: tokens that a video needs on average: its segments, or its distinct classes
            if tokens may serve several segments.
        num_classes: C; for verbs and nouns the mean of their numbers.

    Returns:
        ``M / ((M - mean_matched) C)``; where hardly a token is left over, as if one were.
    """
    return num_tokens / (max(num_tokens - mean_matched, 1.0) * num_classes)


def tokens_needed(targets: VideoTargets, match: str) -> int:
    """Gives the number of tokens that a video needs: segments, or classes for ``o2m``."""
    wanted = targets.transcript.unique() if match == "o2m" else targets.transcript
    return len(wanted)


@dataclass(frozen=True)
class TokenDemand:
    """How many tokens the videos of a training set need.

    Args:
        num_videos: that have a labelled frame, over all ranks.
        mean: over these, 0 if there are none.
        largest: of any.
        num_beyond: videos that need more tokens than there are.
    """

    num_videos: int
    mean: float
    largest: int
    num_beyond: int

    @classmethod
    def over_ranks(cls, needs: list[int], num_tokens: int) -> TokenDemand:
        """Sums up what the videos of all ranks need.

        Args:
            needs: tokens needed by each video of this rank; those that need none do not count.
            num_tokens: M.
        """
        every = [need for part in gather(needs) for need in part if need]
        mean = sum(every) / max(len(every), 1)
        num_beyond = sum(need > num_tokens for need in every)
        return cls(len(every), mean, max(every, default=0), num_beyond)
