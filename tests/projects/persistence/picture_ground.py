"""A clip of moving discs and what a model might say of it, for the tests of pictures."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from vidseg.projects.persistence.detections import Detections
from vidseg.projects.persistence.prediction import TokenPrediction


def make_sample(num_frames: int = 16, size: tuple[int, int] = (64, 64)) -> dict[str, Any]:
    """Gives a clip of two persistent and three transient discs, and a stray blob."""
    height, width = size
    frames = torch.full((num_frames, 3, height, width), 20, dtype=torch.uint8)
    # label, first frame, last frame, hidden frames, start (y, x), velocity (y, x), radius
    objects: list[tuple[Any, ...]] = [
        (1, 0, num_frames, (6, 7), (12.0, 8.0), (0.4, 2.7), 4.0),
        (1, 0, num_frames, (), (50.0, 56.0), (-1.2, -2.0), 5.0),
        (0, 2, 7, (), (20.0, 40.0), (1.5, -0.5), 3.5),
        (0, 9, 14, (), (34.0, 10.0), (1.0, 1.2), 4.5),
        (0, 12, num_frames, (), (10.0, 50.0), (2.0, -1.0), 3.5),
    ]
    rows, columns = torch.arange(height)[:, None], torch.arange(width)
    found: list[tuple[float, ...]] = []
    presence = torch.zeros(len(objects), num_frames, dtype=torch.bool)
    for number, (label, first, last, hidden, start, velocity, radius) in enumerate(objects):
        for t in range(first, min(last, num_frames)):
            y, x = (s + v * t for s, v in zip(start, velocity, strict=True))
            if t in hidden:
                continue
            presence[number, t] = True
            frames[t, :, (rows - y) ** 2 + (columns - x) ** 2 <= radius**2] = 230
            found.append((t, y, x, radius, label, number))
    found.append((min(5, num_frames - 1), 58.0, 30.0, 2.5, -1, -1))
    found.sort(key=lambda row: row[0])
    table = torch.tensor(found)
    n = len(table)
    return {
        "video_id": "clip_7",
        "length": num_frames,
        "frames": frames,
        "labels": table[:, 4].long(),
        "object_ids": table[:, 5].long(),
        "objects": {
            "labels": torch.tensor([o[0] for o in objects]),
            "presence": presence,
        },
        "detections": Detections(
            frame=table[:, 0].long(),
            y=table[:, 1],
            x=table[:, 2],
            sigma=table[:, 3] / 2**0.5,
            response=torch.ones(n),
            brightness=torch.ones(n),
            circularity=torch.ones(n),
            confidence=torch.linspace(0.5, 1.0, n),
            color=torch.ones(n, 3),
            num_frames=num_frames,
            size=size,
        ),
    }


def make_prediction(sample: dict[str, Any], *, summary: bool = True) -> TokenPrediction:
    """Gives decisions of which a few are wrong, and attention that prefers what stays."""
    rng = torch.Generator().manual_seed(0)
    labels, ids = sample["labels"], sample["object_ids"]
    n = len(labels)
    logits = 4.0 * (2 * labels.clamp(min=0) - 1) + torch.randn(n, generator=rng)
    logits[::11] *= -0.2
    layer = _normalised(1 + 0.3 * torch.rand(n, generator=rng) + 0.2 * (labels == 1))
    attention = {"layer 1": layer, "layer 2": layer.clone()}
    if summary:
        given = torch.where(labels == 1, 1.0, 0.05) * (0.7 + 0.6 * torch.rand(n, generator=rng))
        attention = {"summary": _normalised(given), **attention}
    same = (ids[:, None] == ids) & (ids[:, None] >= 0)
    near = (sample["detections"].frame[:, None] - sample["detections"].frame).abs() <= 3
    matrix = 0.02 + torch.rand(n, n, generator=rng) * 0.1 + (same & near)
    return TokenPrediction(
        detections=sample["detections"],
        logits=logits,
        attention=attention,
        matrix=matrix / matrix.sum(1, keepdim=True),
        durations=None,
        queries=None,
        tracks=torch.where(ids >= 0, ids + 1, 6),
        kept=torch.arange(n),
    )


def _normalised(values: Tensor) -> Tensor:
    return values / values.sum()
