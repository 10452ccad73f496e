"""Packed numbers come back, and take the bits that they are said to take."""

from __future__ import annotations

import numpy as np
import pytest

from vidseg.projects.rqvae.bit_packing import pack, packed_size, unpack


def test_layout_by_hand() -> None:
    # 5 = 101, 3 = 011, 6 = 110: lowest bit first gives 101 110 011, read as bytes from the right.
    assert pack(np.array([5, 3, 6]), 3) == bytes([0b10_011_101, 0b1])
    assert unpack(bytes([0b10_011_101, 0b1]), 3, 3).tolist() == [5, 3, 6]


@pytest.mark.parametrize("num_bits", range(1, 32))
@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 40_001])
def test_there_and_back(num_bits: int, count: int) -> None:
    numbers = np.random.default_rng(0).integers(0, 1 << num_bits, count)
    data = pack(numbers, num_bits)
    assert len(data) == packed_size(count, num_bits) == -(-count * num_bits // 8)
    assert np.array_equal(unpack(data, count, num_bits), numbers)


def test_chunks_are_one_stream() -> None:
    """A stream is the same whether it was packed at once or read as one long integer."""
    numbers = np.random.default_rng(1).integers(0, 512, 33_000)
    stream = int.from_bytes(pack(numbers, 9), "little")
    picked = [0, 1, 32_767, 32_768, 32_999]
    assert [(stream >> (9 * place)) & 511 for place in picked] == numbers[picked].tolist()
