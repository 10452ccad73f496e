"""A direction for each text, unlike that of any other: for tests, as nothing carries over."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .encoder import TextEncoder
from .registry import TEXT_PROVIDERS
from .words import DEFAULT_WIDTH, hashed_direction

if TYPE_CHECKING:
    from .embedding import TextSettings

__all__ = ["TextHash"]

_logger = logging.getLogger(__name__)


@TEXT_PROVIDERS.register(name="hash")
class TextHash(TextEncoder):
    """Hashes whole texts, and says that this is for tests.

    Args:
        width: E of the embeddings.
    """

    def __init__(self, width: int = DEFAULT_WIDTH) -> None:
        self.width = width

    @classmethod
    def from_settings(cls, settings: TextSettings) -> TextHash:
        """Reads the width."""
        return cls(settings.embed_dim or DEFAULT_WIDTH)

    def encode(self, texts: Sequence[str]) -> NDArray[Any]:
        """Gives the directions, ``(len(texts), E)``."""
        _logger.warning(
            "CLIP.text_provider hash gives arbitrary embeddings, for tests: nothing carries over "
            "from one class to another"
        )
        return np.stack([hashed_direction(text, self.width) for text in texts])
