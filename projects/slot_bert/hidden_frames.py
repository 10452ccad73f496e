"""How well slots are guessed in frames that were not looked at, beside interpolation.

The guess and the interpolation start from the same slots of the frames that were seen; the truth is
what slot attention gives when it sees all frames.

Shapes: T frames, K slots, D slot width.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from vidseg.evaluation.discovery import Share, contingency_tables

__all__ = ["dropped_frame_shares", "object_slots", "slot_errors"]


def slot_errors(guess: Tensor, truth: Tensor) -> dict[str, Tensor]:
    """Measures how far slots are from others.

    Args:
        guess: ``(..., D)``.
        truth: ``(..., D)``.

    Returns:
        ``cosine_error``, one minus the cosine, and ``norm_error``, the smooth L1 distance of the
        normalised vectors (mean 0, variance 1), mean over D; both ``(...)``.
    """
    guess, truth = guess.float(), truth.float()
    width = guess.shape[-1:]
    normed = F.layer_norm(guess, width), F.layer_norm(truth, width)
    return {
        "cosine_error": 1 - F.cosine_similarity(guess, truth, dim=-1),
        "norm_error": F.smooth_l1_loss(*normed, reduction="none").mean(-1),
    }


def object_slots(labels: NDArray[Any], segments: NDArray[Any], num_slots: int) -> NDArray[np.bool_]:
    """Tells which slots hold most of an object over the given frames, bool ``(K,)``.

    Args:
        labels: ``(T, H, W)``, see ``contingency_tables``.
        segments: ``(T, H, W)``.
        num_slots: K.
    """
    table = contingency_tables(labels, segments, num_segments=num_slots).sum(0)[1:]
    held = np.zeros(num_slots, bool)
    held[table.argmax(1)[table.sum(1) > 0]] = True
    return held


def dropped_frame_shares(
    prediction: Mapping[str, Tensor], dropped: Tensor, labels: NDArray[Any] | None = None
) -> dict[str, Share]:
    """Compares guessed slots of dropped frames with interpolated ones.

    Args:
        prediction: ``slots``, the guess; ``slots_corrected``, interpolated where frames are
            dropped; ``slots_seen``, of the same clip with all frames; each ``(T, K, D)``. Also
            ``segmentation`` ``(T, H, W)`` if there are labels.
        dropped: bool ``(T,)``.
        labels: ``(T, H, W)``, to look at the slots of objects alone, too.

    Returns:
        The errors of ``slot_errors`` as they are and with ``_interpolated``, mean over dropped
        frames and slots; with ``object_`` before, over slots that hold an object in the others.
    """
    truth = prediction["slots_seen"]
    chosen = {"": torch.ones(truth.shape[1], dtype=torch.bool)}
    if labels is not None and bool((~dropped).any()):
        seen = (~dropped).numpy()
        segments = prediction["segmentation"].numpy()
        held = object_slots(labels[seen], segments[seen], truth.shape[1])
        chosen["object_"] = torch.from_numpy(held)
    shares: dict[str, Share] = {}
    for end, name in (("", "slots"), ("_interpolated", "slots_corrected")):
        errors = slot_errors(prediction[name][dropped], truth[dropped])
        for kind, values in errors.items():
            for start, slots in chosen.items():
                found = values[:, slots].double()
                shares[f"{start}{kind}{end}"] = (float(found.sum()), float(found.numel()))
    return shares
