"""Numbers of a few bits each, one behind the other without gaps.

Number ``i`` of ``num_bits`` takes the bits ``i * num_bits`` and up of the stream, lowest bit first;
bit ``j`` of the stream is bit ``j % 8`` of byte ``j // 8``.
"""

from __future__ import annotations

import numpy as np

__all__ = ["pack", "packed_size", "unpack"]

MAX_BITS = 31
_CHUNK = 1 << 15  # a multiple of 8, so that every chunk begins with a new byte


def packed_size(count: int, num_bits: int) -> int:
    """Gives how many bytes so many numbers take."""
    return (count * num_bits + 7) // 8


def pack(numbers: np.ndarray, num_bits: int) -> bytes:
    """Packs numbers; the last byte is filled up with zeros.

    Args:
        numbers: integers in ``[0, 2 ** num_bits)``, of any shape, taken in C order.
        num_bits: of each number, 1 to 31.
    """
    flat = numbers.reshape(-1)
    return b"".join(
        _pack_chunk(flat[start : start + _CHUNK], num_bits) for start in range(0, len(flat), _CHUNK)
    )


def unpack(data: bytes, count: int, num_bits: int) -> np.ndarray:
    """Gives packed numbers back; besides the result it needs a fixed amount of memory.

    Args:
        data: at least ``packed_size(count, num_bits)`` bytes.
        count: of the numbers.
        num_bits: of each number, 1 to 31.

    Returns:
        int64 ``(count,)``.
    """
    numbers = np.empty(count, dtype=np.int64)
    stream = np.frombuffer(data, dtype=np.uint8)
    for start in range(0, count, _CHUNK):
        part = numbers[start : start + _CHUNK]
        first = start * num_bits // 8
        chunk = stream[first : first + packed_size(len(part), num_bits)]
        bits = np.unpackbits(chunk, count=len(part) * num_bits, bitorder="little")
        words = np.zeros((len(part), 32), dtype=np.uint8)
        words[:, :num_bits] = bits.reshape(-1, num_bits)
        part[:] = np.packbits(words, bitorder="little").view("<u4")
    return numbers


def _pack_chunk(numbers: np.ndarray, num_bits: int) -> bytes:
    words = np.ascontiguousarray(numbers, dtype="<u4").view(np.uint8).reshape(-1, 4)
    bits = np.unpackbits(words, axis=1, bitorder="little")[:, :num_bits]
    return np.packbits(bits, bitorder="little").tobytes()
