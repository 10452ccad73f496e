"""Whether an exported graph computes what the model does."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch

from vidseg.modeling.meta_arch import ExportPart, FrameSize

from .programs import Runner

__all__ = ["Comparison", "compare"]


@dataclass(frozen=True)
class Comparison:
    """How far a graph is from the model.

    Args:
        size: of the frames.
        largest: difference of any number.
        relative: largest difference, as a fraction of the largest number of its output, or of 1
            if that is less.
        differing: outputs in which whole numbers or truth values differ, or shapes, or what is
            infinite or no number.
    """

    size: FrameSize
    largest: float
    relative: float
    differing: tuple[str, ...]


def compare(part: ExportPart, run: Runner, sizes: Iterable[FrameSize]) -> list[Comparison]:
    """Runs a graph and the part that it was made of on the same inputs.

    Args:
        part: in eval mode.
        run: the graph.
        sizes: of frames; one comparison each.
    """
    return [_compare(part, run, size) for size in sizes]


@torch.no_grad()
def _compare(part: ExportPart, run: Runner, size: FrameSize) -> Comparison:
    inputs = part.make_inputs(size)
    wanted = dict(zip(part.output_names, part.module(*inputs.values()), strict=True))
    found = run(inputs)
    largest = relative = 0.0
    differing = []
    for name, value in wanted.items():
        other = found[name].to(value.device)
        if other.shape != value.shape or other.dtype != value.dtype:
            differing.append(name)
            continue
        if not value.is_floating_point():
            if not torch.equal(value, other):
                differing.append(name)
            continue
        gaps = (value - other).abs().masked_fill(value == other, 0.0)  # infinite ones may be equal
        if not gaps.isfinite().all():
            differing.append(name)
        elif gaps.numel():
            scale = float(value.abs().masked_fill(value.isinf(), 0.0).max())
            largest = max(largest, float(gaps.max()))
            relative = max(relative, float(gaps.max()) / max(1.0, scale))
    return Comparison(size, largest, relative, tuple(differing))
