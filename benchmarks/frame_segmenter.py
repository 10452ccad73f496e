"""The frame segmenter in evaluation, against Mask2Former of transformers at the same size."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .case import Case, Run
from .deformable import TRANSFORMERS

if TYPE_CHECKING:
    from torch import Tensor

    from vidseg.config import CfgNode

__all__ = ["CASES", "r50_config", "random_frames"]

_CLASSES = 40


def r50_config() -> CfgNode:
    """The published R50 sizes: 100 queries, 6 encoder and 9 decoder layers, 256 channels."""
    from vidseg.config import get_cfg

    cfg = get_cfg()
    model, head, mask_former = cfg.MODEL, cfg.MODEL.SEM_SEG_HEAD, cfg.MODEL.MASK_FORMER
    stages = ["res2", "res3", "res4", "res5"]
    model.META_ARCHITECTURE, model.DEVICE = "MinVIS", "cpu"
    model.RESNETS.OUT_FEATURES, model.RESNETS.STRIDE_IN_1X1 = stages, False
    head.NAME, head.PIXEL_DECODER_NAME = "MaskFormerHead", "MSDeformAttnPixelDecoder"
    head.IN_FEATURES, head.NUM_CLASSES = stages, _CLASSES
    head.CONVS_DIM, head.TRANSFORMER_ENC_LAYERS = 256, 6
    mask_former.TRANSFORMER_IN_FEATURE, mask_former.DEC_LAYERS = "multi_scale_pixel_decoder", 10
    mask_former.REID_BRANCH = False
    return cfg


def random_frames(height: int, width: int) -> Tensor:
    """Makes one frame, uint8 ``(1, 3, H, W)``."""
    import torch

    return torch.randint(0, 256, (1, 3, height, width), dtype=torch.uint8)


def _ours(height: int, width: int) -> Run:
    import torch

    from vidseg.modeling import build_model

    model: Any = build_model(r50_config()).eval()
    frames = random_frames(height, width)

    @torch.inference_mode()
    def run() -> object:
        return model.segment(frames)

    return run


def _theirs(height: int, width: int) -> Run:
    import torch
    from transformers import Mask2FormerConfig, Mask2FormerForUniversalSegmentation, ResNetConfig

    stages = ["stage1", "stage2", "stage3", "stage4"]
    config: Any = Mask2FormerConfig(
        backbone_config=ResNetConfig(out_features=stages), num_labels=_CLASSES
    )
    model = Mask2FormerForUniversalSegmentation(config).eval()
    frames = random_frames(height, width)

    @torch.inference_mode()
    def run() -> object:
        return model(pixel_values=(frames.float() - 116.0) / 57.0)

    return run


def _case(name: str, height: int, width: int) -> Case:
    return Case(
        name=name,
        about=f"R50, one frame of {height}x{width}: class and mask logits of 100 queries",
        peer="Mask2FormerForUniversalSegmentation of transformers, R50",
        bars={"cpu": 1.2},
        ours=lambda: _ours(height, width),
        theirs=lambda: _theirs(height, width),
        needs=(TRANSFORMERS,),
        repeats=5,
    )


CASES = (
    _case("frame_segmenter_384", 384, 640),
    _case("frame_segmenter_480", 480, 640),
)
