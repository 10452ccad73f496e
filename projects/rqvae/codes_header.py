"""What stands at the head of a codes file: which model its codes belong to.

Shapes: Q codebooks, K entries, V code width.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import reprlib
import zlib
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .windows import MODES, num_windows

__all__ = ["GLOBAL", "VERSION", "CodesHeader", "codebook_sha256", "parse_header"]

VERSION = 1
GLOBAL = "global"
"""Stands for a window mode where the whole document is one window."""

_MAX = {  # what is larger is an error in the file, and is refused before anything is computed
    "codebook_size": (1 << 31) - 1,
    "num_codebooks": 1 << 16,
    "num_levels": 1 << 16,
}
_MAX_COUNT = (1 << 32) - 1
_FRAMES = ("window_size", "stride")
_INTEGERS = (*_MAX, *_FRAMES, "input_dim", "num_documents")
_CRC_KEY = "header_crc32"
_CRC = re.compile(rb'"header_crc32":"([0-9a-f]{8})"')
_NO_CRC = b'"header_crc32":"00000000"'


@dataclass(frozen=True)
class CodesHeader:
    """What the codes of a file mean.

    Attributes:
        codebook_size: K, 2 or more.
        num_codebooks: Q of the model.
        num_levels: codes per window that are stored, at most ``num_codebooks``.
        window_size: frames of a window; 0 if the whole document is one.
        stride: frames from a window to the next; 0 if the whole document is one.
        window_mode: one of ``windows.MODES``, or ``"global"``.
        frame_rate: frames per second.
        input_dim: width of the features.
        codebook_sha256: see the function of that name.
        num_documents: in the file.
        version: of the format.

    Raises:
        ValueError: if a field has a wrong type or an impossible value.
    """

    codebook_size: int
    num_codebooks: int
    num_levels: int
    window_size: int
    stride: int
    window_mode: str
    frame_rate: float
    input_dim: int
    codebook_sha256: str
    num_documents: int = 0
    version: int = VERSION

    def __post_init__(self) -> None:
        show = reprlib.repr  # a stranger may have written any length
        if self.version != VERSION or isinstance(self.version, bool):
            raise ValueError(f"has version {show(self.version)}; only version {VERSION} is known")
        if self.window_mode not in (*MODES, GLOBAL):
            modes = ", ".join((*MODES, GLOBAL))
            raise ValueError(f"has window_mode {show(self.window_mode)}, which is none of {modes}")
        least_frames = 0 if self.window_mode == GLOBAL else 1
        least = {"codebook_size": 2, "num_documents": 0} | dict.fromkeys(_FRAMES, least_frames)
        for name in _INTEGERS:
            value = getattr(self, name)
            low, high = least.get(name, 1), _MAX.get(name, _MAX_COUNT)
            if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
                raise ValueError(f"has {name} {show(value)}, no integer from {low} to {high}")
        if self.num_levels > self.num_codebooks:
            raise ValueError(
                f"has {self.num_levels} num_levels, but only {self.num_codebooks} num_codebooks"
            )
        rate = self.frame_rate
        if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 < rate < math.inf:
            raise ValueError(f"has frame_rate {show(rate)}, which is no number above 0")
        sha = self.codebook_sha256
        if not isinstance(sha, str) or not re.fullmatch("[0-9a-f]{64}", sha):
            raise ValueError(f"has codebook_sha256 {show(sha)}, which is no SHA-256 in hex")

    @property
    def bits_per_code(self) -> int:
        """``ceil(log2 K)``."""
        return (self.codebook_size - 1).bit_length()

    def num_windows(self, num_frames: int) -> int:
        """Gives how many windows a document of that many frames has, 0 if it can have none."""
        if self.window_mode == GLOBAL:
            return 1
        # ``drop`` has no window for a short document, and says so by an error.
        if self.window_mode == "drop" and num_frames < self.window_size:
            return 0
        size, stride = self.window_size, self.stride
        return num_windows(num_frames, size, stride, self.window_mode, allow_gaps=True)

    def to_bytes(self) -> bytes:
        """Gives the header as json, of a length that does not depend on ``num_documents``."""
        content = {"version": self.version, **asdict(self), _CRC_KEY: "0" * 8}
        text = json.dumps(content, separators=(",", ":")).encode()
        text = text.ljust(len(text) + len(str(_MAX_COUNT)) - len(str(self.num_documents)))
        return text.replace(_NO_CRC, f'"{_CRC_KEY}":"{zlib.crc32(text):08x}"'.encode())

    @classmethod
    def of_model(cls, model: Any, frame_rate: float, num_levels: int | None = None) -> CodesHeader:
        """Describes what a model writes.

        Args:
            model: a ``DocumentRQVAE``, or another with its windows and its quantiser ``rvq``.
            frame_rate: of the documents, in frames per second.
            num_levels: that are kept of its codes; all by default.
        """
        codebooks = model.rvq.codebooks
        num_codebooks, codebook_size, _ = codebooks.shape
        return cls(
            codebook_size=codebook_size,
            num_codebooks=num_codebooks,
            num_levels=num_levels or num_codebooks,
            window_size=0 if model.is_global else model.window_size,
            stride=0 if model.is_global else model.window_stride,
            window_mode=GLOBAL if model.is_global else model.window_mode,
            frame_rate=float(frame_rate),
            input_dim=model.input_dim,
            codebook_sha256=codebook_sha256(codebooks),
        )


def parse_header(data: bytes) -> CodesHeader:
    """Reads the json of a header.

    Raises:
        ValueError: if it is damaged, lacks a field, or one is impossible; the message goes on after
            "the header".
    """
    crc = _CRC.search(data)
    if crc and int(crc[1], 16) != zlib.crc32(data.replace(crc[0], _NO_CRC)):
        raise ValueError("is damaged: its own checksum is wrong")
    try:
        content = json.loads(data.decode())
    except (ValueError, RecursionError):  # what is no text is a ValueError as well
        raise ValueError("is not valid json") from None
    if not isinstance(content, dict):
        raise ValueError(f"is a json {type(content).__name__}, not an object")
    if _CRC_KEY in content and not crc:
        raise ValueError(f"has a {_CRC_KEY} that is none")
    names = [field.name for field in fields(CodesHeader)]
    missing = [name for name in names if name not in content]
    if missing:
        raise ValueError(f"lacks {', '.join(missing)}")
    return CodesHeader(**{name: content[name] for name in names})


def codebook_sha256(codebooks: Tensor) -> str:
    """Gives the hash by which codes and codebooks ``(Q, K, V)`` know each other.

    It is that of the shape (three u32) and of the float32 values, all little-endian.
    """
    values = codebooks.detach().to("cpu", torch.float32).contiguous().numpy()
    digest = hashlib.sha256(np.asarray(values.shape, dtype="<u4").tobytes())
    digest.update(values.astype("<f4", copy=False).tobytes())
    return digest.hexdigest()
