"""``export.json``: what the exported graphs take and give, for who has nothing but the files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from vidseg import __version__
from vidseg.modeling.meta_arch import ExportPart, FrameSize
from vidseg.predictor import VideoPredictor

__all__ = ["describe", "describe_part"]

_VERSION = 1


def describe(predictor: VideoPredictor, parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Gives the whole description.

    Args:
        predictor: that was exported.
        parts: from :func:`describe_part`.
    """
    return {
        "version": _VERSION,
        "vidseg": __version__,
        "torch": torch.__version__,
        "model": type(predictor.model).__name__,
        "resize": {
            "min_size": predictor.min_size,
            "max_size": predictor.max_size,
            "about": "frames are resized to this shorter side (0: not at all), bilinear with"
            " antialiasing, unless the longer one would exceed its bound",
        },
        "classes": predictor.class_names,
        "category_ids": predictor.category_ids,
        "parts": list(parts),
    }


@torch.no_grad()
def describe_part(
    part: ExportPart, files: Mapping[str, str], sizes: Sequence[FrameSize]
) -> dict[str, Any]:
    """Gives the description of one graph.

    Args:
        part: that was exported.
        files: names by format.
        sizes: of frames; several if the graph takes frames of any size.
    """
    inputs = [part.make_inputs(size) for size in sizes]
    outputs = [
        dict(zip(part.output_names, part.module(*given.values()), strict=True)) for given in inputs
    ]
    dynamic = part.dynamic if len(sizes) > 1 else {}
    described = [_tensor(name, inputs) for name in part.input_names]
    for entry in described:
        name = entry["name"]
        for axis, size in dynamic.get(name, {}).items():
            entry["shape"][axis] = size
        if name in part.state:
            entry |= {"first": part.state[name], "next": f"new_{name}"}
    least = {name: part.least.get(name, 1) for axes in dynamic.values() for name in axes.values()}
    return {
        "name": part.name,
        "files": dict(files),
        "inputs": described,
        "outputs": [
            _tensor(name, outputs) | ({"about": part.outputs[name]} if name in part.outputs else {})
            for name in part.output_names
        ],
        "least_sizes": least,
        **part.facts,
    }


def _tensor(name: str, cases: Sequence[Mapping[str, Tensor]]) -> dict[str, Any]:
    """Describes one tensor; a size that is not the same in all cases is null."""
    shapes = [case[name].shape for case in cases]
    shape = [sizes[0] if len(set(sizes)) == 1 else None for sizes in zip(*shapes, strict=True)]
    return {
        "name": name,
        "dtype": str(cases[0][name].dtype).removeprefix("torch."),
        "shape": shape,
    }
