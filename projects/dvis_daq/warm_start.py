"""Starting a stage from what the stage before it can do already.

The published recipe starts tracker and refiner at random and trains each for 160,000 steps. Their
queries live in the space of the stage before, and their heads have the same shapes, so they can
start as something useful instead:

* the tracker as a soft matcher: its first cross-attention compares tracks and anchors with the
  frame queries by plain dot products and reads the best ones, everything else passes its input on,
  and the heads are the frame decoder's. Best with a single attention head
  (``MODEL.TRACKER.NHEADS``): several may each choose another object;
* the refiner as the identity: every block passes its input on, and the heads are the tracker's.

Training then only has to learn what makes them better.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from vidseg.layers.mlp import MLP

from .refiner import TemporalRefiner
from .tracker import VideoInstanceCutter

__all__ = ["lacks_part", "warm_start_refiner", "warm_start_tracker"]

_HEADS = ("decoder_norm", "class_embed", "mask_embed")
# Of the dot products; normed queries of 64 channels then differ by several units of log-odds.
_MATCH_SCALE = 3.0


def lacks_part(part: str, missing: Iterable[str]) -> bool:
    """Tells whether parameters of a submodule are among the missing ones."""
    return any(name.startswith(f"{part}.") for name in missing)


@torch.no_grad()
def warm_start_tracker(tracker: VideoInstanceCutter, predictor: nn.Module) -> None:
    """Starts the tracker as a soft matcher of frame queries with the frame decoder's heads.

    Args:
        tracker: changed in place.
        predictor: has ``decoder_norm``, ``class_embed`` and ``mask_embed`` of the same widths.
    """
    _copy_heads(tracker, predictor)
    projection = tracker.mask_feature_proj
    nn.init.dirac_(projection.weight)
    if projection.bias is not None:
        nn.init.zeros_(projection.bias)
    nn.init.zeros_(tracker.new_ins_embeds.weight)
    _silence(tracker.transformer_cross_attention_layers)
    _silence(tracker.transformer_self_attention_layers)
    _silence(tracker.transformer_ffn_layers)
    first = next(iter(tracker.transformer_cross_attention_layers))
    _start_as_matcher(first.get_submodule("multihead_attn"))


@torch.no_grad()
def warm_start_refiner(refiner: TemporalRefiner, tracker: VideoInstanceCutter) -> None:
    """Starts the refiner as the identity with the tracker's heads.

    The refiner reads the raw mask features and the tracker projected ones, so the projection
    moves into the last layer of the mask embedding (its bias, one constant per mask, is lost).

    Args:
        refiner: changed in place.
        tracker: of the same widths.
    """
    _copy_heads(refiner, tracker)
    projection = tracker.mask_feature_proj.weight[:, :, 0, 0]  # (C_out, C_in)
    last = _last_layer(refiner.mask_embed)
    last.weight.copy_(projection.T @ last.weight)
    last.bias.copy_(projection.T @ last.bias)
    _silence(refiner.transformer_time_self_attention_layers)
    _silence(refiner.transformer_obj_self_attention_layers)
    _silence(refiner.transformer_cross_attention_layers)
    _silence(refiner.transformer_ffn_layers)
    if refiner.use_local_attention:
        _silence(refiner.conv_short_aggregate_layers)


def _copy_heads(target: nn.Module, source: nn.Module) -> None:
    for name in _HEADS:
        state = source.get_submodule(name).state_dict()
        target.get_submodule(name).load_state_dict(state)


def _silence(layers: Iterable[nn.Module]) -> None:
    """Zeroes what the blocks add to their input; a block's norm is undone by the head's own."""
    for layer in layers:
        for name in ("multihead_attn.out_proj", "self_attn.out_proj", "linear2", "2"):
            module = dict(layer.named_modules()).get(name)
            if module is not None:
                nn.init.zeros_(module.get_parameter("weight"))
                nn.init.zeros_(module.get_parameter("bias"))


def _start_as_matcher(attention: nn.Module) -> None:
    """Makes an attention read the keys that are most similar to the query, as they are."""
    assert isinstance(attention, nn.MultiheadAttention)
    identity = torch.eye(attention.embed_dim)
    scaled = _MATCH_SCALE**0.5 * identity
    attention.in_proj_weight.copy_(torch.cat([scaled, scaled, identity]))
    attention.out_proj.weight.copy_(identity)
    nn.init.zeros_(attention.in_proj_bias)
    nn.init.zeros_(attention.out_proj.bias)


def _last_layer(mlp: MLP) -> nn.Linear:
    last = mlp.layers[-1]
    assert isinstance(last, nn.Linear)
    return last
