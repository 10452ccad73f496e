"""Where the queries of a frame decoder look: the attention of its last layer over the picture.

Shapes: B frames, Q queries, h w cells of the feature map that the last layer reads.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from vidseg.errors import UserError
from vidseg.layers.attention_weights import recorded_attention

from .masked import MaskedTransformerDecoder

__all__ = ["last_attention"]


def last_attention(decoder: MaskedTransformerDecoder, segment: Callable[[], object]) -> Tensor:
    """Gives how much each query reads of each cell in the last layer, mean over heads.

    Args:
        decoder: the frame decoder of a model.
        segment: runs the model over B frames.

    Returns:
        float32 ``(B, Q, h, w)``, sum 1 over the cells, which span the padded frames. A query reads
        only where the layer before put its mask (or everywhere, where that mask was empty).

    Raises:
        UserError: if the decoder has no layer.
    """
    if not decoder.num_layers:
        raise UserError(
            "the frame decoder has no layer whose attention could be shown; set "
            "MODEL.MASK_FORMER.DEC_LAYERS to 2 or more"
        )
    sizes: list[tuple[int, int]] = []
    weights: list[Tensor] = []

    def remember_size(_: Any, args: tuple[Any, ...]) -> None:
        features = args[0]
        sizes.append(tuple(features[(decoder.num_layers - 1) % len(features)].shape[-2:]))

    handle = decoder.register_forward_pre_hook(remember_size)
    try:
        layer: Any = decoder.transformer_cross_attention_layers[decoder.num_layers - 1]
        with recorded_attention(layer, weights.append):
            segment()
    finally:
        handle.remove()
    return torch.cat(weights).unflatten(-1, sizes[0])
