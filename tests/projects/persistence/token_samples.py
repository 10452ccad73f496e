"""Small models of object persistence, and clips of moving blobs without any picture."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from vidseg.config import CfgNode, load_config
from vidseg.modeling import build_model
from vidseg.projects.persistence import Detections, ObjectPersistence

NUM_FRAMES, PATCH = 8, 6

SMALL: dict[str, Any] = {
    "HIDDEN_DIM": 32,
    "NHEADS": 4,
    "DIM_FEEDFORWARD": 48,
    "PATCH": PATCH,
    "DROPOUT": 0.0,
}

FULL: dict[str, Any] = {
    "RELATIVE_BIAS": "motion",
    "TRACK_BIAS": True,
    "NULL_KEY": True,
    "SUMMARY_QUERY": True,
    "QUERIES": 6,
    "DURATION_WEIGHT": 0.5,
    "ATTENTION_WEIGHT": 0.1,
    "CONTRASTIVE_WEIGHT": 0.1,
}
"""Every option that adds something to the baseline."""


def config(**settings: Any) -> CfgNode:
    """Gives the config of a small model; settings are keys of MODEL.PERSISTENCE."""
    cfg = load_config("projects/persistence/persistence.yaml")
    cfg.MODEL.DEVICE = "cpu"
    for name, value in {**SMALL, **settings}.items():
        cfg.MODEL.PERSISTENCE[name] = value
    return cfg


def build(**settings: Any) -> ObjectPersistence:
    """Builds a small model in eval mode, the same for the same settings."""
    torch.manual_seed(0)
    model = build_model(config(**settings)).eval()
    assert isinstance(model, ObjectPersistence)
    return model


def detections(num_objects: int, seed: int = 0, *, height: int = 64) -> tuple[Detections, Tensor]:
    """Gives blobs that move evenly, every second one for three frames only, and their objects."""
    rng = torch.Generator().manual_seed(seed)
    rows = []
    for number in range(num_objects):
        place = 10 + 40 * torch.rand(2, generator=rng)
        velocity = torch.randn(2, generator=rng)
        for frame in range(NUM_FRAMES) if number % 2 == 0 else range(2, 5):
            y, x = (place + frame * velocity).tolist()
            rows.append((frame, number, y, x, 3 + 0.3 * number))
    rows.sort()
    frame, objects, y, x, sigma = torch.tensor(rows).reshape(-1, 5).unbind(1)
    shares = 0.5 + 0.5 * torch.rand(3, len(rows), generator=rng)
    found = Detections(
        frame=frame.long(),
        y=y,
        x=x,
        sigma=sigma,
        response=shares[0],
        brightness=shares[0],
        circularity=shares[1],
        confidence=shares[2],
        color=torch.ones(len(rows), 3),
        num_frames=NUM_FRAMES,
        size=(height, height),
    )
    return found, objects.long()


def sample(num_objects: int, seed: int = 0) -> dict[str, Any]:
    """Gives a training sample: objects 0, 2, ... are persistent, the others transient."""
    found, objects = detections(num_objects, seed)
    rng = torch.Generator().manual_seed(seed + 1)
    patches = torch.randint(0, 256, (len(found), 3, PATCH, PATCH), generator=rng).to(torch.uint8)
    numbers = torch.arange(num_objects)
    presence = (
        torch.stack(
            [torch.bincount(found.frame[objects == n], minlength=NUM_FRAMES) > 0 for n in numbers]
        )
        if num_objects
        else torch.zeros(0, NUM_FRAMES, dtype=torch.bool)
    )
    durations = presence.float().mean(1)
    return {
        "video_id": f"clip{seed}",
        "length": NUM_FRAMES,
        "detections": found,
        "patches": patches,
        "labels": 1 - objects % 2,
        "object_ids": objects,
        "durations": durations[objects],
        "objects": {"labels": 1 - numbers % 2, "presence": presence, "durations": durations},
    }
