"""A small FACT and videos for it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from vidseg.config import CfgNode, get_cfg
from vidseg.projects.fact_clip import FACT
from vidseg.projects.fact_clip.config import add_config

WIDTH, NUM_CLASSES, NUM_TOKENS = 12, 6, 8

_SMALL = {
    "FACT.ntoken": NUM_TOKENS,
    "FACT.cmr": 0.0,
    "Bi.hid_dim": 32,
    "Bi.dropout": 0.0,
    "Bi.a_nhead": 2,
    "Bi.a_ffdim": 16,
    "Bi.a_layers": 1,
    "Bi.a_dim": 16,
    "Bi.f": "m2",
    "Bi.f_layers": 3,
    "Bi.f_ln": False,
    "Bi.f_dim": 16,
    "Bi.f_ngp": 1,
    "Bu.f_layers": 2,
    "BU.f_layers": 2,
    "Loss.sw": 1.0,
}


def small_cfg(**keys: Any) -> CfgNode:
    """Keys are given with ``__`` for the dot."""
    cfg = get_cfg()
    add_config(cfg)
    named = {name.replace("__", "."): value for name, value in keys.items()}
    for key, value in {**_SMALL, **named}.items():
        cfg.merge_from_list([key, value])
    return cfg


def build(**keys: Any) -> FACT:
    torch.manual_seed(0)
    return FACT(small_cfg(**keys), WIDTH, NUM_CLASSES)


def video(labels: list[int] | Tensor, seed: int = 0) -> dict[str, Any]:
    """A sample with random features and these labels."""
    labels = torch.as_tensor(labels, dtype=torch.int64)
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(len(labels), WIDTH, generator=generator)
    return {"video_id": f"video{seed}", "features": features, "labels": labels}


def runs(*classes_and_lengths: tuple[int, int]) -> list[int]:
    """Labels of segments, given as class and length."""
    return [number for number, length in classes_and_lengths for _ in range(length)]
