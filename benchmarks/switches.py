"""Switches of the config against the same model without them; what pays depends on the machine.

On a CPU they pay in training. In evaluation oneDNN already computes channels last, and as fast in
float32: there the bar only says that a switch must not cost anything.
"""

from __future__ import annotations

from typing import Any

from .case import Case, Run
from .frame_segmenter import r50_config, random_frames

__all__ = ["CASES"]

_RECIPE = "projects/dvis_daq/segmenter.yaml"


def _segment(switches: list[object]) -> Run:
    """One frame of 480x640 through the R50 segmenter."""
    import torch

    from vidseg.engine.precision import Precision
    from vidseg.modeling import build_model

    cfg = r50_config()
    cfg.merge_from_list(switches)
    model: Any = build_model(cfg).eval()
    precision = Precision.from_config(cfg, model.device)
    frames = random_frames(480, 640)

    @torch.inference_mode()
    def run() -> object:
        with precision.autocast():
            return model.segment(frames)

    return run


def _train(switches: list[object]) -> Run:
    """Losses and gradients of a batch of the recipe: 16 frames of 96x128."""
    import torch

    from vidseg.config import load_config
    from vidseg.engine.precision import Precision
    from vidseg.modeling import build_model
    from vidseg.structures import ClipInstances

    from .measure import CHECKOUT

    cfg = load_config(CHECKOUT / _RECIPE, ["MODEL.DEVICE", "cpu", *switches])
    model: Any = build_model(cfg).train()
    precision = Precision.from_config(cfg, model.device)
    samples = []
    for number in range(cfg.SOLVER.IMS_PER_BATCH):
        masks = torch.zeros(4, 1, 96, 128, dtype=torch.bool)
        for row, mask in enumerate(masks):
            mask[:, 20 * row : 20 * row + 30, 4 * number : 4 * number + 40] = True
        present, labels = masks.flatten(2).any(2), torch.arange(4)
        instances = ClipInstances(masks=masks, labels=labels, present=present)
        samples.append({"frames": random_frames(96, 128), "instances": instances})

    def run() -> object:
        model.zero_grad()
        with precision.autocast():
            losses = model(samples)
        return sum(losses.values()).backward()

    return run


def _track(assignment: str) -> Run:
    """The tracker's share of a frame of 480x640 with 40 live tracks and 100 frame queries."""
    import torch

    from vidseg.projects.dvis_daq.tracker import Frame, LiveTracks, VideoInstanceCutter

    tracker = VideoInstanceCutter(
        hidden_dim=256,
        feedforward_dim=2048,
        num_heads=8,
        num_layers=6,
        num_classes=25,
        num_new_instances=100,
        slot_assignment=assignment,
    ).eval()
    features = torch.randn(256, 120, 160)
    frame = Frame(torch.randn(100, 256), features, features, torch.randn(100, 120, 160))
    tracks, table = LiveTracks(torch.randn(40, 256), torch.randn(40, 256)), torch.randn(100, 256)

    @torch.inference_mode()
    def run() -> object:
        queries = tracker.next_frame(frame, tracks, last_only=True)
        slots = tracker.slots(frame, tracks, table, last_only=True)
        return tracker.predict(queries, features), tracker.classify(slots)

    return run


def _case(name: str, switches: list[object], what: str, *, training: bool, bar: float) -> Case:
    build = _train if training else _segment
    doing = "training, 16 frames of 96x128" if training else "R50 evaluation, a frame of 480x640"
    return Case(
        name=name,
        about=f"{doing}, with {what}",
        peer="the same without",
        bars={"cpu": bar},
        ours=lambda: build(switches),
        theirs=lambda: build([]),
    )


_CHANNELS_LAST: list[object] = ["MODEL.CHANNELS_LAST", True]
_BF16: list[object] = ["SOLVER.AMP.ENABLED", True, "SOLVER.AMP.DTYPE", "bfloat16"]
CASES = (
    _case("channels_last", _CHANNELS_LAST, "MODEL.CHANNELS_LAST", training=False, bar=0.95),
    _case("channels_last_train", _CHANNELS_LAST, "MODEL.CHANNELS_LAST", training=True, bar=1.0),
    _case("bf16", _BF16, "SOLVER.AMP in bfloat16", training=False, bar=0.95),
    _case("bf16_train", _BF16, "SOLVER.AMP in bfloat16", training=True, bar=1.0),
    Case(
        name="greedy_slots",
        about="tracker of DVIS-DAQ, a frame with 40 tracks, with SLOT_ASSIGNMENT greedy",
        peer="the same with optimal",
        bars={"cpu": 0.9},
        ours=lambda: _track("greedy"),
        theirs=lambda: _track("optimal"),
    ),
)
