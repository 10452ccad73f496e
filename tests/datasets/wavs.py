"""Writes wav files byte by byte, also such as no library would write."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

PCM, FLOAT, EXTENSIBLE = 1, 3, 0xFFFE


def encode(sound: np.ndarray, kind: str) -> bytes:
    """Encodes sound in -1 to 1 as ``u1``, ``i2``, ``i3``, ``i4``, ``f4`` or ``f8``."""
    if kind[0] == "f":
        return sound.astype(f"<{kind}").tobytes()
    if kind == "u1":
        return np.round(sound * 127 + 128).astype("u1").tobytes()
    size = int(kind[1])
    whole = np.round(sound * (2 ** (8 * size - 1) - 1)).astype("<i8")
    return whole.reshape(-1, 1).view("u1")[:, :size].tobytes()


def write_wav(
    path: Path,
    sound: np.ndarray,
    *,
    rate: int = 8000,
    kind: str = "i2",
    channels: int = 1,
    tag: int | None = None,
    before: bytes = b"",
    announced: int | None = None,
) -> Path:
    """Writes a file; ``sound`` is interleaved, ``announced`` its length in the header in bytes."""
    data = encode(sound, kind)
    size = int(kind[1])
    plain = FLOAT if kind[0] == "f" else PCM
    tag = plain if tag is None else tag
    layout = struct.pack(
        "<HHIIHH", tag, channels, rate, rate * channels * size, channels * size, 8 * size
    )
    if tag == EXTENSIBLE:
        # Its format tag is the beginning of a GUID.
        layout += struct.pack("<HHIH", 22, 8 * size, 0, plain) + bytes(14)
    length = len(data) if announced is None else announced
    chunks = b"fmt " + struct.pack("<I", len(layout)) + layout + before
    chunks += b"data" + struct.pack("<I", length) + data
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WAVE" + chunks)
    return path
