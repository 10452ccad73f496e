"""Sequences of unequal length as one batch.

Shapes: B sequences, T frames, D features per frame. Masks are True where a frame is valid, which is
the opposite of torch's ``key_padding_mask``.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

__all__ = ["pad_sequences"]


def pad_sequences(
    sequences: Sequence[Tensor],
    *,
    masks: Sequence[Tensor | None] | None = None,
    multiple: int = 1,
) -> tuple[Tensor, Tensor]:
    """Appends zeros to sequences until they are equally long.

    Args:
        sequences: at least one, each ``(T_i, D)``, of one dtype and device.
        masks: bool ``(T_i,)`` for each sequence, None where all of its frames are valid. What
            stands in the other frames is kept.
        multiple: of which the common length is one.

    Returns:
        The batch ``(B, T, D)`` and its mask, bool ``(B, T)``.

    Raises:
        ValueError: if there is no sequence, their widths differ, or a mask fits its sequence not.
    """
    if not sequences:
        raise ValueError("there are no sequences to pad")
    widths = sorted({tuple(sequence.shape[1:]) for sequence in sequences})
    if len(widths) > 1 or any(sequence.dim() != 2 for sequence in sequences):
        shapes = ", ".join(str(tuple(sequence.shape)) for sequence in sequences)
        raise ValueError(f"sequences must be (T, D) of one width D, not {shapes}")
    if multiple < 1:
        raise ValueError(f"the length cannot be a multiple of {multiple}")
    given = [None] * len(sequences) if masks is None else masks
    valid = [_mask(*pair) for pair in zip(sequences, given, strict=True)]
    batch, mask = (pad_sequence(list(items), batch_first=True) for items in (sequences, valid))
    missing = -batch.shape[1] % multiple
    if missing:
        batch = torch.nn.functional.pad(batch, (0, 0, 0, missing))
        mask = torch.nn.functional.pad(mask, (0, missing))
    return batch, mask


def _mask(sequence: Tensor, mask: Tensor | None) -> Tensor:
    if mask is None:
        return torch.ones(len(sequence), dtype=torch.bool, device=sequence.device)
    if mask.dtype is not torch.bool or mask.shape != sequence.shape[:1]:
        raise ValueError(
            f"the mask of a sequence of {len(sequence)} frames must be bool with one value per "
            f"frame, not {mask.dtype} of shape {tuple(mask.shape)}"
        )
    return mask.to(sequence.device)
