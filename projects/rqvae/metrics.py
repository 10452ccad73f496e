"""Figures about codes, reconstructions and rates, from counts and sums over a whole split.

Nothing here is a mean of batches or of documents: every figure is taken from sums over the split,
so that it does not depend on how the documents were batched.

Shapes: Q codebooks, K entries of a codebook, P window positions, M vectors, D input width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "CodebookUsage",
    "Rates",
    "centred_energy",
    "codebook_usage",
    "expected_utilization",
    "is_limited_by_data",
    "rates",
    "snr",
    "usage_by_position",
]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_VECTORS_PER_ENTRY = 10  # with fewer, the number of vectors bounds what can be used


@dataclass(frozen=True)
class CodebookUsage:
    """How the entries of codebooks are used; every array has one value per codebook.

    Attributes:
        num_vectors: that were quantised.
        utilization: share of entries that were used at least once, in [0, 1].
        expected: utilization that uniformly random codes would have with as many vectors.
        perplexity: exp of the entropy of the codes, in [1, K]; nan without vectors.
        perplexity_ratio: perplexity / K.
        dead_codes: entries that were never used.
        top_share: share of the most used entry, in [1 / K, 1]; nan without vectors.
    """

    num_vectors: Floats
    utilization: Floats
    expected: Floats
    perplexity: Floats
    perplexity_ratio: Floats
    dead_codes: Floats
    top_share: Floats


def codebook_usage(counts: NDArray[np.integer]) -> CodebookUsage:
    """Describes how often the entries of codebooks were used.

    Args:
        counts: ``(..., K)`` vectors per entry.

    Returns:
        Arrays of shape ``(...)``.
    """
    histogram = np.asarray(counts, dtype=np.float64)
    total = histogram.sum(-1)
    with np.errstate(invalid="ignore"):
        share = histogram / total[..., None]
    log_share = np.log(np.where(share > 0, share, 1.0))
    entropy = -(share * log_share).sum(-1)
    return _usage(
        total, (histogram > 0).sum(-1), entropy, share.max(-1), codebook_size=histogram.shape[-1]
    )


def usage_by_position(
    positions: Ints, codes: Ints, num_positions: int, codebook_size: int
) -> CodebookUsage:
    """Describes the use of one codebook for each window position by itself.

    The counts are kept sparse: a table of ``P * K`` would outgrow long documents.

    Args:
        positions: ``(M,)`` window position of each vector.
        codes: ``(M,)`` entry of each vector; negative where the level was not used.
        num_positions: P.
        codebook_size: K.

    Returns:
        Arrays of shape ``(P,)``.
    """
    used = codes >= 0
    pairs, counts = np.unique(positions[used] * codebook_size + codes[used], return_counts=True)
    where = pairs // codebook_size
    total = np.bincount(where, weights=counts, minlength=num_positions).astype(np.float64)
    num_used = np.bincount(where, minlength=num_positions)
    share = counts / total[where]
    terms = -share * np.log(share)
    entropy = np.bincount(where, weights=terms, minlength=num_positions).astype(np.float64)
    top = np.full(num_positions, np.nan)
    np.fmax.at(top, where, share)
    entropy[total == 0] = np.nan
    return _usage(total, num_used, entropy, top, codebook_size=codebook_size)


def expected_utilization(num_vectors: Floats | float, codebook_size: int) -> Floats:
    """Gives the utilization of uniformly random codes, ``1 - (1 - 1/K)^n``."""
    return np.asarray(1.0 - (1.0 - 1.0 / codebook_size) ** np.asarray(num_vectors, np.float64))


def is_limited_by_data(num_vectors: float, codebook_size: int) -> bool:
    """Tells whether there are too few vectors (under 10 K) to judge a codebook by its use."""
    return num_vectors < _VECTORS_PER_ENTRY * codebook_size


def centred_energy(energy: float, total: Floats, count: float) -> float:
    """Gives ``sum |x - mean|^2`` from sums over all vectors.

    Args:
        energy: sum of ``|x|^2``.
        total: ``(D,)`` sum of x.
        count: number of vectors.
    """
    if count == 0:
        return 0.0
    return max(0.0, float(energy - np.square(total).sum() / count))


def snr(energy: float, error: float) -> float:
    """Gives the signal-to-noise ratio in dB.

    Args:
        energy: sum of squared differences from the mean.
        error: sum of squared errors.

    Returns:
        ``10 log10(energy / error)``: 0 for a constant predictor, inf without any error, nan
        without any signal.
    """
    if energy <= 0:
        return float("nan")
    return float(10 * np.log10(energy / error)) if error > 0 else float("inf")


@dataclass(frozen=True)
class Rates:
    """What the codes cost.

    Attributes:
        codes_per_10s: indices for ten seconds of input.
        bits_per_second: bit rate of the codes at log2 K bits each.
        frame_compression: input frames per window, ``T / N``.
        bit_compression: bits of the float32 input per bit of the codes.
    """

    codes_per_10s: float
    bits_per_second: float
    frame_compression: float
    bit_compression: float


def rates(
    *,
    num_frames: float,
    num_windows: float,
    seconds: float,
    input_dim: int,
    num_levels: int,
    codebook_size: int,
) -> Rates:
    """Gives the rates of some documents together; nan where nothing was coded.

    Args:
        num_frames: T, of all documents.
        num_windows: N, of all documents.
        seconds: duration of all documents.
        input_dim: D.
        num_levels: Q, codes per window.
        codebook_size: K.
    """
    num_codes = num_windows * num_levels
    num_bits = num_codes * float(np.log2(codebook_size))
    return Rates(
        codes_per_10s=_ratio(num_codes * 10, seconds),
        bits_per_second=_ratio(num_bits, seconds),
        frame_compression=_ratio(num_frames, num_windows),
        bit_compression=_ratio(32 * num_frames * input_dim, num_bits),
    )


def _ratio(numerator: float, denominator: float) -> float:
    return numerator / denominator if denominator > 0 else float("nan")


def _usage(
    total: Floats, num_used: NDArray[Any], entropy: Floats, top: Floats, *, codebook_size: int
) -> CodebookUsage:
    perplexity = np.exp(entropy)
    return CodebookUsage(
        num_vectors=total,
        utilization=num_used / codebook_size,
        expected=expected_utilization(total, codebook_size),
        perplexity=perplexity,
        perplexity_ratio=perplexity / codebook_size,
        dead_codes=np.asarray(codebook_size - num_used, dtype=np.float64),
        top_share=top,
    )
