"""What text encoders share: the mean over prompts, kept on disk where encoding takes time.

Shapes: C classes, P prompts per class, E width of the embeddings.
"""

from __future__ import annotations

import hashlib
import json
import logging
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from vidseg.data.synthetic import cache_root
from vidseg.files import remove_stale_drafts, write_atomically

from .prompts import Prompts

__all__ = ["TextEncoder"]

_VERSION = 1  # of what is done with the prompts

_logger = logging.getLogger(__name__)


class TextEncoder(ABC):
    """Turns text into vectors, and a class into the mean of its prompts."""

    reads: ClassVar[tuple[str, ...]] = ()  # see ``TextProvider``

    @abstractmethod
    def encode(self, texts: Sequence[str]) -> NDArray[Any]:
        """Gives real numbers ``(len(texts), E)`` of any length."""

    def identity(self) -> dict[str, Any] | None:
        """Gives plain json of what the vectors depend on besides text; None: they are not kept."""
        return None

    def embed(self, names: Sequence[str], prompts: Prompts) -> NDArray[Any]:
        """Gives the mean over prompts, each of length 1 before.

        Args:
            names: of the classes.
            prompts: what stands for them in text.

        Returns:
            ``(C, E)``.
        """
        texts = [prompts.texts(name) for name in names]
        identity = self.identity()
        if identity is None:
            return self._mean(texts)
        key = json.dumps([_VERSION, identity, texts], sort_keys=True).encode()
        path = cache_root() / "fact_clip" / "text" / f"{hashlib.sha256(key).hexdigest()[:32]}.npz"
        vectors = _read(path, len(names))
        if vectors is None:
            vectors = self._mean(texts)
            _write(path, vectors)
        return vectors

    def _mean(self, texts: list[list[str]]) -> NDArray[Any]:
        flat = np.asarray(self.encode([text for group in texts for text in group]), np.float64)
        with np.errstate(invalid="ignore"):  # what has no direction is told of by its class
            units = flat / np.linalg.norm(flat, axis=1, keepdims=True)
        mean: NDArray[Any] = units.reshape(len(texts), -1, flat.shape[1]).mean(1)
        return mean


def _read(path: Path, count: int) -> NDArray[Any] | None:
    """Reads embeddings; None if they are not there or damaged."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            vectors: NDArray[Any] = arrays["embeddings"]
        if vectors.ndim != 2 or len(vectors) != count:
            raise ValueError(f"its shape is {vectors.shape}")
        return vectors
    except FileNotFoundError:
        return None
    except (OSError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        _logger.warning("%s is damaged and made again (%s)", path, error)
        return None


def _write(path: Path, vectors: NDArray[Any]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_stale_drafts(path.parent)
        write_atomically(path, lambda file: np.savez(file, embeddings=vectors), durable=False)
    except OSError as error:  # a disk that cannot be written only costs time
        reason = error.strerror or error
        _logger.warning("text embeddings are not kept: %s cannot be written (%s)", path, reason)
