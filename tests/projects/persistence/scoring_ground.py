"""Clips of points with known classes, and predictions for them, without detector and model."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from vidseg.projects.persistence.detections import Detections
from vidseg.projects.persistence.prediction import TokenPrediction
from vidseg.projects.persistence.trackers import HungarianTracker

T = 16
Clip = tuple[dict[str, Any], TokenPrediction]


def make_clip(
    number: int,
    *,
    transients: int = 2,
    error: float = 0.0,
    leak: bool = False,
    background: int = 0,
    attention: str = "uniform",
    truth: bool = True,
) -> Clip:
    """Makes two persistent points, some transient ones, and what a model says of them.

    Args:
        number: of the clip; also its seed.
        transients: how many.
        error: share of the decisions that are wrong.
        leak: whether transient points are red, others white.
        background: detections of no object.
        attention: "uniform", or "right": nine times as much to persistent tokens.
        truth: whether the classes are told.
    """
    rng = np.random.default_rng(number)
    labels = np.array([1, 1] + [0] * transients)
    presence = np.ones((len(labels), T), dtype=bool)
    for row in presence[2:]:
        start = int(rng.integers(-4, T - 2))
        row[:] = False
        row[max(start, 0) : start + 6] = True
    start = rng.uniform(8, 56, (len(labels), 2))
    speed = rng.normal(0, 1.5, (len(labels), 2))  # some are too fast for the tracker's gate
    rows = [
        (t, *(start[m] + speed[m] * t), m)
        for t in range(T)
        for m in range(len(labels))
        if presence[m, t]
    ]
    rows += [(int(rng.integers(T)), *rng.uniform(0, 64, 2), -1) for _ in range(background)]
    table = np.array(sorted(rows)).reshape(-1, 4)
    object_ids = table[:, 3].astype(int)
    token_labels = np.where(object_ids >= 0, labels[object_ids], -1)
    colors = np.full((len(table), 3), 0.8)
    if leak:
        colors[token_labels == 0] = (0.8, 0.1, 0.1)
    found = detections(table, colors + rng.normal(0, 0.01, colors.shape))
    wrong = rng.random(len(table)) < error
    logits = np.where((token_labels == 1) ^ wrong, 2.0, -2.0)
    weights = np.where(token_labels == 1, 9.0 if attention == "right" else 1.0, 1.0)
    sample: dict[str, Any] = {
        "video_id": f"clip_{number:03d}",
        "length": T,
        "detections": found,
        "frames": torch.zeros(T, 3, 64, 64, dtype=torch.uint8),
        "labels": torch.from_numpy(token_labels if truth else np.full(len(table), -1)),
        "object_ids": torch.from_numpy(object_ids if truth else np.full(len(table), -1)),
        "num_visible": int(presence.sum()) if truth else 0,
    }
    if truth:
        sample["objects"] = {
            "labels": torch.from_numpy(labels),
            "presence": torch.from_numpy(presence),
            "durations": torch.from_numpy(presence.mean(1)).float(),
        }
    share = torch.from_numpy(weights / weights.sum()).float()
    uniform = torch.full((len(table),), 1 / max(len(table), 1))
    return sample, TokenPrediction(
        detections=found,
        logits=torch.from_numpy(logits).float(),
        attention={"summary": share, "layer 1": uniform, "layer 2": share},
        matrix=torch.zeros(len(table), len(table)),
        durations=None,
        queries=None,
        tracks=HungarianTracker().track(found),
        kept=torch.arange(len(table)),
    )


def detections(table: np.ndarray, colors: np.ndarray) -> Detections:
    """Makes detections of rows (frame, y, x, ...)."""
    values = torch.from_numpy(table).float()
    plain = torch.ones(len(values))
    return Detections(
        frame=torch.from_numpy(table[:, 0]).long(),
        y=values[:, 1],
        x=values[:, 2],
        sigma=plain * 3,
        response=plain,
        brightness=plain,
        circularity=plain,
        confidence=plain,
        color=torch.from_numpy(colors).float(),
        num_frames=T,
        size=(64, 64),
    )
