"""What documents are compared by: descriptors of their codes, all at once or in one vector.

====================  =========================================================================
``A/maxsim``          all windows: dequantised, centred by the mean of the train set, normalised
``A/bag``             all codes: histogram of (level, code), square root, idf, normalised
``B``                 Q codes: the mean over windows, quantised again
``B/continuous``      that mean itself, the upper bound of ``B``
``C``                 means weighted by the attention of a trained head, joined to one vector
``C/codes``           Q codes: the average of these means quantised again, as in ``B``
====================  =========================================================================

Codes and codebooks are all that goes in, never the unquantised features. Quantising the mean over
windows and taking the mean of each level's vectors are the same thing: mean and sum commute.

Shapes: N windows, Q codebooks, K entries, V code width, M valid windows.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from vidseg.collectives import world_size
from vidseg.errors import nearest as nearest_names

from .nearest import nearest
from .windows import first_start

if TYPE_CHECKING:
    from .documents import DocumentCodes
    from .retrieval_head import AttentionPooling

__all__ = [
    "HALVES",
    "METHODS",
    "CodeStatistics",
    "aggregate",
    "collect_statistics",
    "dequantize",
    "describe",
    "describe_document",
    "split_halves",
]

METHODS = ("A/maxsim", "A/bag", "B", "B/continuous", "C", "C/codes")

HALVES = ("half1/", "half2/")
"""What the names of the descriptors of the halves of a document begin with."""

_OF_HEAD = ("C", "C/codes")


@dataclass(frozen=True)
class CodeStatistics:
    """What retrieval needs to know of the train set.

    Attributes:
        mean: ``(V,)`` of the dequantised vectors of all valid windows.
        document_frequency: ``(Q, K)`` in how many documents each code occurs.
        num_documents: that were counted.
    """

    mean: Tensor
    document_frequency: Tensor
    num_documents: int


def collect_statistics(
    documents: Iterable[tuple[Tensor, Tensor]], codebooks: Tensor
) -> CodeStatistics:
    """Goes once over the codes of the train set; ranks that share it get the same result.

    Args:
        documents: codes ``(N, Q)`` and window mask ``(N,)`` of each document of this rank.
        codebooks: ``(Q, K, V)``.

    Returns:
        The statistics, on the device of the codebooks; zeros if there is no document.
    """
    num_levels, size = codebooks.shape[:2]
    counts = codebooks.new_zeros(num_levels * size, dtype=torch.float64)
    document_frequency = torch.zeros_like(counts)
    num_documents = 0
    for codes, window_mask in documents:
        entries = _entries(codes[window_mask].to(counts.device), size)
        counts += torch.bincount(entries, minlength=len(counts))
        document_frequency[entries] += 1  # once for each entry, however often it occurs
        num_documents += 1
    # The sum over windows is linear in the counts: no window need be dequantised.
    packed = torch.cat([counts, document_frequency, counts.new_tensor([num_documents])])
    if world_size() > 1:
        torch.distributed.all_reduce(packed)
    counts, document_frequency, total = packed.split([len(counts), len(counts), 1])
    counts = counts.view(num_levels, size)
    total_sum = torch.einsum("qk,qkv->v", counts, codebooks.double())
    num_vectors = counts[0].sum().clamp_min(1)  # every vector has a code at the first level
    return CodeStatistics(
        mean=(total_sum / num_vectors).to(codebooks.dtype),
        document_frequency=document_frequency.view(num_levels, size).to(codebooks.dtype),
        num_documents=int(total),
    )


def dequantize(codes: Tensor, codebooks: Tensor) -> Tensor:
    """Gives the vectors that codes stand for.

    Args:
        codes: ``(..., L)`` of the first L levels; -1 contributes nothing.
        codebooks: ``(Q, K, V)``.

    Returns:
        ``(..., V)``.
    """
    flat = codes.reshape(-1, codes.shape[-1])
    total = codebooks.new_zeros(len(flat), codebooks.shape[-1])
    for level, column in enumerate(flat.unbind(-1)):
        total += codebooks[level][column.clamp_min(0)] * (column >= 0).unsqueeze(-1)
    return total.view(*codes.shape[:-1], codebooks.shape[-1])


def aggregate(
    codes: Tensor,
    window_mask: Tensor,
    method: str,
    *,
    codebooks: Tensor,
    statistics: CodeStatistics,
    head: AttentionPooling | None = None,
    bag_levels: int = 2,
) -> Tensor:
    """Gives the descriptor of a document, by which it is compared with others.

    Args:
        codes: ``(N, L)`` of the first L levels, -1 where a window is masked or a level unused.
        window_mask: ``(N,)``, True = valid.
        method: one of ``METHODS``.
        codebooks: ``(Q, K, V)``.
        statistics: of the train set.
        head: of method C; the mean over windows is taken without one.
        bag_levels: levels that ``A/bag`` counts.

    Returns:
        Unit vectors, or zeros if no window is valid: ``(M, V)`` rows for ``A/maxsim``, a sparse
        vector for ``A/bag``, ``(V,)`` otherwise, but that of ``C`` as wide as the head makes it.

    Raises:
        ValueError: if the method is unknown.
    """
    if method not in METHODS:
        close = nearest_names(method, METHODS) or METHODS
        raise ValueError(f"no retrieval method is called {method!r}; nearest: {', '.join(close)}")
    codes = codes[window_mask]
    if method == "A/bag":
        return _bag(codes[:, :bag_levels], statistics)
    windows = dequantize(codes, codebooks)
    if method == "A/maxsim":
        return F.normalize(windows - statistics.mean, dim=-1)
    if len(windows) == 0:
        width = head.output_dim if method == "C" and head is not None else codebooks.shape[-1]
        return statistics.mean.new_zeros(width)
    if method == "C" and head is not None:
        return F.normalize(head.project(head.pool(windows) - statistics.mean), dim=-1)
    is_attended = method in _OF_HEAD and head is not None
    pooled = head.pool(windows).mean(0) if is_attended else windows.mean(0)  # type: ignore
    if method in ("B", "C/codes"):
        pooled = dequantize(_quantize(pooled, codebooks[: codes.shape[1]]), codebooks)
    return F.normalize(pooled - statistics.mean, dim=-1)


def describe(
    codes: Tensor,
    window_mask: Tensor,
    *,
    codebooks: Tensor,
    statistics: CodeStatistics,
    head: AttentionPooling | None = None,
    bag_levels: int = 2,
) -> dict[str, Tensor]:
    """Gives the descriptors of all methods; those of C only if there is a head.

    Args:
        codes: as for ``aggregate``, and so are the others.
        window_mask: as there.
        codebooks: as there.
        statistics: as there.
        head: as there.
        bag_levels: as there.
    """
    return {
        method: aggregate(
            codes,
            window_mask,
            method,
            codebooks=codebooks,
            statistics=statistics,
            head=head,
            bag_levels=bag_levels,
        )
        for method in METHODS
        if head is not None or method not in _OF_HEAD
    }


def describe_document(
    tokens: DocumentCodes,
    *,
    window: int,
    stride: int,
    mode: str,
    codebooks: Tensor,
    statistics: CodeStatistics,
    head: AttentionPooling | None = None,
    bag_levels: int = 2,
) -> dict[str, Tensor]:
    """Gives the descriptors of a document, and of its halves where it has any.

    Args:
        tokens: the codes.
        window: frames of a window.
        stride: frames from one window to the next.
        mode: of the windows.
        codebooks: as for ``aggregate``, and so are the others.
        statistics: as there.
        head: as there.
        bag_levels: as there.

    Returns:
        Method to descriptor; those of the halves under ``half1/<method>`` and ``half2/<method>``.
    """
    masks = {"": tokens.window_mask}
    first, second = split_halves(
        tokens.window_mask, tokens.num_frames, window=window, stride=stride, mode=mode
    )
    if first.any() and second.any():
        masks.update(zip(HALVES, (first, second), strict=True))
    return {
        prefix + method: descriptor
        for prefix, mask in masks.items()
        for method, descriptor in describe(
            tokens.codes,
            mask,
            codebooks=codebooks,
            statistics=statistics,
            head=head,
            bag_levels=bag_levels,
        ).items()
    }


def split_halves(
    window_mask: Tensor, num_frames: int, *, window: int, stride: int, mode: str = "same"
) -> tuple[Tensor, Tensor]:
    """Tells which windows lie wholly in the first and which in the second half of a document.

    Windows that straddle the middle are in neither, so the halves share no frame.

    Args:
        window_mask: ``(N,)``, True = valid.
        num_frames: length of the document.
        window: frames of a window.
        stride: frames from one window to the next.
        mode: of the windows.

    Returns:
        Two masks ``(N,)``; either may be empty, as of a document that is one window.
    """
    starts = first_start(window, stride, mode) + stride * torch.arange(
        len(window_mask), device=window_mask.device
    )
    middle = num_frames // 2
    return window_mask & (starts + window <= middle), window_mask & (starts >= middle)


def _entries(codes: Tensor, size: int) -> Tensor:
    """Numbers the (level, code) pairs of ``(M, L)`` codes; unused levels are left out."""
    numbers = codes.long() + size * torch.arange(codes.shape[1], device=codes.device)
    return numbers[codes >= 0]


def _bag(codes: Tensor, statistics: CodeStatistics) -> Tensor:
    size = statistics.document_frequency.shape[1]
    frequency = statistics.document_frequency.flatten()
    entries, counts = _entries(codes, size).unique(return_counts=True)
    # Smoothed as if one more document held every code: codes of no train document count too.
    idf = torch.log((1 + statistics.num_documents) / (1 + frequency[entries])) + 1
    weights = F.normalize(counts.sqrt() * idf, dim=0)
    return torch.sparse_coo_tensor(
        entries.unsqueeze(0), weights, (len(frequency),), is_coalesced=True, check_invariants=False
    )


def _quantize(vector: Tensor, codebooks: Tensor) -> Tensor:
    """Gives the code of a vector at each level, ``(V,)`` to ``(Q,)``."""
    codes = []
    residual = vector.unsqueeze(0)
    for book in codebooks:
        codes.append(nearest(residual, book))
        residual = residual - book[codes[-1]]
    return torch.cat(codes)
