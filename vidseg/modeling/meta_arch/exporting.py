"""What of a model can be exported as a graph of tensors: named parts with their inputs.

Shapes: B frames, Q queries, C channels, K classes, H W pixels, h w mask pixels (stride 4).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

__all__ = ["ExportOptions", "ExportPart", "FrameSize", "random_frames", "segmenter_part"]


class FrameSize(NamedTuple):
    """Frames that go through a graph at once, and their size in pixels."""

    num_frames: int
    height: int
    width: int

    def __str__(self) -> str:
        return f"{self.num_frames}x{self.height}x{self.width}"


@dataclass(frozen=True)
class ExportOptions:
    """What the caller wants of the graphs.

    Args:
        frame_dtype: of the frames, ``torch.uint8`` or ``torch.float32``.
        max_tracks: tracks that a tracker's state has room for.
    """

    frame_dtype: torch.dtype = torch.uint8
    max_tracks: int = 64


@dataclass(frozen=True)
class ExportPart:
    """One graph: a module, how it is called, and what its numbers are.

    Args:
        name: of the graph and its files.
        module: called with the inputs in their order; gives a tuple in the order of ``outputs``.
        frame_inputs: names of the inputs, but for the state that follows them.
        make_inputs: gives all inputs by name for frames of a size; each time others.
        outputs: names of what the module gives, but for the state, with a sentence on each.
        dynamic: dimensions of inputs that may vary: input, then axis, then name of the size.
        least: of the sizes in ``dynamic``, where it is not 1.
        state: inputs that carry on from frame to frame, with the value that fills them before the
            first; what they become is an output called ``new_<input>``.
        facts: for whom runs the graph.
    """

    name: str
    module: nn.Module
    frame_inputs: Sequence[str]
    make_inputs: Callable[[FrameSize], dict[str, Tensor]]
    outputs: Mapping[str, str]
    dynamic: Mapping[str, Mapping[int, str]] = field(default_factory=dict)
    least: Mapping[str, int] = field(default_factory=dict)
    state: Mapping[str, float] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def input_names(self) -> list[str]:
        """Names of the inputs, in their order."""
        return [*self.frame_inputs, *self.state]

    @property
    def output_names(self) -> list[str]:
        """Names of the outputs, in their order: those of the frame, then the new state."""
        return [*self.outputs, *(f"new_{name}" for name in self.state)]


class _FrameSegmentation(nn.Module):
    """Frames to what the frame decoder says about them, as a tuple."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, frames: Tensor) -> tuple[Tensor, ...]:
        out = self.model.segment(frames, keep_aux=False)
        outputs = (out.logits, out.masks, out.embeds, out.mask_features)
        return outputs if out.reid_embeds is None else (*outputs, out.reid_embeds)


def segmenter_part(model: Any, options: ExportOptions) -> ExportPart:
    """Gives the frame segmenter of a model as a part called ``segmenter``.

    Args:
        model: a ``SegmenterBase`` in eval mode.
        options: of the export.
    """
    outputs = {
        "logits": "class logits (B, Q, K + 1), the last one is 'no object'",
        "masks": "mask logits (B, Q, h, w) of the padded frame, stride 4",
        "embeds": "query embeddings (B, Q, C) after the decoder's norm",
        "mask_features": "pixel embeddings (B, C, h, w)",
    }
    if getattr(model.sem_seg_head.predictor, "reid_embed", None) is not None:
        outputs["reid_embeds"] = "re-identification embeddings (B, Q, C)"
    # A map of one row or column would be another graph.
    least = max(model.size_divisibility, 32) + 1
    return ExportPart(
        "segmenter",
        _FrameSegmentation(model),
        ("frames",),
        lambda size: {"frames": random_frames(size, options.frame_dtype, model.device)},
        outputs,
        dynamic={"frames": {0: "num_frames", 2: "height", 3: "width"}},
        least={"height": least, "width": least},
        facts={
            "frames": "RGB (B, 3, H, W), 0 to 255; the graph normalises and pads them",
            "size_divisibility": model.size_divisibility,
            "pixel_mean": [round(value, 4) for value in model.pixel_mean.flatten().tolist()],
            "pixel_std": [round(value, 4) for value in model.pixel_std.flatten().tolist()],
            "channel_order": model.channel_order,
        },
    )


def random_frames(
    size: FrameSize, dtype: torch.dtype = torch.uint8, device: torch.device | str = "cpu"
) -> Tensor:
    """Gives frames of random blocks, ``(num_frames, 3, H, W)``, 0 to 255: noise has no objects."""
    small = torch.rand(size.num_frames, 3, 6, 8) * 255
    frames = nn.functional.interpolate(small, size[1:])
    return frames.to(device=device, dtype=dtype)
