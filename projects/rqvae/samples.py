"""Documents as they come in: checked, and cut where they end.

Shapes: B documents, T frames, D width. Masks are bool, True = valid frame.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from vidseg.errors import DataError

__all__ = ["check_features", "check_finite", "cut_document", "naming_document", "read_sample"]


@contextlib.contextmanager
def naming_document(sample: dict[str, Any]) -> Iterator[None]:
    """Turns what is said of unsuitable frames into a ``DataError`` that names the document."""
    try:
        yield
    except ValueError as error:
        file = (sample.get("file_names") or [""])[0]
        name = f"document {sample.get('video_id', '?')}" + (f" ({file})" if file else "")
        raise DataError(f"{name}: {error}") from error


def check_features(x: Tensor, mask: Tensor | None, width: int) -> None:
    """Checks a batch by its shapes.

    Args:
        x: ``(B, T, D)``.
        mask: ``(B, T)`` or None.
        width: D that the model was built for.

    Raises:
        ValueError: if anything is amiss.
    """
    if x.dim() != 3 or not len(x):
        raise ValueError(f"documents are (B, T, {width}) features, got {tuple(x.shape)}")
    if x.shape[2] != width:
        raise ValueError(
            f"the features are {x.shape[2]} wide, the model was built for {width} (config: "
            "MODEL.RQVAE.INPUT_DIM)"
        )
    if x.shape[1] == 0:
        raise ValueError("there are no frames")
    if mask is not None and (mask.shape != x.shape[:2] or mask.dtype != torch.bool):
        raise ValueError(
            f"the mask must be bool {tuple(x.shape[:2])} like the features, got {mask.dtype} "
            f"{tuple(mask.shape)}"
        )


def check_finite(x: Tensor, mask: Tensor | None) -> None:
    """Checks the numbers of ``(T, D)`` or ``(B, T, D)`` where the mask, if any, is True.

    Raises:
        ValueError: if any is NaN or infinite; names the first frame, of a batch its document too.
    """
    bad = ~torch.isfinite(x).all(-1)
    if mask is not None:
        bad &= mask
    if bad.any():
        *documents, frame = bad.nonzero()[0].tolist()
        where = "".join(f" of document {number}" for number in documents)
        raise ValueError(f"the features of frame {frame}{where} hold NaN or infinity")


def cut_document(features: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Cuts a document after its last valid frame.

    Args:
        features: ``(T, D)``.
        mask: ``(T,)``; None if all frames are valid.

    Returns:
        ``(L, D)`` and the mask ``(L,)``, None if all frames that are left are valid. A document
        without valid frames keeps its length.
    """
    if mask is None or bool(mask.all()):
        return features, None
    valid = mask.nonzero()
    if not len(valid):
        return features, mask
    length = int(valid[-1]) + 1
    own = mask[:length]
    return features[:length], None if bool(own.all()) else own


def read_sample(
    sample: dict[str, Any], width: int, device: torch.device
) -> tuple[Tensor, Tensor | None]:
    """Takes the features ``(T, D)`` and the mask ``(T,)`` (or None) out of a sample.

    Raises:
        DataError: if they cannot be used; names the document.
    """
    with naming_document(sample):
        features = sample["features"]
        mask = sample.get("mask")
        check_features(features[None], None if mask is None else mask[None], width)
        check_finite(features, mask)
    features = features.to(device, torch.float32)
    return features, None if mask is None else mask.to(device)
