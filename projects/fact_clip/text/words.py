"""A bag of words: every word is a direction of its own, a text the sum of those of its words.

No file and no library is needed, and what classes share in words they share in directions: "cut
tomato" lies between "cut cheese" and "peel tomato". Of meaning nothing is known.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vidseg.errors import UserError

from .encoder import TextEncoder
from .registry import TEXT_PROVIDERS

if TYPE_CHECKING:
    from .embedding import TextSettings

__all__ = ["DEFAULT_WIDTH", "WordBag", "hashed_direction"]

DEFAULT_WIDTH = 256

_WORD = re.compile(r"[^\W_]+")


@TEXT_PROVIDERS.register(name="words")
class WordBag(TextEncoder):
    """Sums hashed directions of words.

    Args:
        width: E of the embeddings.
    """

    def __init__(self, width: int = DEFAULT_WIDTH) -> None:
        self.width = width

    @classmethod
    def from_settings(cls, settings: TextSettings) -> WordBag:
        """Reads the width."""
        return cls(settings.embed_dim or DEFAULT_WIDTH)

    def encode(self, texts: Sequence[str]) -> NDArray[Any]:
        """Gives the sums, ``(len(texts), E)``.

        Raises:
            UserError: if a text has no word.
        """
        return np.stack([self._sum(text) for text in texts])

    def _sum(self, text: str) -> NDArray[Any]:
        words = _WORD.findall(text.lower())
        if not words:
            raise UserError(
                f"the text {text!r} has no word; give the class a phrase in CLIP.name_map"
            )
        total: NDArray[Any] = np.sum([hashed_direction(word, self.width) for word in words], axis=0)
        return total


def hashed_direction(text: str, width: int) -> NDArray[np.float64]:
    """Gives a direction that depends on the text alone, the same on every machine.

    Args:
        text: any.
        width: E of it.

    Returns:
        ``(E,)`` of length 1; those of different texts are nearly at right angles.
    """
    # No generator of NumPy: its streams may change between versions, and checkpoints keep these.
    digest = hashlib.shake_256(text.encode()).digest(4 * width)
    numbers = np.frombuffer(digest, "<u4") - (2**31 - 0.5)
    direction: NDArray[np.float64] = numbers / np.linalg.norm(numbers)
    return direction
