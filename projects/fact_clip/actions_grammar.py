"""Classes and transcripts of ``actions_synthetic``: what happens in a generated kitchen, in order.

An action is a verb applied to a noun. A video prepares a few ingredients, each by the same steps in
the same order, of which some may be left out; the steps of different ingredients interleave, and
now and then nothing happens that has a name.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = [
    "ACTIONS",
    "BACKGROUND",
    "CLASSES",
    "NOUNS",
    "PSEUDO_UNSEEN",
    "UNSEEN",
    "VERBS",
    "Segment",
    "write_transcript",
]

# Steps with the share of ingredients that they are applied to.
_SOLID_STEPS = {"take": 1.0, "wash": 0.75, "cut": 0.75, "place": 1.0}
_LIQUID_STEPS = {"take": 1.0, "open": 0.75, "pour": 1.0, "stir": 0.75}
_SOLIDS = ("apple", "carrot", "cucumber", "tomato")
_LIQUIDS = ("juice", "milk", "oil")

_FRAMES = {
    **{"take": 14, "wash": 28, "cut": 45, "place": 18},
    **{"open": 16, "pour": 24, "stir": 36},
}
_JITTER = 0.3  # of the logarithm of durations
_SHORTEST = 8  # frames
_INGREDIENTS = (2, 4)  # least and most of a video
_PERSISTENCE = 0.6  # chance to go on with the same ingredient
_IDLE_SHARE = 0.2  # of the gaps between two steps
_IDLE_FRAMES = 15

BACKGROUND = "background"
VERBS = tuple(sorted({*_SOLID_STEPS, *_LIQUID_STEPS}))
NOUNS = tuple(sorted({*_SOLIDS, *_LIQUIDS}))
ACTIONS = tuple(
    sorted(
        (verb, noun)
        for steps, nouns in ((_SOLID_STEPS, _SOLIDS), (_LIQUID_STEPS, _LIQUIDS))
        for verb in steps
        for noun in nouns
    )
)
"""Verb and noun of every class but background, which is class 0."""

CLASSES = [BACKGROUND, *(f"{verb}_{noun}" for verb, noun in ACTIONS)]
"""Names by number."""

UNSEEN = ["cut_tomato", "pour_juice", "stir_oil", "take_carrot", "wash_apple"]
"""Classes to be held out for zero-shot recognition; their verbs and nouns occur in others."""

PSEUDO_UNSEEN = ["cut_apple", "place_carrot", "pour_milk", "take_tomato", "wash_cucumber"]
"""Classes to be held out besides, to choose settings on; the same holds without both lists."""


@dataclass(frozen=True)
class Segment:
    """A step of a video.

    Attributes:
        verb: number in ``VERBS``, -1 for background.
        noun: number in ``NOUNS``, -1 for background.
        num_frames: duration.
    """

    verb: int
    noun: int
    num_frames: int

    @property
    def label(self) -> int:
        """Number of the class."""
        if self.verb < 0:
            return 0
        return 1 + ACTIONS.index((VERBS[self.verb], NOUNS[self.noun]))


def write_transcript(rng: np.random.Generator) -> list[Segment]:
    """Draws what happens in a video; neighbours are of different classes."""
    wanted = int(rng.integers(_INGREDIENTS[0], _INGREDIENTS[1] + 1))
    queues = []
    for noun in rng.permutation(len(NOUNS))[:wanted]:
        steps = _SOLID_STEPS if NOUNS[noun] in _SOLIDS else _LIQUID_STEPS
        queues.append([(verb, int(noun)) for verb, share in steps.items() if rng.random() < share])
    segments = [_idle(rng)] if rng.random() < 0.5 else []
    current = 0
    while queues:
        verb, noun = queues[current].pop(0)
        segments.append(_step(verb, noun, rng))
        if not queues[current]:
            del queues[current]
            current = 0
        elif rng.random() > _PERSISTENCE:
            current = int(rng.integers(len(queues)))
        if rng.random() < _IDLE_SHARE or not queues:
            segments.append(_idle(rng))
    return segments


def _step(verb: str, noun: int, rng: np.random.Generator) -> Segment:
    return Segment(VERBS.index(verb), noun, _duration(_FRAMES[verb], rng))


def _idle(rng: np.random.Generator) -> Segment:
    return Segment(-1, -1, _duration(_IDLE_FRAMES, rng))


def _duration(usual: float, rng: np.random.Generator) -> int:
    return max(round(usual * float(np.exp(rng.normal(scale=_JITTER)))), _SHORTEST)
