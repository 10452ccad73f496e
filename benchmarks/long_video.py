"""A model on a video of any number of frames, made one by one: what it needs does not grow.

The weights follow a rule from their names, with which the published code was recorded, so that
there are tracks without any training (``tests/golden/dvis_daq/*_end_to_end``).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from vidseg.predictor import VideoPredictor

from .rule_weights import set_rule_weights

__all__ = ["SMALL", "moving_frames", "prepare_predict", "prepare_stream", "rule_predictor"]

SMALL: tuple[Any, ...] = (
    *("MODEL.SEM_SEG_HEAD.CONVS_DIM", 64, "MODEL.SEM_SEG_HEAD.MASK_DIM", 64),
    *("MODEL.MASK_FORMER.HIDDEN_DIM", 64, "MODEL.MASK_FORMER.DIM_FEEDFORWARD", 256),
    *("MODEL.MASK_FORMER.NHEADS", 4, "MODEL.MASK_FORMER.DEC_LAYERS", 4),
    *("MODEL.SEM_SEG_HEAD.TRANSFORMER_ENC_LAYERS", 2, "MODEL.TRACKER.DECODER_LAYERS", 2),
    *("MODEL.REFINER.DECODER_LAYERS", 2),
)
"""Overrides for a model of 64 channels behind the same backbone."""

_FIVE_FRAMES = 5  # a window, as published


def rule_predictor(kind: str, overrides: Sequence[Any] = (), *, num_queries: int = 100) -> Any:
    """Builds an R50 model with the weights of the rule.

    Args:
        kind: ``"online"`` or ``"offline"``.
        overrides: ``KEY, VALUE, ...`` of the config.
        num_queries: frame queries; the published number by default.
    """
    from tests.golden_utils import load_case
    from vidseg.config import load_config
    from vidseg.modeling import build_model

    case = load_case(f"dvis_daq/{kind}_end_to_end")
    queries = ("MODEL.MASK_FORMER.NUM_OBJECT_QUERIES", "MODEL.VIDEO_HEAD.NUM_NEW_INS")
    fixed = [word for key in queries for word in (key, num_queries)]
    cfg = load_config(case.config, ["MODEL.DEVICE", "cpu", "MODEL.WEIGHTS", "", *fixed, *overrides])
    model = build_model(cfg)
    set_rule_weights(model, case)
    return VideoPredictor(model, window_size=_FIVE_FRAMES)


def moving_frames(num_frames: int, height: int, width: int) -> Iterator[np.ndarray]:
    """Yields noise with three squares on their way, uint8 ``(H, W, 3)``; only one frame exists."""
    random = np.random.default_rng(0)
    ground = random.integers(60, 120, (height, width, 3), dtype=np.uint8)
    side = height // 4
    for t in range(num_frames):
        frame = ground + random.integers(0, 20, ground.shape, dtype=np.uint8)
        for number in range(3):
            y = int((height - side) * (0.5 + 0.5 * math.sin(0.07 * t + 2 * number)))
            x = int((width - side) * (0.5 + 0.5 * math.cos(0.05 * t + number)))
            frame[y : y + side, x : x + side, number] = 250
        yield frame


def prepare_predict(
    kind: str, num_frames: int, size: tuple[int, int], overrides: Sequence[Any] = (), **options: Any
) -> Callable[[], Any]:
    """Gives the call that predicts a whole video."""
    predictor = rule_predictor(kind, overrides, **options)
    return lambda: predictor.predict(moving_frames(num_frames, *size))


def prepare_stream(
    num_frames: int, size: tuple[int, int], overrides: Sequence[Any] = (), **options: Any
) -> Callable[[], int]:
    """Gives the call that streams a video through the online model; it counts the tracks seen."""
    predictor = rule_predictor("online", overrides, **options)

    def run() -> int:
        seen = 0
        for window in predictor.stream(moving_frames(num_frames, *size)):
            seen = max(seen, 1 + int(window.track_ids.max())) if len(window) else seen
        return seen

    return run
