"""The nearest entry of a codebook, the same one in whatever batch a vector stands."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from vidseg.layers import onednn

__all__ = ["nearest"]

# Kernels of matrix products differ by the number of rows, and so do the last bits of a row. They do
# not depend on where in the matrix the row stands, so that parts of one size settle it.
_ROWS = 128
_MOST_ROWS = 512  # of a product where oneDNN keeps the bits of rows
_FOLDS = 16


@torch.no_grad()
def nearest(vectors: Tensor, codebook: Tensor) -> Tensor:
    """Finds the entry at the smallest Euclidean distance of every vector.

    ``argmin ||r - e||^2`` is computed as the ``argmax`` of ``<r, e> - ||e||^2 / 2``. Memory is that
    of the result and of one part of the rows.

    Args:
        vectors: ``(M, V)``.
        codebook: ``(K, V)`` of the same dtype.

    Returns:
        ``(M,)`` indices, int64; any one of several at the same distance, always the same one.
    """
    offsets = codebook.square().sum(1).mul_(-0.5)
    length = _MOST_ROWS if onednn.keeps_rows(codebook) else _ROWS
    found = []
    for part in vectors.split(length):
        size = len(part)
        if size % _ROWS:
            part = F.pad(part, (0, 0, 0, -size % _ROWS))
        scores = onednn.linear_at_once(part, codebook, offsets)
        found.append(_argmax(scores[:size]))
    return found[0] if len(found) == 1 else torch.cat(found)


def _argmax(scores: Tensor) -> Tensor:
    """Gives ``argmax(1)``, on a CPU by the column of the maximum among a few rows of columns.

    torch's goes through a row entry by entry, where ``amax`` uses vector instructions.
    """
    if scores.device.type != "cpu" or scores.shape[1] % _FOLDS:
        return scores.argmax(1)
    folded = scores.unflatten(1, (_FOLDS, -1))  # (n, folds, columns)
    columns = folded.amax(1).argmax(1)
    candidates = folded.gather(2, columns.view(-1, 1, 1).expand(-1, _FOLDS, 1)).squeeze(2)
    return candidates.argmax(1).mul_(folded.shape[2]).add_(columns)
