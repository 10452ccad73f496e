"""From what the slots draw to a frame, and from soft masks to a segmentation.

Shapes: M frames, K slots, C channels, h x w token grid, R decode size.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = [
    "COMPOSITIONS",
    "MASK_SOURCES",
    "compose",
    "decoder_masks",
    "resize_maps",
    "segmentation_masks",
    "without_hidden",
]

COMPOSITIONS = ("attn", "decoder", "both")
MASK_SOURCES = ("attn", "decoder", "product")
_TINY = 1e-12


def compose(rgb: Tensor, masks: Tensor) -> Tensor:
    """Mixes what the slots draw: ``sum_k m_k rgb_k``.

    Args:
        rgb: ``(M, K, C, ...)``.
        masks: ``(M, K, ...)``, sum 1 over K.

    Returns:
        float32 ``(M, C, ...)``.
    """
    with torch.autocast(rgb.device.type, enabled=False):
        return (rgb.float() * masks.float()[:, :, None]).sum(1)


def decoder_masks(logits: Tensor) -> Tensor:
    """Gives the float32 softmax over the slots of ``(M, K, ...)``."""
    return logits.float().softmax(1)


def resize_maps(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Resizes soft masks or frames: mean of the covered area where a side shrinks, else bilinear.

    Args:
        maps: ``(..., h, w)``.
        size: (height, width) of the result.

    Returns:
        float32 ``(..., *size)``. Masks that sum to 1 over the slots still do.
    """
    flat = maps.float().reshape(-1, 1, *maps.shape[-2:])
    height, width = maps.shape[-2:]
    smaller = (min(height, size[0]), min(width, size[1]))
    if smaller != (height, width):
        flat = F.interpolate(flat, smaller, mode="area")
    if smaller != size:
        flat = F.interpolate(flat, size, mode="bilinear", align_corners=False)
    return flat.reshape(*maps.shape[:-2], *size)


def without_hidden(attn: Tensor, masks: Tensor, hidden: Tensor | None) -> Tensor:
    """Puts the masks of the decoder in the place of attention in frames that were hidden.

    Attention saw the hidden frame; with it in the composition, the temporal transformer would not
    need to predict where things are.

    Args:
        attn: ``(M, K, ...)``, masks from attention.
        masks: ``(M, K, ...)``, masks of the decoder.
        hidden: bool ``(M,)``, None for nothing hidden.
    """
    if hidden is None:
        return attn
    return torch.where(hidden.view(-1, *[1] * (attn.dim() - 1)), masks, attn)


def segmentation_masks(source: str, attn: Tensor, masks: Tensor, size: tuple[int, int]) -> Tensor:
    """Gives the masks that a frame is segmented by, at full size.

    Args:
        source: ``"attn"``, ``"decoder"`` or ``"product"``, the product of both, renormalised.
        attn: ``(M, K, h, w)``.
        masks: ``(M, K, R, R)``, masks of the decoder.
        size: (height, width) of the frame.

    Returns:
        float32 ``(M, K, *size)``, sum 1 over K. To be up-sampled soft, before the argmax, is what
        gives borders finer than the grid.

    Raises:
        ValueError: for an unknown ``source``.
    """
    if source == "attn":
        return resize_maps(attn, size)
    if source == "decoder":
        return resize_maps(masks, size)
    if source != "product":
        raise ValueError(f"masks {source!r} are none of {', '.join(MASK_SOURCES)}")
    product = resize_maps(attn, size) * resize_maps(masks, size) + _TINY
    return product / product.sum(1, keepdim=True)
