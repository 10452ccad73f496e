from typing import Any

from fvcore.common.config import CfgNode as _Base


class CfgNode(_Base):
    """Another class than vidseg's, as theirs."""


_DEFAULTS: dict[str, Any] = {
    "VERSION": 2,
    "OUTPUT_DIR": "./output",
    "SEED": -1,
    "MODEL": {
        "META_ARCHITECTURE": "GeneralizedRCNN",
        "DEVICE": "cuda",
        "WEIGHTS": "",
        "PIXEL_MEAN": [103.53, 116.28, 123.675],
        "PIXEL_STD": [1.0, 1.0, 1.0],
        "BACKBONE": {"NAME": "build_resnet_backbone", "FREEZE_AT": 2},
        "RESNETS": {"DEPTH": 50, "OUT_FEATURES": ["res4"], "RES5_DILATION": 1},
        "FPN": {"IN_FEATURES": [], "OUT_CHANNELS": 256, "NORM": "", "FUSE_TYPE": "sum"},
        "RPN": {"POST_NMS_TOPK_TEST": 1000},
    },
    "INPUT": {"FORMAT": "BGR", "MIN_SIZE_TRAIN": (800,)},
    "DATASETS": {"TRAIN": (), "TEST": ()},
    "SOLVER": {"STEPS": (30000,), "BASE_LR": 0.001, "MAX_ITER": 40000},
}


def get_cfg() -> CfgNode:
    return CfgNode(_DEFAULTS).clone()
