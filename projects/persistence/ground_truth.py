"""Which detection shows which object.

Shapes: N detections, M objects, T frames.
"""

from __future__ import annotations

import numpy as np

from .clips import Clip, PersistenceClips
from .detections import Detections

__all__ = ["match_detections", "noisy_labels"]

_LABEL_NOISE = 1  # last word of the seeds of a clip, see PersistenceClips.seed_sequence


def match_detections(detections: Detections, clip: Clip) -> np.ndarray:
    """Gives every detection the nearest visible object whose disc holds its centre.

    Args:
        detections: of the clip.
        clip: with its objects.

    Returns:
        int64 ``(N,)``, number of the object; -1 if there is none.
    """
    objects = clip.objects
    if not len(detections):
        return np.zeros(0, dtype=np.int64)
    frame = detections.frame.numpy()
    offset = objects.centers[:, frame] - detections.centers.numpy()  # (M, N, 2)
    distance = np.hypot(offset[..., 0], offset[..., 1])
    reached = objects.visible[:, frame] & (distance <= objects.radii[:, frame])
    distance = np.where(reached, distance, np.inf)
    nearest = distance.argmin(axis=0)
    matched: np.ndarray = np.where(reached.any(axis=0), nearest, -1).astype(np.int64)
    return matched


def noisy_labels(
    labels: np.ndarray, clips: PersistenceClips, index: int, share: float
) -> np.ndarray:
    """Gives a share of the objects the wrong class, the same ones whenever the clip is used.

    Args:
        labels: int64 ``(M,)``, 1 or 0.
        clips: what the clip is of.
        index: of the clip.
        share: of the objects, in [0, 1].
    """
    if not share:
        return labels
    rng = np.random.default_rng(clips.seed_sequence(index, _LABEL_NOISE))
    flipped: np.ndarray = np.where(rng.random(len(labels)) < share, 1 - labels, labels)
    return flipped
