"""Wav files of any sampling rate, sample width and number of channels, read part by part.

The standard library's reader refuses the extended header that ffmpeg writes for 24 bits, and
SciPy's holds whole files, hence the few lines on the format here.
"""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.signal import resample_poly

from vidseg.errors import DataError

__all__ = ["WavFile", "find_wav_files"]

_PCM, _FLOAT, _EXTENSIBLE = 1, 3, 0xFFFE  # format tags
_UNKNOWN_LENGTH = 0xFFFFFFFF  # of who writes into a pipe
_RATES = range(1000, 768_001)  # Hz
_LOUDEST = 1e6  # of float samples; sound lies within -1 to 1
_BLOCK = 1 << 20  # frames
_TAPS = 10  # half the length of SciPy's filter, in samples of the lower rate


def find_wav_files(folder: Path) -> list[str]:
    """Lists the wav files in a folder and below, hidden ones left out.

    Returns:
        Paths relative to the folder with ``/``, sorted.

    Raises:
        DataError: if there is no such folder, or no wav file in it.
    """
    if not folder.is_dir():
        raise DataError(f"there is no folder {folder}")
    found = []
    seen = set()
    for parent, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(parent)
        if real in seen:  # links may lead in circles
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if name[0] != ".")
        names = [name for name in files if name[0] != "." and name.lower().endswith(".wav")]
        found += [Path(parent, name).relative_to(folder).as_posix() for name in names]
    if not found:
        raise DataError(f"there is no wav file in {folder} or below")
    return sorted(found)


@dataclass(frozen=True)
class WavFile:
    """What the header of a wav file says.

    Attributes:
        path: of the file.
        rate: sampling rate in Hz.
        channels: number of channels.
        dtype: of a sample; ``"u3"`` stands for 24 bits, which NumPy does not have.
        num_frames: samples of each channel.
        start: place of the first one, in bytes.
    """

    path: Path
    rate: int
    channels: int
    dtype: str
    num_frames: int
    start: int

    @classmethod
    def open(cls, path: Path) -> WavFile:
        """Reads the header; samples that are floating-point numbers are looked through, too.

        Raises:
            DataError: if the file is empty, damaged, no wav file or of another sample format.
        """
        try:
            opened = cls._open(path)
        except OSError as error:
            raise DataError(f"{path} cannot be read: {error.strerror or error}") from None
        if opened.dtype[1] == "f" and not all(_is_sound(block) for block in opened._blocks()):
            raise DataError(f"{path} is damaged: it has samples that are no sound (NaN or huge)")
        return opened

    @classmethod
    def _open(cls, path: Path) -> WavFile:
        size = path.stat().st_size
        if size == 0:
            raise DataError(f"{path} is empty (0 bytes)")
        with path.open("rb") as file:
            head = file.read(12)
            if head[:4] != b"RIFF" or head[8:] != b"WAVE":
                raise DataError(f"{path} is not a wav file")
            layout = b""
            while True:
                chunk = file.read(8)
                if len(chunk) < 8:
                    raise DataError(f"{path} is cut off: there are no samples in it")
                name, length = struct.unpack("<4sI", chunk)
                if name == b"data":
                    break
                if name == b"fmt ":
                    layout = file.read(min(length, 26))
                    length -= len(layout)
                file.seek(length + length % 2, os.SEEK_CUR)
            start = file.tell()
        rate, channels, dtype = _layout(path, layout)
        length = size - start if length == _UNKNOWN_LENGTH else length
        if start + length > size:
            raise DataError(f"{path} is cut off: it has {size - start} of {length} bytes of sound")
        num_frames = length // (channels * int(dtype[2:]))
        if num_frames == 0:
            raise DataError(f"{path} holds no sound: its length is 0")
        return cls(path, rate, channels, dtype, num_frames, start)

    def num_samples(self, rate: int) -> int:
        """Gives the number of samples at another sampling rate."""
        return -(-self.num_frames * rate // self.rate)

    def read(self, rate: int, start: int, count: int) -> np.ndarray:
        """Reads a part, all channels mixed to one.

        Args:
            rate: sampling rate to convert to, in Hz.
            start: first sample at that rate.
            count: number of samples at that rate, within the file.

        Returns:
            ``(count,)`` float64 in -1 to 1, the same as when the whole file is converted.

        Raises:
            DataError: if the file cannot be read any more.
        """
        if rate == self.rate:
            return self._read(start, start + count)
        common = math.gcd(rate, self.rate)
        up, down = rate // common, self.rate // common
        reach = _TAPS * max(up, down) // up + 1  # what a new sample hears on either side
        # From a place that both rates have in common.
        first = max(0, start * down // up - reach) // down
        stop = min(self.num_frames, (start + count) * down // up + reach + 1)
        part = resample_poly(self._read(first * down, stop), up, down)
        return part[start - first * up :][:count]

    def _read(self, start: int, stop: int) -> np.ndarray:
        width = self.channels * int(self.dtype[2:])
        try:
            with self.path.open("rb") as file:
                file.seek(self.start + start * width)
                data = file.read((stop - start) * width)
        except OSError as error:
            raise DataError(f"{self.path} cannot be read: {error.strerror or error}") from None
        if len(data) < (stop - start) * width:
            raise DataError(f"{self.path} was changed while it was read")
        samples = _to_float(data, self.dtype)
        return samples if self.channels == 1 else samples.reshape(-1, self.channels).mean(1)

    def _blocks(self) -> Iterator[np.ndarray]:
        for start in range(0, self.num_frames, _BLOCK):
            yield self._read(start, min(start + _BLOCK, self.num_frames))


def _layout(path: Path, layout: bytes) -> tuple[int, int, str]:
    """Gives sampling rate, channels and type of the samples."""
    if len(layout) < 16:
        raise DataError(f"{path} is damaged: its header does not say what its samples are")
    tag, channels, rate, _, align, bits = struct.unpack("<HHIIHH", layout[:16])
    if tag == _EXTENSIBLE and len(layout) == 26:
        (tag,) = struct.unpack("<H", layout[24:])
    kinds = {_PCM: {8: "<u1", 16: "<i2", 24: "<u3", 32: "<i4"}, _FLOAT: {32: "<f4", 64: "<f8"}}
    dtype = kinds.get(tag, {}).get(bits)
    if dtype is None:
        raise DataError(
            f"{path} has samples of {bits} bits in format {tag}, not PCM of 8, 16, 24 or 32 bits; "
            "convert it, e.g. with `ffmpeg -i IN -c:a pcm_s16le OUT`"
        )
    if channels < 1 or align != channels * bits // 8 or rate not in _RATES:
        raise DataError(
            f"{path} is damaged: its header says {channels} channels at {rate} Hz in blocks of "
            f"{align} bytes"
        )
    return rate, channels, dtype


def _to_float(data: bytes, dtype: str) -> np.ndarray:
    """Scales samples to float64 in -1 to 1."""
    if dtype == "<u3":
        wide = np.zeros((len(data) // 3, 4), dtype=np.uint8)
        wide[:, 1:] = np.frombuffer(data, np.uint8).reshape(-1, 3)
        return wide.view("<i4")[:, 0] / 2.0**31
    samples = np.frombuffer(data, dtype).astype(np.float64)
    if dtype == "<u1":
        return (samples - 128) / 128
    return samples if dtype[1] == "f" else samples / 2.0 ** (8 * int(dtype[2:]) - 1)


def _is_sound(block: np.ndarray) -> bool:
    return bool((np.abs(block) < _LOUDEST).all())  # False for NaN
