"""From slots and attention to all that a prediction shows.

Shapes: B clips, T frames, K slots, D slot width, h x w token grid, R decode size, H x W pixels of a
frame, M = B T frames.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from .composition import (
    compose,
    decoder_masks,
    resize_maps,
    segmentation_masks,
    without_hidden,
)
from .decoders import BroadcastDecoder, PixelMLPDecoder

__all__ = ["draw_slots"]

_RGB = 3
_FRAMES_AT_ONCE = 24  # bounds what decoding takes beside its result


def draw_slots(
    decoder: BroadcastDecoder | PixelMLPDecoder,
    slots: Tensor,
    attn: Tensor,
    size: tuple[int, int],
    padded: tuple[int, int],
    *,
    composition: str,
    mask_source: str,
    guessed: Tensor | None = None,
) -> dict[str, Tensor]:
    """Decodes slots, composes frames and segments them.

    Args:
        decoder: of the model.
        slots: ``(B, T, K, D)``.
        attn: ``(B, T, K, h, w)``, of the padded frames.
        size: (H, W).
        padded: height and width to which frames were padded, at the lower and right border.
        composition: masks of the composition, one of ``COMPOSITIONS``; ``"both"`` shows that of
            the decoder.
        mask_source: one of ``MASK_SOURCES``.
        guessed: bool ``(B, T)``, frames that the decoder's masks stand for attention in.

    Returns:
        ``rgb_slots``, ``decoder_masks``, ``reconstruction``, ``masks`` and ``segmentation``, see
        ``SlotBERT.infer``.
    """
    clips = slots.shape[:2]
    hidden = guessed.flatten() if guessed is not None and bool(guessed.any()) else None
    rgb, logits = _decode(decoder, slots.flatten(0, 1))
    from_decoder, from_attn = decoder_masks(logits), attn.flatten(0, 1)
    r = decoder.size
    shown = from_decoder
    if composition == "attn":
        shown = without_hidden(resize_maps(from_attn, (r, r)), from_decoder, hidden)
    masks = segmentation_masks(mask_source, from_attn, from_decoder, padded)
    if mask_source != "decoder":
        masks = without_hidden(masks, resize_maps(from_decoder, padded), hidden)
    masks = masks[..., : size[0], : size[1]]
    maps = {
        "rgb_slots": rgb,
        "decoder_masks": from_decoder,
        "reconstruction": compose(rgb, shown),
    }
    if size != padded:
        kept = size[0] / padded[0], size[1] / padded[1]
        maps = {name: _without_padding(x, kept) for name, x in maps.items()}
    results = {**maps, "masks": masks, "segmentation": masks.argmax(1)}
    return {name: x.unflatten(0, clips) for name, x in results.items()}


def _decode(decoder: BroadcastDecoder | PixelMLPDecoder, slots: Tensor) -> tuple[Tensor, Tensor]:
    parts = [decoder(part) for part in slots.split(_FRAMES_AT_ONCE)]
    drawn, logits = (torch.cat([part[i].float() for part in parts]) for i in range(2))
    return drawn[:, :, :_RGB], logits  # what follows are frozen features


def _without_padding(maps: Tensor, kept: tuple[float, float]) -> Tensor:
    """Stretches the part of maps ``(M, ..., R, R)`` that shows the frame over the whole of them."""
    flat = maps.reshape(len(maps), -1, *maps.shape[-2:])
    rows, columns = kept
    # Places run from -1 to 1: the upper left part of them, in this share.
    move = flat.new_tensor([[columns, 0.0, columns - 1], [0.0, rows, rows - 1]])
    grid = F.affine_grid(move.expand(len(flat), 2, 3), list(flat.shape), align_corners=False)
    # Sampling with the border repeated, bilinear, keeps the sum over slots.
    out = F.grid_sample(flat, grid, padding_mode="border", align_corners=False)
    return out.view(maps.shape)
