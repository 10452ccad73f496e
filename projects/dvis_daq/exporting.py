"""What of the online model is exported besides its frame segmenter: the tracker's step.

Shapes: N rows of the state, Q frame queries, C channels, K classes, h w the mask features' size.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from vidseg.modeling.meta_arch import ExportOptions, ExportPart, FrameSize, random_frames

from .tracker_step import TrackerStep, TrackerTensors

__all__ = ["tracker_part"]

_FRAME = ("logits", "masks", "embeds", "mask_features")
_NUM_OBJECTS = 4  # in random frames
_SURE = 10.0  # above all other logits
_OUTPUTS = {
    "visible": "whether the object was seen, bool (N,); others are being waited for",
    "scores": "class probabilities (N, K) over the track's frames so far",
    "quality": "mean probability inside the track's masks so far (N,)",
    "mask_logits": "mask logits (N, h, w) of the padded frame, stride 4; negative in empty rows",
    "dropped": "objects of this frame for which the state had no room, int64 ()",
}


def tracker_part(model: Any, options: ExportOptions) -> ExportPart:
    """Gives the step of the tracker as a part called ``tracker``.

    Args:
        model: an ``OnlineModel`` in eval mode.
        options: of the export.
    """
    parts = model.parts()
    step = TrackerStep(parts.tracker, parts.query_table, parts.rules).eval()
    weight = parts.tracker.class_embed.weight  # (K+1, C)

    def empty() -> TrackerTensors:
        return TrackerTensors.empty(
            options.max_tracks, weight.shape[1], weight.shape[0], weight.device
        )

    @torch.no_grad()
    def make_inputs(size: FrameSize) -> dict[str, Tensor]:
        frames = random_frames(FrameSize(3, size.height, size.width), device=model.device)
        out = model.segment(frames, keep_aux=False)
        out = replace(out, logits=_with_objects(out.logits))
        given = [[getattr(out, name)[t] for name in _FRAME] for t in range(len(frames))]
        state = empty()
        for values in given[:-1]:
            after = TrackerTensors(*step(*values, *state)[len(_OUTPUTS) :])
            if ((after.ids >= 0) & (after.missed == 0)).any():  # else all tracks would soon end
                state = after
        return dict(zip([*_FRAME, *TrackerTensors._fields], [*given[-1], *state], strict=True))

    settings = parts.settings
    return ExportPart(
        "tracker",
        step,
        _FRAME,
        make_inputs,
        _OUTPUTS,
        dynamic={
            "masks": {1: "mask_height", 2: "mask_width"},
            "mask_features": {1: "mask_height", 2: "mask_width"},
        },
        state={name: -1 if name == "ids" else 0 for name in TrackerTensors._fields},
        facts={
            "frame": f"{', '.join(_FRAME)} of one frame, as the segmenter gives them",
            "max_tracks": options.max_tracks,
            "min_length": parts.rules.min_length,
            "max_num": settings.max_num,
            "one_label_per_track": settings.one_label_per_track,
            "mask_quality": settings.mask_quality,
        },
    )


def _with_objects(logits: Tensor) -> Tensor:
    """Makes some queries sure of a class: a trained model sees no object in random frames.

    Args:
        logits: class logits ``(T, Q, K+1)``, the last of no object.
    """
    logits = logits.clone()
    objects = torch.arange(min(_NUM_OBJECTS, logits.shape[1]), device=logits.device)
    logits[:, objects, objects % (logits.shape[2] - 1)] = logits.max() + _SURE
    return logits
