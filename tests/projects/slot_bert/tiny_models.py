"""Small models of slot_bert, and clips for them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from vidseg.config import CfgNode, get_cfg
from vidseg.modeling import build_model
from vidseg.projects.slot_bert import SlotBERT, add_config

KEY = "MODEL.SLOT_BERT."
TINY: dict[str, Any] = {
    "ENCODER.STRIDES": [2, 2],
    "ENCODER.CHANNELS": [8, 16],
    "ATTENTION.NUM_SLOTS": 3,
    "ATTENTION.SLOT_DIM": 16,
    "DECODER.SIZE": 16,
    "DECODER.CHANNELS": 8,
    "TRANSFORMER.NUM_LAYERS": 2,
    "TRANSFORMER.WINDOW": 6,
    "TRANSFORMER.STRIDE": 3,
}
VIDEO: dict[str, Any] = {"ATTENTION.INIT": "learned", "TIME.MODE": "recurrent"}
PHASE2: dict[str, Any] = {
    **VIDEO,
    "COMPOSE": "both",
    "TRANSFORMER.ENABLED": True,
    "LOSS.MASKED_SLOTS": 0.5,
    "LOSS.TIME_CONTRAST": 0.1,
    "LOSS.APPEARANCE": 1.0,
}
MLP: dict[str, Any] = {**VIDEO, "DECODER.NAME": "mlp", "DECODER.SUBSAMPLE": 0.5}


GAUSSIAN: dict[str, Any] = {
    "ATTENTION.INIT": "gaussian",
    "TIME.LINK": True,
    "MASK_SOURCE": "product",
}
DIFFERENCES: dict[str, Any] = {
    **VIDEO,
    "ENCODER.INPUT_DIFF": True,
    "TIME.PREDICTOR": "transformer",
    "MASK_SOURCE": "decoder",
}
PYRAMID: dict[str, Any] = {
    **MLP,
    "ENCODER.NAME": "pyramid",
    "ENCODER.CHANNELS": [8, 12, 16],
    "DECODER.SIZE": 12,
    "ATTENTION.POSITION_TERM": True,
    "ATTENTION.COLOR_TERM": True,
    "ATTENTION.LUMA": 0.5,
}
KINDS = {
    "phase1": {},
    "phase2": PHASE2,
    "mlp": MLP,
    "linked": GAUSSIAN,
    "diff": DIFFERENCES,
    "pyramid": PYRAMID,
}
ALL = pytest.mark.parametrize("settings", KINDS.values(), ids=KINDS)


def config(**settings: Any) -> CfgNode:
    """Gives the config of a tiny model; settings are keys with ``__`` for the dot."""
    return config_of({name.replace("__", "."): value for name, value in settings.items()})


def config_of(settings: dict[str, Any]) -> CfgNode:
    """Gives the config of a tiny model with keys of ``MODEL.SLOT_BERT``."""
    cfg = get_cfg()
    add_config(cfg)
    cfg.MODEL.META_ARCHITECTURE, cfg.MODEL.DEVICE = "SlotBERT", "cpu"
    for name, value in {**TINY, **settings}.items():
        cfg.merge_from_list([KEY + name, value])
    return cfg


def build(settings: dict[str, Any] | None = None, seed: int = 0) -> SlotBERT:
    """Builds a tiny model in eval mode."""
    torch.manual_seed(seed)
    model = build_model(config_of(settings or {}))
    assert isinstance(model, SlotBERT)
    return model.eval()


def trained(model: SlotBERT, scale: float = 0.5) -> SlotBERT:
    """Gives the temporal transformer something to say, as training would."""
    generator = torch.Generator().manual_seed(1)
    weight = model.transformer.output.weight
    with torch.no_grad():
        weight.copy_(scale * torch.randn(weight.shape, generator=generator))
    return model


def clip(num_frames: int = 4, height: int = 24, width: int = 24, seed: int = 0) -> Tensor:
    """Draws a bright square that moves over noise, uint8 ``(T, 3, H, W)``."""
    generator = torch.Generator().manual_seed(seed)
    shape = (num_frames, 3, height, width)
    frames = torch.randint(0, 90, shape, generator=generator, dtype=torch.uint8)
    for frame in range(num_frames):
        left = (2 * frame + seed) % max(width - 8, 1)
        frames[frame, 0, height // 4 : height // 4 + 8, left : left + 8] += 160
    return frames


def samples(*clips: Tensor) -> list[dict[str, Any]]:
    """Makes samples of clips."""
    return [{"video_id": f"clip{n}", "frames": frames} for n, frames in enumerate(clips)]
