"""Starting a stage's prediction heads from those of the stage before.

Tracker and refiner predict from queries that live in the space of the stage before them, with heads
of the same shape. Copied heads are right from the first step on, which spares a short training most
of its way; the published recipe starts from random heads and trains for 160,000 steps.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from vidseg.layers.mlp import MLP

from .refiner import TemporalRefiner
from .tracker import VideoInstanceCutter

__all__ = ["lacks_part", "start_refiner_heads", "start_tracker_heads"]


def lacks_part(part: str, missing: Iterable[str]) -> bool:
    """Tells whether parameters of a submodule are among the missing ones."""
    return any(name.startswith(f"{part}.") for name in missing)


@torch.no_grad()
def start_tracker_heads(tracker: VideoInstanceCutter, predictor: nn.Module) -> None:
    """Gives the tracker the heads of the frame decoder, and the mask features as they are.

    Args:
        tracker: changed in place.
        predictor: has ``decoder_norm``, ``class_embed`` and ``mask_embed`` of the same widths.
    """
    for name in ("decoder_norm", "class_embed", "mask_embed"):
        getattr(tracker, name).load_state_dict(predictor.get_submodule(name).state_dict())
    projection = tracker.mask_feature_proj
    nn.init.dirac_(projection.weight)
    if projection.bias is not None:
        nn.init.zeros_(projection.bias)


@torch.no_grad()
def start_refiner_heads(refiner: TemporalRefiner, tracker: VideoInstanceCutter) -> None:
    """Gives the refiner the heads of the tracker.

    The refiner reads the raw mask features and the tracker projected ones, so the projection
    moves into the last layer of the mask embedding (its bias, one constant per mask, is lost).

    Args:
        refiner: changed in place.
        tracker: of the same widths.
    """
    for name in ("decoder_norm", "class_embed", "mask_embed"):
        getattr(refiner, name).load_state_dict(getattr(tracker, name).state_dict())
    projection = tracker.mask_feature_proj.weight[:, :, 0, 0]  # (C_out, C_in)
    last = _last_layer(refiner.mask_embed)
    last.weight.copy_(projection.T @ last.weight)
    last.bias.copy_(projection.T @ last.bias)


def _last_layer(mlp: MLP) -> nn.Linear:
    last = mlp.layers[-1]
    assert isinstance(last, nn.Linear)
    return last
