"""DVIS-DAQ offline on a whole video, against the published code on the same video and weights.

The weights follow from their names by the rule of ``tests/golden/dvis_daq``; both sides get them
one tensor at a time, so that the peak of the memory is that of the model at work.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .case import Case, Run
from .published_code import CHECKOUTS, build_published
from .rule_weights import set_rule_weights

if TYPE_CHECKING:
    from torch import Tensor

    from tests.golden_utils import GoldenCase

__all__ = ["CASES"]

_QUERY_KEYS = ("MODEL.MASK_FORMER.NUM_OBJECT_QUERIES", "MODEL.VIDEO_HEAD.NUM_NEW_INS")


def _case_and_overrides(num_queries: int) -> tuple[GoldenCase, dict[str, Any]]:
    from tests.golden_utils import load_case

    overrides: dict[str, Any] = {"MODEL.WEIGHTS": "", "MODEL.DEVICE": "cpu"}
    overrides |= {key: num_queries for key in _QUERY_KEYS}
    return load_case("dvis_daq/offline_end_to_end"), overrides


def _video(case: GoldenCase, size: tuple[int, int] | None) -> tuple[Tensor, int, int]:
    """Gives the frames, uint8 ``(T, 3, H, W)``, and the (height, width) of the masks."""
    import torch
    from torch.nn import functional as F

    frames = case.inputs["video"]
    if size is None:
        height, width = case.inputs["output_height_width"].tolist()
        return frames, height, width
    frames = F.interpolate(frames.float(), size, mode="bilinear").round().to(torch.uint8)
    return frames, *size


def _ours(num_queries: int, size: tuple[int, int] | None) -> Run:
    import torch

    from vidseg.config import load_config
    from vidseg.modeling import build_model

    case, overrides = _case_and_overrides(num_queries)
    overrides["MODEL.VIDEO_HEAD.KICK_OUT_FRAME_NUM"] = 3
    cfg = load_config(case.config, [word for pair in overrides.items() for word in pair])
    model: Any = build_model(cfg).eval()
    set_rule_weights(model, case)
    frames, height, width = _video(case, size)
    sample = {"frames": frames, "height": height, "width": width, "video_id": 0}

    @torch.no_grad()
    def run() -> object:
        (result,) = model([sample])
        return result

    return run


def _theirs(num_queries: int, size: tuple[int, int] | None) -> Run:
    import torch

    case, overrides = _case_and_overrides(num_queries)
    model = build_published(case.config, overrides)
    set_rule_weights(model, case)
    model.tracker.kick_out_frame_num = 3
    frames, height, width = _video(case, size)
    sample = {"image": list(frames), "height": height, "width": width}

    @torch.no_grad()
    def run() -> object:
        return model([sample])

    return run


def _case(
    name: str,
    about: str,
    bars: dict[str, float],
    *,
    num_queries: int,
    size: Any = None,
    repeats: int,
) -> Case:
    return Case(
        name=name,
        about=about,
        peer="the published code, made to run on a CPU",
        bars=bars,
        ours=lambda: _ours(num_queries, size),
        theirs=lambda: _theirs(num_queries, size),
        needs=CHECKOUTS,
        repeats=repeats,
        warmups=0 if size else 1,
    )


CASES = (
    _case(
        "offline_small",
        "DVIS_DAQ_offline, R50, 30 queries, 8 frames of 64x96",
        {"cpu": 1.6, "peak": 0.77},
        num_queries=30,
        repeats=3,
    ),
    _case(
        "offline_480",
        "DVIS_DAQ_offline, R50, 100 queries, 8 frames of 480x640",
        {"cpu": 2.5, "peak": 0.45},
        num_queries=100,
        size=(480, 640),
        repeats=1,
    ),
)
