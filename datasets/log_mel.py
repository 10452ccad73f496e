"""Log-mel energies of sound, stacked over neighbouring frames and spread over a wide vector.

One vector per 20 ms from windows of 25 ms. The projection is random, fixed and orthonormal: it
keeps lengths and angles, and gives sound the width that learned features have.

Shapes: T frames, M mel bands, D width.
"""

from __future__ import annotations

import functools

import numpy as np

from vidseg.errors import UserError

__all__ = ["FRAME_RATE", "RATE_STEP", "WIDTH", "hop_length", "log_mel", "spread"]

FRAME_RATE = 50  # frames per second
RATE_STEP = 200  # sampling rates are multiples of it: hop and window are whole samples
WIDTH = 1024

_BANDS = 64
_CONTEXT = 5  # frames stacked on either side
_LOWEST_HZ = 20.0
_FLOOR = 1e-4  # of the energy, before the logarithm
_BLOCK = 500  # frames computed at once


def hop_length(rate: int) -> int:
    """Gives the samples from one frame to the next.

    Raises:
        UserError: if the sampling rate does not fit the frames.
    """
    if rate < 8000 or rate % RATE_STEP:
        raise UserError(
            f"--sample-rate {rate} does not fit frames of 20 ms; give a multiple of {RATE_STEP} "
            "from 8000 on, such as 8000, 16000 or 48000"
        )
    return rate // FRAME_RATE


def log_mel(signal: np.ndarray, rate: int) -> np.ndarray:
    """Computes the logarithm of the energy in each mel band; frame t is centred at ``t * hop``.

    Args:
        signal: ``(samples,)`` float64 in -1 to 1.
        rate: samples per second, a multiple of ``RATE_STEP``.

    Returns:
        ``(T, M)`` float64 with ``T = ceil(samples / hop)``, at least 1.
    """
    hop, window = hop_length(rate), rate // 40
    num_frames = max(1, -(-len(signal) // hop))
    padded = np.pad(signal, (window // 2, window // 2 + hop))
    taper = np.hanning(window + 1)[:-1]
    bank = _mel_bank(rate).T
    mel = np.empty((num_frames, _BANDS))
    for start in range(0, num_frames, _BLOCK):
        frames = np.arange(start, min(start + _BLOCK, num_frames))
        pieces = padded[frames[:, None] * hop + np.arange(window)] * taper
        energy = np.abs(np.fft.rfft(pieces, _transform_length(rate))) ** 2
        mel[frames] = np.log(energy @ bank + _FLOOR)
    return mel


def spread(mel: np.ndarray) -> np.ndarray:
    """Stacks every frame with its neighbours and projects the stack.

    Args:
        mel: ``(T, M)``; beyond its ends the outermost frames go on.

    Returns:
        ``(T, D)`` float32.
    """
    num_frames = len(mel)
    padded = np.pad(mel, ((_CONTEXT, _CONTEXT), (0, 0)), mode="edge")
    wide = np.empty((num_frames, WIDTH), dtype=np.float32)
    for start in range(0, num_frames, _BLOCK):
        stop = min(start + _BLOCK, num_frames)
        stack = [padded[start + shift : stop + shift] for shift in range(2 * _CONTEXT + 1)]
        wide[start:stop] = np.concatenate(stack, axis=1) @ _projection()
    return wide


def _transform_length(rate: int) -> int:
    return 1 << (rate // 40 - 1).bit_length()


@functools.lru_cache(maxsize=1)
def _mel_bank(rate: int) -> np.ndarray:
    """Triangular filters ``(M, bins)`` that sum to 1, evenly spaced on the mel scale."""
    low, high = (2595 * np.log10(1 + hz / 700) for hz in (_LOWEST_HZ, rate / 2))
    edges = 700 * (10 ** (np.linspace(low, high, _BANDS + 2) / 2595) - 1)
    length = _transform_length(rate)
    bins = np.arange(length // 2 + 1) * rate / length
    rising = (bins - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    falling = (edges[2:, None] - bins) / (edges[2:] - edges[1:-1])[:, None]
    bank = np.maximum(0, np.minimum(rising, falling))
    for band in np.flatnonzero(bank.sum(1) == 0):  # a low band may lie between two bins
        bank[band, np.abs(bins - edges[band + 1]).argmin()] = 1
    return bank / bank.sum(1, keepdims=True)


@functools.lru_cache(maxsize=1)
def _projection() -> np.ndarray:
    """Orthonormal rows ``((2 * context + 1) * M, D)``."""
    stacked = (2 * _CONTEXT + 1) * _BANDS
    gaussian = np.random.default_rng(0).standard_normal((WIDTH, stacked))
    return np.linalg.qr(gaussian)[0].T
