"""What a model that codes windows gives for a document in evaluation."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from .documents import DocumentCodes, DocumentPrediction
from .retrieval import describe_document
from .samples import cut_document, naming_document, read_sample

__all__ = ["predict"]

# Values that are decoded at once, over all levels: 64 MiB of float32.
_MAX_VALUES = 2**24


@torch.no_grad()
def predict(model: Any, sample: dict[str, Any], head: Any = None) -> DocumentPrediction:
    """Codes a document, and decodes it with every number of levels.

    Args:
        model: a ``DocumentRQVAE`` or what offers the same: ``latents``, ``decoded_pieces``,
            ``rvq``, ``standardisation``, ``code_statistics``, ``window_size`` and so on,
            ``device``, ``input_dim``, ``max_seq_len`` and ``bag_levels``.
        sample: with ``features`` ``(T, D)`` and perhaps ``mask`` ``(T,)``.
        head: of retrieval by attention, if there is one.

    Raises:
        DataError: if the features cannot be used; names the document.
    """
    device = model.device
    features, mask = read_sample(sample, model.input_dim, device)
    with naming_document(sample):
        features, mask = cut_document(features, mask)
        z, window_mask = model.latents(features, mask)
    codes = model.rvq.encode(z, window_mask)
    meta = {"id": sample["video_id"]}
    if "frame_rate" in sample:
        meta["frame_rate"] = float(sample["frame_rate"])
    tokens = DocumentCodes(codes.cpu(), window_mask.cpu(), len(features), meta)
    levels = [z, *(model.rvq.decode(codes[:, : q + 1]) for q in range(codes.shape[1]))]
    x = model.standardisation(features, mask)
    errors = _frame_errors(model, torch.stack(levels), window_mask, x)
    is_valid = x.new_ones(len(x), dtype=torch.bool) if mask is None else mask
    statistics = model.code_statistics
    valid = z[window_mask]
    vectors = describe_document(
        DocumentCodes(codes, window_mask, len(features)),
        window=model.window_size,
        stride=model.window_stride,
        mode=model.window_mode,
        codebooks=model.rvq.codebooks,
        statistics=statistics,
        head=head,
        bag_levels=model.bag_levels,
    )
    frame_sum = x.double().sum(0)
    vectors["raw"] = F.normalize(frame_sum.float(), dim=0)
    centred = valid - statistics.mean
    vectors["latent"] = F.normalize(centred.sum(0), dim=0)
    return DocumentPrediction(
        tokens=tokens,
        num_frames=int(is_valid.sum()),
        input_dim=x.shape[1],
        frame_errors=(errors * is_valid).cpu(),
        frame_energy=x.square().sum(1).cpu(),
        feature_sum=frame_sum.cpu(),
        latent_error=(
            float((valid - levels[-1][window_mask]).double().square().sum()),
            float(centred.double().square().sum()),
        ),
        frame_mask=is_valid.cpu(),
        windows=levels[-1].cpu(),
        vectors={name: vector.cpu() for name, vector in vectors.items()},
    )


def _frame_errors(model: Any, levels: Tensor, window_mask: Tensor, x: Tensor) -> Tensor:
    """Gives the squared errors ``(L, T)`` of documents decoded from ``(L, N, V)`` each."""
    errors = x.new_empty(len(levels), len(x))
    batch = max(_MAX_VALUES // (min(len(x), model.max_seq_len) * x.shape[1]), 1)
    for rows, windows in zip(errors.split(batch), levels.split(batch), strict=True):
        masks = window_mask.expand(len(windows), -1)
        for piece, y in model.decoded_pieces(windows, masks, len(x)):
            part = slice(piece.start, piece.stop)
            rows[:, part] = (y.float() - x[part]).square_().sum(-1)
    return errors
