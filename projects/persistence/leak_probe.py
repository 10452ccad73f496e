"""What single tokens give away: a logistic regression that never sees two tokens together.

If it does much better than chance, the classes differ in colour, size, place or frame index, and a
model may be right without having followed anything through time. It is fitted anew on the tokens
that a model is scored on, by cross-validation over whole clips.

Shapes: N tokens, M clips, D features.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .metrics import PERSISTENT, TRANSIENT

__all__ = ["fit_logistic", "probe_decisions", "probe_features"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

UNDECIDED = -1
_MAX_MOMENTS = 64  # columns of the frame index; longer clips share them
_RIDGE = 1.0  # penalty of squared weights, beside the sum of the losses
_MAX_STEPS, _TOLERANCE = 50, 1e-8


def probe_features(measured: Floats, frames: Ints, num_frames: Ints) -> Floats:
    """Gives the features of single tokens: what was measured, its squares, and the frame index.

    Args:
        measured: ``(N, F)``, such as mean colour, radius, response, y and x.
        frames: ``(N,)``.
        num_frames: ``(N,)`` T of the clip of each token.

    Returns:
        ``(N, 2 F + frames)``; the frame index has a column for each value, up to 64.
    """
    longest = int(num_frames.max(initial=1))
    moments = frames
    if longest > _MAX_MOMENTS:
        moments, longest = frames * _MAX_MOMENTS // num_frames, _MAX_MOMENTS
    return np.concatenate([measured, measured**2, np.eye(longest)[moments]], axis=1)


def probe_decisions(
    features: Floats, labels: Ints, clips: Ints, *, num_folds: int = 5, seed: int = 0
) -> Ints:
    """Decides on every labelled token by a regression that was fitted without its clip.

    Args:
        features: ``(N, D)`` of single tokens.
        labels: ``(N,)``: 1 persistent, 0 transient; others are neither fitted nor decided.
        clips: ``(N,)`` clip of each token.
        num_folds: parts of the clips, each of which is decided by the others.
        seed: of the parting.

    Returns:
        ``(N,)``: 1 persistent, 0 transient, -1 where the other clips lack one of the classes.
    """
    decisions = np.full(len(labels), UNDECIDED)
    labelled = (labels == PERSISTENT) | (labels == TRANSIENT)
    names, place = np.unique(clips, return_inverse=True)
    folds = np.random.default_rng(seed).permutation(len(names)) % num_folds
    fold = folds[place]
    for number in range(num_folds):
        fitted, decided = labelled & (fold != number), labelled & (fold == number)
        if decided.any() and len(np.unique(labels[fitted])) == 2:
            mean, scale = features[fitted].mean(0), features[fitted].std(0)
            scaled = (features - mean) / np.where(scale > 1e-9, scale, 1.0)
            weights = fit_logistic(scaled[fitted], labels[fitted])
            decisions[decided] = scaled[decided] @ weights[1:] + weights[0] > 0
    return decisions


def fit_logistic(features: Floats, labels: Ints) -> Floats:
    """Fits a logistic regression with classes of equal mass, by damped Newton steps.

    Args:
        features: ``(N, D)``, of about unit scale.
        labels: ``(N,)`` of 1 and 0, both present.

    Returns:
        ``(1 + D,)`` intercept and weights of "1".
    """
    inputs = np.concatenate([np.ones((len(features), 1)), features], axis=1)
    signs = np.where(labels == PERSISTENT, 1.0, -1.0)
    num_persistent = (labels == PERSISTENT).sum()
    mass = len(labels) / 2 / np.where(signs > 0, num_persistent, len(labels) - num_persistent)
    ridge = np.full(inputs.shape[1], _RIDGE)
    ridge[0] = 1e-6  # the intercept is free, but for the sum of the columns of the frame index

    def loss(weights: Floats) -> float:
        return float(mass @ np.logaddexp(0, -signs * (inputs @ weights)) + ridge @ weights**2 / 2)

    weights = np.zeros(inputs.shape[1])
    current = loss(weights)
    for _ in range(_MAX_STEPS):
        wrong = _sigmoid(-signs * (inputs @ weights))
        gradient = inputs.T @ (-mass * signs * wrong) + ridge * weights
        curvature = (inputs * (mass * wrong * (1 - wrong))[:, None]).T @ inputs + np.diag(ridge)
        step = np.linalg.solve(curvature, gradient)
        length = 1.0
        while (found := loss(weights - length * step)) > current and length > 1e-6:
            length /= 2
        weights = weights - length * step
        if current - found <= _TOLERANCE * max(1.0, current):
            break
        current = found
    return weights


def _sigmoid(values: Floats) -> Floats:
    return np.asarray(0.5 * (1 + np.tanh(values / 2)))
