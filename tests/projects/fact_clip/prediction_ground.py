"""Predictions with chosen labels, as a model would give them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from vidseg.projects.fact_clip.prediction import ActionPrediction
from vidseg.projects.fact_clip.text_matching import ZeroShot

CLASSES = ["background", "take bowl", "pour milk", "stir"]


def segments(*runs: tuple[int, int]) -> np.ndarray:
    """Labels from runs of (class, length)."""
    return np.repeat([action for action, _ in runs], [length for _, length in runs])


def make_prediction(
    labels: np.ndarray,
    *,
    frame: np.ndarray | None = None,
    action: np.ndarray | None = None,
    num_classes: int = len(CLASSES),
    num_tokens: int = 5,
) -> ActionPrediction:
    """A prediction whose branches say what is given; the last token stands for no action."""
    merged = torch.as_tensor(labels)
    probabilities = torch.full((len(merged), num_classes), 0.2 / (num_classes - 1))
    probabilities[torch.arange(len(merged)), merged] = 0.8
    attention = torch.full((len(merged), num_tokens), 0.1)
    chosen = torch.arange(len(merged)) * (num_tokens - 1) // len(merged)
    attention[torch.arange(len(merged)), chosen] = 1 - 0.1 * (num_tokens - 1)
    tokens = torch.arange(num_tokens) % num_classes
    tokens[-1] = num_classes
    return ActionPrediction(
        labels=merged,
        probabilities=probabilities,
        frame_labels=merged if frame is None else torch.as_tensor(frame),
        action_labels=merged if action is None else torch.as_tensor(action),
        token_labels=tokens,
        attention=attention.half(),
    )


def match_text(labels: np.ndarray, candidates: list[str], seen: list[bool]) -> ZeroShot:
    """Zero-shot labels with cosines that belong to them; an untrained model says the first."""
    chosen = torch.as_tensor(labels)
    cosine = F.one_hot(chosen, len(candidates)).float() * 0.5
    return ZeroShot(
        labels=chosen,
        cosine=cosine,
        probabilities=cosine.softmax(-1),
        candidates=candidates,
        gamma=0.0,
        seen=torch.tensor(seen),
        untrained=F.one_hot(torch.zeros_like(chosen), len(candidates)).float(),
    )


def make_sample(name: str, truth: np.ndarray | None, length: int, rate: int = 1) -> dict[str, Any]:
    """A sample of a test set, of every ``rate``-th of ``length`` frames."""
    sample: dict[str, Any] = {"video_id": name, "frame_indices": range(0, length, rate)}
    return sample if truth is None else {**sample, "full_labels": torch.as_tensor(truth)}
