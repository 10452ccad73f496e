"""What the tests against the real detectron2 share; none of it imports detectron2."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from vidseg import rle
from vidseg.config import CfgNode, get_cfg

# Looked for, not imported: that takes seconds.
MARKS = [
    pytest.mark.detectron2,
    pytest.mark.skipif(
        importlib.util.find_spec("detectron2") is None,
        reason="detectron2 is not there: put its source tree on PYTHONPATH",
    ),
]

_SMALL = {
    "META_ARCHITECTURE": "MinVIS",
    "DEVICE": "cpu",
    "PIXEL_MEAN": [123.675, 116.28, 103.53],
    "PIXEL_STD": [58.395, 57.12, 57.375],
    "BACKBONE.FREEZE_AT": 0,
    "RESNETS.DEPTH": 18,
    "RESNETS.STEM_OUT_CHANNELS": 8,
    "RESNETS.RES2_OUT_CHANNELS": 8,
    "RESNETS.OUT_FEATURES": ["res2", "res3", "res4", "res5"],
    "SEM_SEG_HEAD.NAME": "MaskFormerHead",
    "SEM_SEG_HEAD.PIXEL_DECODER_NAME": "MSDeformAttnPixelDecoder",
    "SEM_SEG_HEAD.IN_FEATURES": ["res2", "res3", "res4", "res5"],
    "SEM_SEG_HEAD.NUM_CLASSES": 1,
    "SEM_SEG_HEAD.CONVS_DIM": 16,
    "SEM_SEG_HEAD.MASK_DIM": 16,
    "SEM_SEG_HEAD.TRANSFORMER_ENC_LAYERS": 1,
    "SEM_SEG_HEAD.TRANSFORMER_ENC_DIM_FEEDFORWARD": 32,
    "MASK_FORMER.TRANSFORMER_DECODER_NAME": "VideoMultiScaleMaskedTransformerDecoder_dvisPlus",
    "MASK_FORMER.TRANSFORMER_IN_FEATURE": "multi_scale_pixel_decoder",
    "MASK_FORMER.HIDDEN_DIM": 16,
    "MASK_FORMER.NUM_OBJECT_QUERIES": 5,
    "MASK_FORMER.NHEADS": 2,
    "MASK_FORMER.DIM_FEEDFORWARD": 32,
    "MASK_FORMER.DEC_LAYERS": 3,
    "MASK_FORMER.REID_BRANCH": False,
    "MASK_FORMER.TRAIN_NUM_POINTS": 64,
    "MASK_FORMER.TEST.MAX_NUM": 4,
}
_RUN = {
    "INPUT.FORMAT": "RGB",
    "INPUT.MIN_SIZE_TRAIN": [24],
    "INPUT.MAX_SIZE_TRAIN": 48,
    "INPUT.MIN_SIZE_TEST": 24,
    "INPUT.MAX_SIZE_TEST": 48,
    "INPUT.SAMPLING_FRAME_NUM": 2,
    "INPUT.SAMPLING_FRAME_RANGE": 2,
    "DATALOADER.NUM_WORKERS": 0,
    "SOLVER.IMS_PER_BATCH": 2,
    "SEED": 1,
}


def small_cfg(**values: Any) -> CfgNode:
    """A frame segmenter that runs in milliseconds; further keys with ``__`` for dots."""
    cfg = get_cfg()
    keys = {f"MODEL.{key}": value for key, value in _SMALL.items()} | _RUN
    keys |= {key.replace("__", "."): value for key, value in values.items()}
    for key, value in keys.items():
        cfg.merge_from_list([key, value])
    return cfg


def label_by(results: list[dict[str, Any]], json_file: Path) -> None:
    """Replaces the objects of a data set by some of the predicted ones."""
    content = json.loads(json_file.read_text())
    seen: dict[Any, int] = {}
    content["annotations"] = []
    for track in results:
        video = track["video_id"]
        seen[video] = seen.get(video, 0) + 1
        if seen[video] in (1, 3):  # others stay false
            masks = [rle.from_text(mask) if mask else None for mask in track["segmentations"]]
            boxes = [rle.boxes([mask])[0].tolist() if mask else None for mask in masks]
            content["annotations"].append(
                {
                    "id": len(content["annotations"]) + 1,
                    "video_id": video,
                    "category_id": track["category_id"],
                    "iscrowd": 0,
                    "segmentations": track["segmentations"],
                    "bboxes": boxes,
                    "areas": [rle.area(mask) if mask else None for mask in masks],
                }
            )
    json_file.write_text(json.dumps(content))


def msra_names(network: nn.Module) -> dict[str, Tensor]:
    """Names of Detectron's ImageNet files, which hold norms as scale and shift."""
    convs = {"shortcut": "1", "conv1": "2a", "conv2": "2b", "conv3": "2c"}
    named = {"fc1000_w": torch.zeros(10, 2)}
    for name, value in network.state_dict().items():
        *layer, last = name.split(".")
        short = {"weight": "w", "bias": "b"}.get(last)
        if short is None:  # statistics: these files have none
            continue
        if layer[-1] == "norm":
            layer, short = layer[:-1], {"w": "bn_s", "b": "bn_b"}[short]
        if layer[0] == "stem":
            named[f"{'res_' if 'bn' in short else ''}conv1_{short}"] = value
        else:
            named[f"{layer[0]}_{layer[1]}_branch{convs[layer[2]]}_{short}"] = value
    return named
